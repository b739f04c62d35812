"""What the benchmark reports: names, reasons, and pages and a plot from kept results."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.models.precision import Precision
from adapters.system.hardware import Processor
from benchmarks import contestants, machine
from benchmarks.checkpoint import SIGLIP, VIT_B, VIT_L
from benchmarks.contestants import Contestant, Format, ours, reason_in
from benchmarks.machine import computes_in, kind_of
from benchmarks.own_cost import process_counts
from benchmarks.report import own_cost_table, ratios, report_of, write_reports
from benchmarks.results import BareEncoder, OwnCost, Results, Round, Served, kept_results
from benchmarks.running import NotMeasured, served, started

EPYC = Processor("AMD EPYC", ("avx2", "avx512f", "avx512_vnni", "avx512_bf16"))
OLD = Processor("AMD EPYC 7763 64-Core Processor", ("avx2",))
XEON = Processor("Intel(R) Xeon(R) CPU @ 2.20GHz", ("avx2", "avx512f", "amx_tile", "amx_bf16"))


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (EPYC, "amd-epyc-avx512-bf16"),
        (OLD, "amd-epyc-7763-avx2"),
        (XEON, "intel-xeon-amx"),
        (Processor("aarch64", ("asimd", "asimddp")), "aarch64-neon-dot"),
        (Processor("unknown", ()), "unknown"),
    ],
)
def test_a_kind_of_processor_has_its_instructions_in_its_name(found: Processor, kind: str) -> None:
    assert kind_of(found) == kind


def test_a_precision_is_named_with_the_instructions_that_multiply_in_it() -> None:
    assert computes_in("bf16", EPYC) == "bf16, AVX512-BF16"
    assert computes_in("fp32", EPYC) == "fp32, AVX-512"
    assert computes_in("fp32", OLD) == "fp32, AVX2"
    assert computes_in("int8", OLD) == "int8"


def test_the_default_is_called_by_what_it_took(tmp_path: Path) -> None:
    asked = ours("ours, default", tmp_path, CLIP_ENCODER="openvino")
    low = served(asked, {"backend": "openvino", "precision": "bf16"}, 1, EPYC)
    assert (low.name, low.computes) == (
        "ours, OpenVINO bf16 (default)",
        "OpenVINO bf16, AVX512-BF16",
    )
    full = served(asked, {"backend": "openvino", "precision": "fp32"}, 1, OLD)
    assert full.name == "ours, OpenVINO fp32 (default)"
    asked_for = replace(asked, name="ours, fp32")
    again = served(asked_for, {"backend": "openvino", "precision": "fp32"}, 1, OLD)
    assert again.is_the_same_as(full)
    assert not again.is_the_same_as(low)
    other_model = served(
        replace(asked_for, model=SIGLIP), {"backend": "openvino", "precision": "fp32"}, 1, OLD
    )
    assert not other_model.is_the_same_as(full)


def test_who_does_not_tell_its_precision_is_described_by_how_it_is_started() -> None:
    peer = Contestant("vllm", ("vllm",), computes=("torch", Precision.BF16))
    assert served(peer, {}, 1, EPYC).computes == "torch bf16, AVX512-BF16"
    assert served(replace(peer, instructions="AVX2"), {}, 1, EPYC).computes == "torch bf16, AVX2"
    with pytest.raises(NotMeasured, match="what it computes in"):
        served(Contestant("silent", ("silent",)), {"status": "healthy"}, 1, EPYC)


def test_what_the_processor_cannot_do_and_what_is_not_installed_has_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "multiplies_int8", lambda: False)
    monkeypatch.setattr(machine, "multiplies_bfloat16", lambda: False)
    monkeypatch.setattr(contestants, "multiplies_bfloat16", lambda: False)
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "install.log").write_text(
        "Collecting vllm\nERROR: No matching distribution found for torch==2.13.0+cpu\nbye\n"
    )
    (tmp_path / "faster-clip").mkdir()
    (tmp_path / "faster-clip" / ".installed").touch()
    asked: list[str] = []

    def at(model: str) -> Path:
        asked.append(model)
        return tmp_path / model.replace("/", "")

    found = {one.key: one for one in contestants.contestants(at, tmp_path, tmp_path)}
    reasons = {key: one.missing for key, one in found.items() if one.missing}
    assert reasons["ours, int8, ViT-L/14"] == (
        "this processor has no instructions for products in int8"
    )
    assert reasons["vllm, ViT-L/14"] == (
        "not installed: ERROR: No matching distribution found for torch==2.13.0+cpu"
    )
    assert reasons["infinity-emb, ViT-L/14"] == "not installed"
    assert "sentencepiece" in reasons["infinity-emb, SigLIP 2 base"]
    assert "faster-clip, ViT-B/32" not in reasons
    assert "ours, default, ViT-L/14" not in reasons
    assert found["vllm, ViT-L/14"].computes == ("torch", Precision.FP32)
    assert set(asked) == {VIT_L, SIGLIP, VIT_B}


def test_only_the_models_of_those_that_are_chosen_are_made(tmp_path: Path) -> None:
    asked: list[str] = []

    def at(model: str) -> Path:
        asked.append(model)
        return tmp_path

    found = contestants.contestants(at, tmp_path, tmp_path, only=("FastAPI + transformers, ViT-B",))
    assert [one.key for one in found] == ["FastAPI + transformers, ViT-B/32"]
    assert asked == [VIT_B]
    assert found[0].environment["CLIP_MODEL_PATH"] == str(tmp_path)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", "it said nothing"),
        ("starting\nno CUDA\n", "no CUDA"),
        (
            "INFO ok\n(worker) ERROR x.py:3 OSError: /home/me/lib/c.so: no such file\n"
            "RuntimeError: initialization failed\n",
            "OSError: c.so: no such file",
        ),
        ("WARN this can cause `OSError: too many files`\nValueError: dtype\n", "ValueError: dtype"),
    ],
)
def test_a_log_is_told_by_its_first_error_without_paths(log: str, reason: str) -> None:
    assert reason_in(log) == reason


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("/nowhere/vllm", "serve"), "not started: No such file or directory"),
        (
            (sys.executable, "-c", "raise SystemExit('no CUDA')"),
            "it ended at its start: no CUDA",
        ),
    ],
)
def test_a_peer_that_does_not_start_is_told_and_not_raised(
    command: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(NotMeasured) as failure, started(Contestant("peer", command), tmp_path):
        pass
    assert str(failure.value) == reason
    absent = Contestant("peer", command, missing="not installed")
    with pytest.raises(NotMeasured, match="not installed"), started(absent, tmp_path):
        pass


@pytest.mark.parametrize(
    ("format", "response"),
    [
        (Format.CONTRACT, {"embedding": [1, 2]}),
        (Format.INPUT, {"data": [{"embedding": [1, 2]}]}),
        (Format.MESSAGES, {"data": [{"embedding": [1, 2]}]}),
    ],
)
def test_an_embedding_is_read_from_each_format(format: Format, response: dict[str, object]) -> None:
    assert Contestant("peer", (), format=format).embedding(response) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])]
)
def test_http_processes_go_from_one_to_the_cores(cores: int, counts: list[int]) -> None:
    assert process_counts(cores) == counts


def of_rate(rate: int, failures: int = 0) -> Round:
    return Round([1 / rate] * rate if rate else [], [0.005], failures, 1.0, 0.5, 300 * 2**20)


def results(kind: str, default: str, rate: int) -> Results:
    """Of a run with this project's server, the reference, and one that answered nothing."""
    load = "embed, 8 at once"
    return Results(
        kind,
        f"{kind}, 2 cores",
        ["avx2"],
        "2026-11-27",
        rounds=3,
        seconds=4.0,
        peaks={"fp32": 1e12},
        servers=[
            Served(
                f"ours, OpenVINO {default} (default)", VIT_L, f"OpenVINO {default}, AVX2",
                ours=True, loaded_memory=200 * 2**20, cosine=0.9999,
                loads={load: [of_rate(rate), of_rate(rate + 1), of_rate(rate + 9)]},
            ),
            Served(
                "FastAPI + transformers", VIT_L, "torch fp32, AVX2", ours=False,
                loaded_memory=400 * 2**20, loads={load: [of_rate(2)] * 3},
            ),
            Served(
                "infinity-emb", VIT_L, "torch fp32, AVX2", ours=False, loaded_memory=2**20,
                loads={load: [of_rate(0, failures=3)]},
            ),
        ],
        bare=[BareEncoder("OpenVINO", "fp32", "fp32, AVX2", {"1": [1.0, 3.0, 2.0]})],
        own_costs=[OwnCost("640 x 480", 2, "", [500.0], [3.0], [4.0], [0.75], 250 * 2**20)],
        not_measured={"vllm, ViT-L/14": "not installed"},
    )  # fmt: skip


def test_a_report_says_what_served_and_what_was_not_measured() -> None:
    page = report_of(results("amd-epyc-avx2", "fp32", 5))
    for told in (
        "# Measured on amd-epyc-avx2, 2 cores",
        "Instruction sets: avx2.",
        "| ViT-L/14 | ours, OpenVINO fp32 (default) | OpenVINO fp32, AVX2 | 0.9999 | 200 | 300 |",
        "| ViT-L/14 | ours, OpenVINO fp32 (default) | 6.00 (5.00–14.00) | 3.0 |",
        "| ViT-L/14 | infinity-emb | 0.00 (0.00–0.00) | 0.0 | – | – | 5.0 | – | 3 |",
        "| 640 x 480 | 2 | 500 | 4.0 | 3.00 | 0.75 | 4.0 | 250 |",
        "| OpenVINO | fp32, AVX2 | 1 | 2.00 | 0.32 |",
        "- vllm, ViT-L/14: not installed",
    ):
        assert told in page


def test_a_run_adds_its_kind_to_those_that_are_kept(tmp_path: Path) -> None:
    document = tmp_path / "earlier" / "intel-xeon-amx" / "report.md"
    document.parent.mkdir(parents=True)
    document.write_text("as it was")
    assert "No results are kept yet" in write_reports(tmp_path).read_text()
    assert not (tmp_path / "report.png").exists()

    first, second = results("amd-epyc-avx2", "fp32", 5), results("intel-xeon-amx", "bf16", 9)
    first.keep(tmp_path)
    write_reports(tmp_path)
    alone = (tmp_path / "report.png").read_bytes()
    second.keep(tmp_path)
    page = write_reports(tmp_path).read_text()

    assert kept_results(tmp_path) == [first, second]
    assert (tmp_path / "report.png").read_bytes() != alone
    assert "[amd-epyc-avx2](amd-epyc-avx2/report.md)" in page
    assert "| ours, OpenVINO bf16 (default) | 10.00 | 5.0 |" in page
    assert "(earlier/intel-xeon-amx/report.md)" in page
    assert document.read_text() == "as it was"
    for kind in ("amd-epyc-avx2", "intel-xeon-amx"):
        assert (tmp_path / kind / "report.md").read_text().startswith(f"# Measured on {kind}")


def test_without_the_reference_there_are_no_ratios() -> None:
    alone = results("amd-epyc-avx2", "fp32", 5)
    del alone.servers[1]
    assert ratios(alone) == {}
    assert "| ViT-L/14 | ours, OpenVINO fp32 (default) | 6.00 (5.00–14.00) |  |" in report_of(alone)


def test_own_costs_are_sorted_by_the_picture() -> None:
    costs = [
        OwnCost(picture, count, "", [1.0], [1.0], [1.0], [1.0])
        for count in (1, 2)
        for picture in ("224 x 224", "1280 x 720")
    ]
    table = own_cost_table(costs)
    assert [line.split(" | ")[:2] for line in table.splitlines()[2:]] == [
        ["| 224 x 224", "1"],
        ["| 224 x 224", "2"],
        ["| 1280 x 720", "1"],
        ["| 1280 x 720", "2"],
    ]
