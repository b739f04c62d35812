"""Use case: how far an image has moved from a baseline embedding."""

from collections.abc import Sequence

from application.inference.inference import Inference
from domain.anomaly import Anomaly, check_anomaly_threshold, score_against
from domain.embedding import Baseline


class ScoreAnomaly:
    """Serves ``POST /anomaly-score``."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(
        self, image: bytes, baseline: Sequence[float], *, threshold: float | None = None
    ) -> Anomaly:
        """Compare one image file with a baseline.

        Args:
            image: the file's bytes.
            baseline: as many finite numbers as an embedding has; they need not have norm 1, and all
                zeros score 1.
            threshold: score in [0, 1] above which it is an anomaly; None: do not decide.

        Raises:
            InvalidThreshold: outside of [0, 1].
            InvalidBaseline: wrong count or a number that is not finite. Else as `Inference` says.
        """
        if threshold is not None:
            check_anomaly_threshold(threshold)
        reference = Baseline.from_numbers(baseline, dimension=self._inference.embedding_dimension)
        embedding = await self._inference.embed_image(image)
        return score_against(reference, embedding, threshold=threshold)
