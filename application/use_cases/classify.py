"""Use case: which of the given labels fits an image."""

from collections.abc import Sequence
from dataclasses import dataclass

from application.inference.inference import Inference
from domain.classification import Classification, Score, check_score, classify
from domain.embedding import mean_embedding
from domain.prompts import TEMPLATES, CameraType, prompts_for
from domain.wording import check_labels


@dataclass(frozen=True, slots=True)
class Ensemble:
    """How an ensemble was built.

    Attributes:
        camera_type: chose the templates.
        templates: the prompt templates, with ``{}`` in place of the label.
        method: how the prompts' embeddings were combined.
    """

    camera_type: CameraType
    templates: tuple[str, ...]
    method: str = "mean"


@dataclass(frozen=True, slots=True)
class ClassifiedImage:
    """A classification, and the ensemble if one was requested."""

    classification: Classification
    ensemble: Ensemble | None


class ClassifyImage:
    """Serves ``POST /classify``."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(
        self,
        image: bytes,
        labels: Sequence[str],
        *,
        camera_type: CameraType | None = None,
        score: Score = Score.SOFTMAX,
    ) -> ClassifiedImage:
        """Classify one image file.

        Args:
            image: the file's bytes.
            labels: 1 to 100 different labels, none blank.
            camera_type: put each label through this camera type's templates; None: use it as it is.
            score: how cosines become probabilities.

        Raises:
            InvalidLabels: the labels break a rule.
            InvalidScore: the loaded model was not trained for it. Else as `Inference` says.
        """
        check_labels(labels)
        check_score(score, self._inference.encoder.logit_bias)
        wordings = {
            label: (label,) if camera_type is None else prompts_for(label, camera_type)
            for label in labels
        }
        embedding, texts = await self._inference.embed_image_and_texts(
            image, [wording for group in wordings.values() for wording in group]
        )
        remaining = iter(texts)
        label_embeddings = {
            label: mean_embedding([next(remaining) for _ in group])
            for label, group in wordings.items()
        }
        return ClassifiedImage(
            classification=classify(
                embedding,
                label_embeddings,
                logit_scale=self._inference.encoder.logit_scale,
                logit_bias=self._inference.encoder.logit_bias,
                score=score,
            ),
            ensemble=None
            if camera_type is None
            else Ensemble(camera_type=camera_type, templates=TEMPLATES[camera_type]),
        )
