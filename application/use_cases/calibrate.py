"""Use case: score examples, so that a threshold can be chosen from the scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from application.bulk_ports import ImageFile, ImageFilesPort, error_of
from application.inference.inference import Inference
from domain.baseline import scores_against_the_others
from domain.embedding import Embedding
from domain.errors import EncoderFault, InvalidExamples, InvalidInput, InvalidInputs
from domain.limits import MAX_CALIBRATION_PICTURES, MAX_IMAGES


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """A number for each example.

    Attributes:
        negatives: float64 ``[n]``; examples that must not raise an alarm.
        positives: float64 ``[m]``; examples that should.
        groups: int64 ``[n, 2]``, the two things that each negative came from; None where the
            negatives do not depend on each other.
        pictures: how many pictures were embedded.
        left_out: path and reason of every picture that could not be.
    """

    negatives: NDArray[np.float64]
    positives: NDArray[np.float64]
    groups: NDArray[np.int64] | None
    pictures: int
    left_out: Mapping[str, str]


class MeasureExamples:
    """Embeds pictures that a person has sorted and compares them.

    A picture that cannot be embedded is left out and named. All methods raise as `Inference` says,
    and InvalidExamples if there are too many pictures or too few remain.
    """

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def of_things(
        self,
        files: ImageFilesPort,
        things: Sequence[Sequence[ImageFile]],
        *,
        on_progress: Callable[[int, int], None],
    ) -> Examples:
        """Cosines of all pairs: of the same thing (positives) and of different things (negatives).

        Args:
            files: reads the pictures.
            things: the pictures of each thing, such as of each person.
            on_progress: called with how many pictures are done, and out of how many.
        """
        pictures = [picture for thing in things for picture in thing]
        label_of = [number for number, thing in enumerate(things) for _ in thing]
        embeddings, left_out = await self._embed(files, pictures, on_progress)
        kept = [place for place, picture in enumerate(pictures) if picture.path in embeddings]
        if not kept:
            raise _nothing_left(left_out)
        labels = np.array([label_of[place] for place in kept], dtype=np.int64)
        vectors = np.stack([embeddings[pictures[place].path].vector for place in kept])
        cosines = np.clip(vectors.astype(np.float64) @ vectors.T, -1.0, 1.0)
        one, other = np.triu_indices(len(kept), k=1)
        same = labels[one] == labels[other]
        return Examples(
            negatives=cosines[one, other][~same],
            positives=cosines[one, other][same],
            groups=np.stack([labels[one], labels[other]], axis=1)[~same],
            pictures=len(kept),
            left_out=left_out,
        )

    async def of_pairs(
        self,
        files: ImageFilesPort,
        pairs: Sequence[tuple[ImageFile, ImageFile, bool]],
        *,
        on_progress: Callable[[int, int], None],
    ) -> Examples:
        """Cosines of given pairs; True in a pair says that both show the same thing."""
        pictures = {picture.path: picture for pair in pairs for picture in pair[:2]}
        embeddings, left_out = await self._embed(files, list(pictures.values()), on_progress)
        number = {path: place for place, path in enumerate(embeddings)}
        kept = [
            (one.path, other.path, same)
            for one, other, same in pairs
            if one.path in number and other.path in number
        ]
        if not kept:
            raise _nothing_left(left_out)
        cosines = np.array([embeddings[one].cosine(embeddings[other]) for one, other, _ in kept])
        same = np.array([pair[2] for pair in kept])
        groups = np.array([(number[one], number[other]) for one, other, _ in kept], dtype=np.int64)
        return Examples(cosines[~same], cosines[same], groups[~same], len(embeddings), left_out)

    async def of_frames(
        self,
        files: ImageFilesPort,
        normal: Sequence[ImageFile],
        unusual: Sequence[ImageFile],
        *,
        baseline: Embedding | None,
        on_progress: Callable[[int, int], None],
    ) -> Examples:
        """Anomaly scores of normal frames (negatives) and of unusual ones (positives).

        Without a baseline each normal frame is scored against the mean of the other normal ones,
        and each unusual frame against the mean of all normal ones.
        """
        embeddings, left_out = await self._embed(files, [*normal, *unusual], on_progress)
        usual = [embeddings[frame.path] for frame in normal if frame.path in embeddings]
        odd = [embeddings[frame.path] for frame in unusual if frame.path in embeddings]
        if len(usual) < (_FEWEST_FRAMES if baseline is None else 1):
            raise _nothing_left(left_out)
        vectors = np.stack([frame.vector for frame in usual]).astype(np.float64)
        if baseline is None:
            negatives = scores_against_the_others(vectors)
            baseline = Embedding.from_encoder(vectors.mean(axis=0))
        else:
            if baseline.dimension != usual[0].dimension:
                raise InvalidInputs(
                    f"the baseline has {baseline.dimension} numbers; the model's embeddings have "
                    f"{usual[0].dimension}.",
                    code="baseline_wrong_length",
                )
            negatives = _scores(usual, baseline)
        return Examples(negatives, _scores(odd, baseline), None, len(embeddings), left_out)

    async def _embed(
        self,
        files: ImageFilesPort,
        pictures: Sequence[ImageFile],
        on_progress: Callable[[int, int], None],
    ) -> tuple[dict[str, Embedding], dict[str, str]]:
        """Embeddings by path, in order, and why the others have none."""
        distinct = list({picture.path: picture for picture in pictures}.values())
        if len(distinct) > MAX_CALIBRATION_PICTURES:
            raise InvalidExamples(
                f"there are {len(distinct)} pictures; at most {MAX_CALIBRATION_PICTURES} can be "
                "compared with each other. Take fewer.",
                code="too_many_pictures",
            )
        embeddings: dict[str, Embedding] = {}
        left_out: dict[str, str] = {}
        on_progress(0, len(distinct))
        for start in range(0, len(distinct), MAX_IMAGES):
            read: list[tuple[str, bytes]] = []
            for picture in distinct[start : start + MAX_IMAGES]:
                try:
                    read.append((picture.path, files.read(picture)))
                except (OSError, InvalidInput) as failure:
                    left_out[picture.path] = error_of(failure)
            outcomes = await self._inference.embed_each_image([data for _, data in read])
            for (path, _), outcome in zip(read, outcomes, strict=True):
                if isinstance(outcome, Embedding):
                    embeddings[path] = outcome
                elif isinstance(outcome, InvalidInput | EncoderFault):
                    left_out[path] = error_of(outcome)
                else:
                    raise outcome
            on_progress(min(start + MAX_IMAGES, len(distinct)), len(distinct))
        return embeddings, left_out


_FEWEST_FRAMES: Final = 3
"""Normal frames that can be scored against each other."""


def _scores(frames: Sequence[Embedding], baseline: Embedding) -> NDArray[np.float64]:
    return np.array([min(max(1.0 - baseline.cosine(frame), 0.0), 1.0) for frame in frames])


def _nothing_left(left_out: Mapping[str, str]) -> InvalidExamples:
    why = "".join(f" {path}: {reason}" for path, reason in list(left_out.items())[:1])
    return InvalidExamples(
        f"too few pictures could be embedded to compare any.{why}", code="too_few_pictures"
    )
