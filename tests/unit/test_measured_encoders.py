"""Which encoders of a processor are measured, and which one is worth a change."""

from pathlib import Path

import numpy as np
import pytest

from adapters.encoders.kept_choice import keep_choice, kept_choice
from adapters.encoders.measuring import (
    Candidate,
    Figures,
    best_batch,
    candidates,
    clearly_faster,
    considered_by_auto,
    cosine,
    fastest_runtime,
)
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from adapters.models.precision import Precision
from application.ports import Device
from entrypoints.commands.doctor import batches_on_card

OPENVINO, TORCH = EncoderChoice.OPENVINO, EncoderChoice.TORCH
FP32, BF16, INT8 = Precision.FP32, Precision.BF16, Precision.INT8


def figures(rate: float, row: list[float] | None = None) -> Figures:
    return Figures({8: rate}, [row or [1.0, 0.0]], 0)


def test_only_what_is_installed_and_what_the_processor_can_do() -> None:
    everything = candidates({"openvino", "torch", "nncf"}, bf16=True, int8=True, cores=4)
    assert {(each.encoder, each.precision, each.streams) for each in everything} == {
        *((OPENVINO, precision, streams) for precision in (FP32, BF16, INT8) for streams in (1, 2)),
        (TORCH, FP32, 1),
        (TORCH, BF16, 1),
    }
    assert candidates({"openvino", "nncf"}, bf16=False, int8=False, cores=1) == [
        Candidate(OPENVINO, FP32)
    ]
    assert candidates({"torch"}, bf16=False, int8=True, cores=8) == [Candidate(TORCH, FP32)]
    assert candidates(set(), bf16=True, int8=True, cores=8) == []


def test_the_first_is_exact_so_that_others_can_be_compared_with_it() -> None:
    found = candidates({"openvino", "torch"}, bf16=True, int8=True, cores=2)
    assert found[0].precision is FP32


def on_processor(
    cache: Path | None = None,
    *,
    precision: Precision | None = BF16,
    choice: EncoderChoice = EncoderChoice.AUTO,
    device: str = "CPU",
    streams: int = 1,
    cuda: bool = False,
) -> EncoderSelection:
    return EncoderSelection(
        choice,
        "model",
        cache=cache,
        precision=precision,
        openvino_device=device,
        openvino_streams=streams,
        probe_gpu=lambda: Device("cuda:0" if cuda else "cpu", cuda_available=cuda),
    )


def test_auto_considers_both_runtimes_as_the_settings_have_them() -> None:
    for choice in (EncoderChoice.AUTO, TORCH):  # what it would take, whatever is asked for now
        selection = on_processor(choice=choice, streams=3)
        assert considered_by_auto(selection) == [
            Candidate(OPENVINO, BF16, 3),
            Candidate(TORCH, BF16),
        ]
    assert considered_by_auto(on_processor(precision=INT8)) == [Candidate(OPENVINO, INT8)]
    (precision,) = {each.precision for each in considered_by_auto(on_processor(precision=None))}
    assert precision in (BF16, FP32)


def test_what_auto_takes_now_comes_first(tmp_path: Path) -> None:
    keep_choice(tmp_path, "model", BF16, "torch")
    assert considered_by_auto(on_processor(tmp_path))[0] == Candidate(TORCH, BF16)


def test_what_runs_elsewhere_than_on_the_processor_is_no_choice() -> None:
    assert considered_by_auto(on_processor(device="GPU")) == ()
    assert considered_by_auto(on_processor(cuda=True)) == ()


def test_noise_is_no_reason_to_change() -> None:
    now, other = Candidate(OPENVINO, BF16), Candidate(TORCH, BF16)
    assert clearly_faster({now: figures(10.0), other: figures(10.9)}, now, 8) is None
    assert clearly_faster({now: figures(10.0), other: figures(11.1)}, now, 8) == other
    assert clearly_faster({now: figures(10.0), other: figures(5.0)}, now, 8) is None


def both(single: float, batch: float, row: list[float] | None = None) -> Figures:
    return Figures({1: single, 8: batch}, [row or [1.0, 0.0]], 0)


NOW, OTHER = Candidate(OPENVINO, BF16, 2), Candidate(TORCH, BF16)


@pytest.mark.parametrize(
    ("other", "taken"),
    [
        (both(2.3, 3), TORCH),
        (both(2.1, 3), OPENVINO),  # no more than noise
        (both(4, 2.9), OPENVINO),  # slower in full batches
        (both(4, 4, [1.0, 0.1]), TORCH),  # a cosine of 0.995
        (both(4, 4, [1.0, 0.2]), OPENVINO),  # a cosine of 0.98
    ],
)
def test_auto_changes_its_runtime_only_for_one_that_is_faster_and_agrees(
    other: Figures, taken: EncoderChoice
) -> None:
    measured = {NOW: both(2, 3), OTHER: other, Candidate(TORCH, FP32): both(9, 9)}
    assert fastest_runtime([NOW, OTHER], measured, 8) == taken


def test_what_could_not_be_measured_is_not_taken() -> None:
    assert fastest_runtime([NOW, OTHER], {NOW: both(2, 3)}, 8) == OPENVINO
    assert fastest_runtime([NOW, OTHER], {OTHER: both(2, 3)}, 8) == OPENVINO


def test_the_choice_is_kept_for_this_processor_checkpoint_and_precision(tmp_path: Path) -> None:
    assert kept_choice(tmp_path, "model", BF16) is None
    assert kept_choice(None, "model", BF16) is None
    keep_choice(tmp_path, "model", BF16, "torch")
    assert kept_choice(tmp_path, "model", BF16) == "torch"
    assert kept_choice(tmp_path, "another", BF16) is None
    assert kept_choice(tmp_path, "model", FP32) is None
    (file,) = (tmp_path / "measured").iterdir()
    for damaged in ("", "[]", '{"encoder": 1}', '{"encoder": "other"}'):
        file.write_text(damaged)
        assert kept_choice(tmp_path, "model", BF16) is None


def test_auto_takes_what_was_kept(tmp_path: Path) -> None:
    for precision in (None, FP32):
        selection = on_processor(tmp_path, precision=precision)
        assert selection.preferred()[0] == OPENVINO
        keep_choice(tmp_path, "model", selection.processor_precision, "torch")
        choice, reason = selection.preferred()
        assert (choice, "measured" in reason) == (TORCH, True)


def test_what_was_measured_on_the_processor_decides_for_no_other_device(tmp_path: Path) -> None:
    keep_choice(tmp_path, "model", BF16, "torch")
    assert on_processor(tmp_path, device="GPU").preferred()[0] == OPENVINO


def test_pytorch_is_not_taken_for_what_it_cannot_compute(tmp_path: Path) -> None:
    keep_choice(tmp_path, "model", INT8, "torch")
    assert on_processor(tmp_path, precision=INT8).preferred()[0] == OPENVINO


def test_embeddings_are_compared_by_direction() -> None:
    assert cosine(figures(1, [2.0, 0.0]), figures(1, [1.0, 0.0])) == pytest.approx(1)
    assert cosine(figures(1, [1.0, 1.0]), figures(1, [1.0, 0.0])) == pytest.approx(np.sqrt(0.5))


def test_a_candidate_says_how_to_get_it() -> None:
    candidate = Candidate(OPENVINO, BF16, 2)
    assert candidate.name == "OpenVINO bf16, 2 streams"
    assert candidate.settings == (
        "CLIP_ENCODER=openvino CLIP_PRECISION=bf16 CLIP_OPENVINO_STREAMS=2"
    )


def test_the_best_batch_is_the_smallest_that_is_nearly_the_fastest() -> None:
    assert best_batch({1: 90.0, 8: 400.0, 32: 705.0, 64: 740.0, 128: 735.0}) == 32
    assert best_batch({1: 90.0, 8: 400.0, 32: 700.0, 64: 740.0, 128: 735.0}) == 64
    assert best_batch({1: 10.0, 2: 10.1}) == 1
    assert best_batch({8: 3.0}) == 8


def test_doctor_says_which_batch_is_best_for_a_card() -> None:
    measured = {8: 400.0, 32: 705.0, 64: 740.0}
    assert batches_on_card(measured, 32) == [
        "   8 at once: 400 images/s",
        "  32 at once: 700 images/s",
        "  64 at once: 740 images/s",
        "CLIP_MAX_BATCH_SIZE=32 is already the best for this card.",
    ]
    assert batches_on_card(measured, 8)[-1] == (
        "Set CLIP_MAX_BATCH_SIZE=32, the best for this card; it is 8 now."
    )
