"""The audit's judgement, and the bill of materials of this very environment."""

import json
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from checks.supply_chain import audit, sbom


def package(name: str, *holes: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": list(holes)}


HOLE = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": ["1.1"]}


def test_a_known_hole_stops_the_build() -> None:
    verdict = audit.judge({"dependencies": [package("a"), package("b", HOLE)]}, {})
    assert not verdict.passes
    assert verdict.lines == (
        "audit: b 1.0 has PYSEC-2026-1, fixed in 1.1",
        "audit: 2 packages do not pass",
    )


def test_one_that_does_no_harm_here_is_named_with_the_reason() -> None:
    report = {"dependencies": [package("b", HOLE)]}
    verdict = audit.judge(report, {"CVE-2026-1": "the function is never called"})
    assert verdict.passes
    assert "accepted: the function is never called" in verdict.lines[0]
    assert not audit.judge({"dependencies": [package("b")]}, {"CVE-2026-1": "not found"}).passes


def test_a_service_that_knows_nothing_is_not_believed() -> None:
    """So pip-audit reports an index without advisories: as if nothing had been found."""
    skipped = {"dependencies": [{"name": "a", "skip_reason": "Dependency not found"}]}
    assert not audit.knows_advisories(skipped)
    assert not audit.knows_advisories(None)
    assert audit.knows_advisories({"dependencies": [package("a")]})


def test_what_is_accepted_has_a_reason() -> None:
    assert all(len(reason) > 20 for reason in audit.accepted_advisories().values())


def test_the_bill_of_materials_is_valid_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "sbom.cdx.json"
    sbom.main(["--extras", "cpu", "--output", str(path)])
    text = path.read_text()
    assert sbom.problem_of(text) is None
    assert sbom.problem_of(text.replace('"library"', '"book"')) is not None
    assert "file:" not in text
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "clip-embedding-server"
    parts = {canonicalize_name(part["name"]): part for part in bill["components"]}
    # What is needed directly, and what only that needs; nothing of the tests or of PyTorch.
    assert {"litestar", "uvicorn", "openvino", "onnx", "pillow", "h11", "uvloop"} <= set(parts)
    assert not {"pytest", "torch", "ray", "pip-audit"} & set(parts)
    pinned = {
        canonicalize_name(Requirement(line).name): line.split("==")[1]
        for line in Path("constraints.txt").read_text().splitlines()
    }
    for name, part in parts.items():
        assert part["version"] == pinned[name]
        assert part["purl"].startswith("pkg:pypi/")
