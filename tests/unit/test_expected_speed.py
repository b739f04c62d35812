"""What other models would take on a processor."""

import pytest

from adapters.encoders.expected_speed import (
    gains,
    multiplication_rate,
    seconds_per_image,
)
from adapters.models.catalogue import IMAGE_TOWERS, KNOWN
from adapters.models.hub import is_hub_name
from adapters.models.precision import Precision


@pytest.mark.parametrize(
    ("instructions", "precisions"),
    [
        ((), {Precision.FP32}),
        (("avx2",), {Precision.FP32}),
        (("avx2", "avx_vnni"), {Precision.FP32}),
        (("avx512f", "avx512_vnni"), {Precision.FP32, Precision.INT8}),
        (
            ("avx512_vnni", "avx512_bf16"),
            {Precision.FP32, Precision.BF16, Precision.INT8},
        ),
        # With AMX, int8 was no faster than bf16.
        (
            ("avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
            {Precision.FP32, Precision.BF16},
        ),
    ],
)
def test_only_precisions_with_a_gain_are_named(
    instructions: tuple[str, ...], precisions: set[Precision]
) -> None:
    assert set(gains(instructions)) == precisions


@pytest.mark.parametrize(("name", "layers", "width", "patch"), [
    ("CLIP ViT-B/32", 12, 768, 32),
    ("CLIP ViT-B/16", 12, 768, 16),
    ("CLIP ViT-L/14", 24, 1024, 14),
])  # fmt: skip
def test_operations_are_those_of_the_architecture(
    name: str, layers: int, width: int, patch: int
) -> None:
    patches = (224 // patch) ** 2
    tokens = patches + 1
    per_layer = 12 * width**2 * tokens + 2 * tokens**2 * width
    products = layers * per_layer + patches * 3 * patch**2 * width
    assert IMAGE_TOWERS[name].operations == pytest.approx(2 * products, rel=0.02)


def test_the_known_models_are_named_as_the_hub_names_them_and_described_plausibly() -> None:
    assert len({model.name for model in KNOWN}) == len(KNOWN) >= 12
    for model in KNOWN:
        assert is_hub_name(model.name)
        assert 1e9 < model.image_tower.operations < 1e12
        assert 500 < model.megabytes < 5000
        assert model.image_tower.size % model.image_tower.patch in (0, 6)


def test_an_estimate_is_arithmetic_over_rate() -> None:
    # Two cores with AVX512-BF16 did ViT-L/14 in 0.35 s in fp32 and 0.22 s in bf16.
    rate = 5.1e11
    assert seconds_per_image(162e9, rate, 1.0) == pytest.approx(0.35, rel=0.02)
    assert seconds_per_image(162e9, rate, 1.6) == pytest.approx(0.22, rel=0.02)


def test_the_rate_is_measured() -> None:
    assert multiplication_rate() > 1e6
