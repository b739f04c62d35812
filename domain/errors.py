"""Everything that can be wrong with a request or with the service, as one tree.

Each error has a stable, machine-readable ``code`` and a human ``detail`` that names the value and
the limit it broke. The entrypoints decide how an error is reported (HTTP status, exit code).

::

    ClipError
    ├── InvalidInput            the request can never succeed as it is
    │   ├── InvalidImage
    │   ├── ImageTooLarge
    │   ├── InvalidImages
    │   ├── InvalidLabels
    │   ├── InvalidTexts
    │   ├── UnknownCameraType
    │   ├── InvalidScore
    │   ├── InvalidEmbedding
    │   │   └── InvalidBaseline
    │   ├── InvalidFrames
    │   ├── InvalidInputs
    │   ├── InvalidThreshold
    │   └── UnknownModel
    ├── ServiceUnavailable      the same request may succeed later
    │   ├── ModelNotReady
    │   ├── EncoderSuspect
    │   ├── EncoderHung
    │   ├── OutOfMemory
    │   ├── QueueFull
    │   └── Draining
    └── EncoderFault            the encoder returned something that is not an embedding
"""

from typing import Self


class ClipError(Exception):
    """Root of the tree.

    Attributes:
        detail: one or two sentences for a person, naming the value and the limit.
        code: stable identifier for programs, in snake_case.
    """

    code = "clip_error"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code


class InvalidInput(ClipError):
    """The request breaks a rule; sending it again will not help."""

    code = "invalid_input"

    def about(self, subject: str) -> Self:
        """The same error, with the name of the part of the request that caused it."""
        return type(self)(f"{subject}: {self.detail}", code=self.code)


class InvalidImage(InvalidInput):
    """Not an image, not an allowed format, damaged, or too many pixels."""

    code = "invalid_image"


class ImageTooLarge(InvalidInput):
    """The decoded image file has more bytes than allowed."""

    code = "image_too_large"


class InvalidImages(InvalidInput):
    """No images or too many."""

    code = "invalid_images"


class InvalidLabels(InvalidInput):
    """No labels, too many, blank ones or the same one twice."""

    code = "invalid_labels"


class InvalidTexts(InvalidInput):
    """No texts, too many, blank ones or the same one twice."""

    code = "invalid_texts"


class InvalidScore(InvalidInput):
    """A way of scoring labels that does not exist, or that the model was not trained for."""

    code = "unknown_score"


class UnknownCameraType(InvalidInput):
    """``camera_type`` is not one of the known ones."""

    code = "unknown_camera_type"


class InvalidEmbedding(InvalidInput):
    """An embedding has the wrong length, a number that is not finite, or no direction."""

    code = "invalid_embedding"


class InvalidBaseline(InvalidEmbedding):
    """The baseline embedding has the wrong length or a number that is not finite."""

    code = "invalid_baseline"


class InvalidFrames(InvalidInput):
    """No frames, too many, or frames that have no mean."""

    code = "invalid_frames"


class InvalidExamples(InvalidInput):
    """Examples from which no threshold can be computed, or an impossible rate."""

    code = "invalid_examples"


class InvalidInputs(InvalidInput):
    """Images and texts mixed: none, too many, a blank one, or an impossible dimension."""

    code = "invalid_inputs"


class InvalidThreshold(InvalidInput):
    """A threshold is outside the range of the values it is compared with."""

    code = "invalid_threshold"


class UnknownModel(InvalidInput):
    """The requested model is not the loaded one."""

    code = "model_not_found"


class ServiceUnavailable(ClipError):
    """The service cannot serve the request now.

    Attributes:
        retry_after_s: whole seconds after which trying again makes sense.
    """

    code = "service_unavailable"

    def __init__(self, detail: str, *, code: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(detail, code=code)
        self.retry_after_s = retry_after_s


class ModelNotReady(ServiceUnavailable):
    """No model is loaded: still starting (``model_starting``) or failed (``model_not_loaded``)."""

    code = "model_not_loaded"


class EncoderSuspect(ServiceUnavailable):
    """The encoder is suspect: it has neither passed its verification nor been reloaded yet."""

    code = "encoder_doubted"


class EncoderHung(ServiceUnavailable):
    """A call to the encoder has not returned in time."""

    code = "encoder_hanging"


class OutOfMemory(ServiceUnavailable):
    """There is no memory left for this request."""

    code = "out_of_memory"


class QueueFull(ServiceUnavailable):
    """As many requests as allowed are already waiting or running."""

    code = "queue_full"


class Draining(ServiceUnavailable):
    """The service is shutting down: it takes no new requests, or could not finish this one."""

    code = "draining"


class EncoderFault(ClipError):
    """The encoder returned something that is not an embedding (wrong shape, NaN, infinity)."""

    code = "encoder_fault"
