"""Captions: concept names and keywords in the sentences that camera software writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.artwork import ConceptName
from training.concepts import CAMERA_CONCEPTS

TEMPLATES: tuple[str, ...] = (
    "a photo of a {}",
    "a photo of {}",
    "a photo of the {}",
    "a picture of a {}",
    "an image of a {}",
    "an image of {}",
    "a drawing of a {}",
    "an icon of a {}",
    "this is a {}",
    "there is a {}",
    "there is a {} in the scene",
    "a scene with a {}",
    "a {} in the scene",
    "a {} in the frame",
    "a close-up of a {}",
    "a small {}",
    "a large {}",
    "a blurry photo of a {}",
    "a blurry security camera image of a {}",
    "a security camera image of a {}",
    "a security camera photo of {}",
    "security camera footage of a {}",
    "surveillance footage of a {}",
    "surveillance camera view of {}",
    "a cctv image of a {}",
    "cctv footage showing a {}",
    "a frame of a video of a {}",
    "a low resolution photo of a {}",
    "a low quality image of a {}",
    "a grainy photo of a {}",
    "a noisy image of a {}",
    "a black and white photo of a {}",
    "a greyscale image of a {}",
    "night vision footage of a {}",
    "a night vision image of {}",
    "an infrared image of a {}",
    "a {} at night",
    "a {} in the dark",
    "a low light photo of a {}",
    "a dark image of a {}",
    "a {} at the door",
    "a {} at the front door",
    "a doorbell camera image of a {}",
    "doorbell footage of a {}",
    "a {} on the porch",
    "a {} in the driveway",
    "a {} in the yard",
    "a {} in the garden",
    "a {} on the street",
    "an outdoor photo of a {}",
    "an outdoor camera view of a {}",
    "a {} outside",
    "a {} in daylight",
    "a photo of a {} in the rain",
    "an indoor photo of a {}",
    "an indoor camera view of a {}",
    "a {} inside a room",
    "a {} in a hallway",
    "a {} in the house",
    "a home camera photo of a {}",
    "a wide angle view of a {}",
    "a clear photo of a {}",
    "a bright photo of a {}",
    "the camera sees a {}",
    "a {} was detected",
    "a {} approaching",
    "one {}",
    "the {}",
    "a {}",
)
"""Caption templates; a bare name is written as often as all templates of one quarter."""

EMPTY_SCENE = "an empty scene"
EMPTY_CAPTIONS: tuple[str, ...] = (
    EMPTY_SCENE,
    "nothing",
    "no one",
    "nobody is there",
    "background",
    "an empty street",
    "an empty room",
    "an empty porch",
    "an empty driveway",
    "a security camera image of an empty scene",
    "nothing in the scene",
)
BARE_SHARE = 0.3
NAME_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class _Phrases:
    """The names of a concept: weighted alternatives to its own name."""

    name: str
    others: tuple[str, ...]
    weights: npt.NDArray[np.float64]


class CaptionWriter:
    """Writes random captions of concepts.

    60 % of the captions use the concept's name, and the others a keyword. Rarer keywords are used
    more often: "animal" says little about a dog.
    """

    def __init__(self, catalogue: dict[str, ConceptName], concepts: Sequence[str]) -> None:
        """Prepares captions for `concepts`, keys of the catalogue or EMPTY_SCENE."""
        counts = Counter(
            k for name in set(concepts) if name in catalogue for k in catalogue[name].keywords
        )
        # A keyword that names a camera concept must not describe another one, as in "railway car"
        # or "hot dog".
        reserved = {n for c in CAMERA_CONCEPTS for n in (c.label, *c.synonyms)}
        self._phrases: dict[str, _Phrases] = {}
        for name in concepts:
            if name not in catalogue:
                continue
            entry = catalogue[name]
            others = tuple(
                k for k in entry.keywords if entry.camera or (counts[k] <= 6 and k not in reserved)
            )
            weights = np.array([1.0 if entry.camera else 1.0 / counts[k] for k in others])
            self._phrases[name] = _Phrases(name, others, weights / max(weights.sum(), 1e-9))

    def write(self, concept: str, variant: str, rng: np.random.Generator) -> str:
        """Writes one caption for a drawing of `concept` in the given variant."""
        if concept == EMPTY_SCENE:
            return EMPTY_CAPTIONS[int(rng.integers(len(EMPTY_CAPTIONS)))]
        phrases = self._phrases[concept]
        if phrases.others and rng.random() > NAME_SHARE:
            subject = phrases.others[int(rng.choice(len(phrases.others), p=phrases.weights))]
        else:
            subject = variant if rng.random() < 0.4 else concept
        if rng.random() < BARE_SHARE:
            return subject
        return _fill(TEMPLATES[int(rng.integers(len(TEMPLATES)))], subject)

    def phrases(self, variants: Sequence[str]) -> list[str]:
        """Lists every piece of text that a caption can hold."""
        names = [t for p in self._phrases.values() for t in (p.name, *p.others)]
        articles = ["a", "an"]
        templates = [template.replace("{}", " ") for template in TEMPLATES]
        return [*names, *variants, *articles, *templates, *EMPTY_CAPTIONS]


def _fill(template: str, subject: str) -> str:
    """Fills a template, with "an" before a vowel."""
    if subject[:1] in "aeiou":
        template = template.replace("a {}", "an {}")
    return template.format(subject)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The rows of CLIP's token table that training touches.

    Attributes:
        rows: int64 [n], sorted token numbers of the full table; start and end are the last two.
        encode: text to token numbers of the full table, without start and end.
    """

    rows: npt.NDArray[np.int64]
    encode: Callable[[str], list[int]]

    @classmethod
    def of(
        cls, phrases: Sequence[str], encode: Callable[[str], list[int]], start: int, end: int
    ) -> Vocabulary:
        """Collects the tokens of all phrases."""
        tokens = {token for phrase in phrases for token in encode(phrase)}
        return cls(np.array(sorted(tokens | {start, end}), dtype=np.int64), encode)

    def batch(
        self, captions: Sequence[str], context: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Turns captions into places in `rows`, cut to the longest caption of the batch.

        Returns:
            Places, int64 [n, longest], padded with the end token, and the place of each
            caption's end token, int64 [n].
        """
        start, end = int(self.rows[-2]), int(self.rows[-1])
        tokens = [[start, *self.encode(c)[: context - 2], end] for c in captions]
        ends = np.array([len(t) - 1 for t in tokens], dtype=np.int64)
        padded = np.full((len(tokens), int(ends.max()) + 1), end, dtype=np.int64)
        for row, each in zip(padded, tokens, strict=True):
            row[: len(each)] = each
        return np.searchsorted(self.rows, padded).astype(np.int64), ends
