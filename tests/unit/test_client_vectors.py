"""The Python client's own arithmetic, beside the server's domain."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from clip_client import (
    Embedding,
    FingerprintMismatch,
    InvalidInput,
    average_embedding,
    cosine_similarity,
)
from hypothesis import given
from hypothesis import strategies as st

from domain.embedding import Embedding as DomainEmbedding
from domain.embedding import mean_embedding

FEW = st.lists(
    st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4).filter(
        lambda v: np.linalg.norm(v) > 1e-3
    ),
    min_size=2,
    max_size=5,
)


@given(FEW)
def test_it_agrees_with_the_domain(vectors: list[list[float]]) -> None:
    units = [DomainEmbedding.from_encoder(np.array(vector)) for vector in vectors]
    assert cosine_similarity(vectors[0], vectors[1]) == pytest.approx(
        units[0].cosine(units[1]), abs=1e-6
    )
    total = sum(unit.vector.astype(np.float64) for unit in units)
    if np.linalg.norm(total) > 1e-2:
        assert average_embedding(vectors) == pytest.approx(
            mean_embedding(units).vector.tolist(), abs=1e-4
        )


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_lengths_do_not_matter(scale: float) -> None:
    a, b = [scale, 2 * scale], [2.0, 1.0]
    assert cosine_similarity(a, b) == pytest.approx(0.8)
    assert average_embedding([a, a]) == pytest.approx([0.2**0.5, 0.8**0.5])


def test_zero_is_similar_to_nothing() -> None:
    assert cosine_similarity([0.0, 0.0], [1.0, 0.0]) == 0.0
    with pytest.raises(InvalidInput, match="cancel out"):
        average_embedding([[1.0, 0.0], [-1.0, 0.0]])


def test_arrays_are_vectors_too() -> None:
    assert cosine_similarity(np.array([3.0, 4.0], np.float32), [3, 4]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        ([1.0], [1.0, 2.0], "these have 1 and 2 numbers"),
        ([], [1.0], "empty"),
        ([float("nan")], [1.0], "component 0 is nan"),
        ([1.0, float("inf")], [1.0, 1.0], "component 1 is inf"),
        ("ab", [1.0], "numbers only; this is str"),
        ([[1.0]], [1.0], "numbers only; this is list"),
    ],
)
def test_what_is_no_vector_is_refused(a: Any, b: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        cosine_similarity(a, b)


def test_no_embeddings_have_no_average() -> None:
    with pytest.raises(InvalidInput, match="no embeddings"):
        average_embedding([])


def test_checkpoints_are_never_mixed() -> None:
    a, b = (Embedding([1.0, 0.0], fingerprint=name) for name in ("first", "second"))
    unknown = Embedding([1.0, 0.0])
    for compare in (cosine_similarity, lambda *sides: average_embedding(sides)):
        with pytest.raises(FingerprintMismatch, match="first, second"):
            compare(a, b)
    assert cosine_similarity(a, unknown) == pytest.approx(1.0)
    assert average_embedding([a, unknown]).fingerprint == "first"
    assert average_embedding([unknown]).fingerprint is None


def test_an_embedding_is_a_list_of_floats() -> None:
    embedding = Embedding([0.6, 0.8], fingerprint="abc")
    assert json.dumps(embedding) == "[0.6, 0.8]"
    assert np.asarray(embedding).tolist() == [0.6, 0.8]
    assert embedding == [0.6, 0.8]


def test_importing_it_brings_nothing_heavy() -> None:
    unwanted = (
        "numpy",
        "PIL",
        "torch",
        "litestar",
        "domain",
        "application",
        "adapters",
        "entrypoints",
    )
    code = f"import sys, clip_client; print([m for m in {unwanted!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"
