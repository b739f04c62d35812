"""Use case: what a scene usually looks like, computed from frames."""

from collections.abc import Sequence

from application.inference.inference import Inference
from domain.baseline import SceneBaseline, baseline_of
from domain.counts import check_frame_count, check_image_count
from domain.embedding import Embedding


class BuildBaseline:
    """Serves ``POST /baseline``."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(
        self, images: Sequence[bytes], embeddings: Sequence[Sequence[float]]
    ) -> SceneBaseline:
        """Build a baseline from frames. One bad frame fails the request.

        Args:
            images: frames as image files, at most `MAX_IMAGES`.
            embeddings: embeddings of further frames; 1 to `MAX_FRAMES` frames in all.

        Raises:
            InvalidFrames: no frames, too many, or they cancel out.
            InvalidImages: too many images.
            InvalidEmbedding: wrong count, a number that is not finite, or all zeros. Else as
                `Inference` says; errors name the frame.
        """
        check_frame_count(len(images) + len(embeddings))
        dimension = self._inference.dimension_of(embeddings[0]) if embeddings else 0
        frames = [
            Embedding.from_numbers(numbers, dimension=dimension, name=f"embeddings[{place}]")
            for place, numbers in enumerate(embeddings)
        ]
        if images:
            check_image_count(len(images))
            embedded, _ = await self._inference.embed_all(
                {f"images[{place}]": image for place, image in enumerate(images)}
            )
            frames += embedded
        return baseline_of(frames)
