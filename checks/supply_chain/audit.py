"""``make audit``: are there known vulnerabilities in what constraints.txt pins?

pip-audit gets the advisories from PyPI, or else from OSV. If neither can be reached, the build goes
on and a line says that no audit was done; pip-audit itself would report that it found nothing.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
SERVICES: Final = ("pypi", "osv")
PROBE: Final = "litestar"
"""A package that every advisory service knows."""

Report = Mapping[str, Any]
"""What pip-audit writes as JSON."""


@dataclass(frozen=True)
class Verdict:
    """What a report means.

    Attributes:
        passes: whether the build may go on.
        lines: what to print.
    """

    passes: bool
    lines: tuple[str, ...]


def judge(report: Report, accepted: Mapping[str, str]) -> Verdict:
    """Say what a report means.

    Args:
        report: of all that is pinned.
        accepted: advisories that do not stop the build, each with the reason.
    """
    lines, found, asked = [], set(), 0
    passes = True
    for package in report["dependencies"]:
        if "skip_reason" in package:
            lines.append(f"audit: not known to the service: {package['name']}")
            continue
        asked += 1
        for hole in package["vulns"]:
            names = {hole["id"], *hole.get("aliases", ())}
            found |= names
            known = next((accepted[name] for name in sorted(names) if name in accepted), None)
            what = f"{package['name']} {package['version']} has {hole['id']}"
            if known is not None:
                lines.append(f"audit: {what}, accepted: {known}")
                continue
            passes = False
            fixed = ", ".join(hole.get("fix_versions", ())) or "no version yet"
            lines.append(f"audit: {what}, fixed in {fixed}")
    for name in sorted(set(accepted) - found):
        passes = False
        lines.append(f"audit: {name} is accepted in pyproject.toml but no longer found; remove it")
    lines.append(f"audit: {asked} packages {'pass' if passes else 'do not pass'}")
    return Verdict(passes, tuple(lines))


def knows_advisories(report: Report | None) -> bool:
    """Whether the service that a report comes from knows any package; False if out of reach."""
    return report is not None and any("vulns" in package for package in report["dependencies"])


def ask(requirements: Path, service: str) -> Report | None:
    """pip-audit's report; None where it could not make one."""
    run = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps",
         "--disable-pip", "--format", "json", "--progress-spinner", "off",
         "--vulnerability-service", service],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    try:
        report: Report = json.loads(run.stdout)
    except ValueError:
        return None
    return report


def accepted_advisories() -> dict[str, str]:
    """``[tool.audit.accepted]`` of pyproject.toml: advisory → why it does no harm here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    accepted: dict[str, str] = project["tool"]["audit"]["accepted"]
    return accepted


def main() -> int:
    """Audit; returns the exit status."""
    pinned = ROOT / "constraints.txt"
    (probe,) = (line for line in pinned.read_text().splitlines() if line.startswith(f"{PROBE}=="))
    with tempfile.TemporaryDirectory() as scratch:
        one = Path(scratch) / "one.txt"
        one.write_text(f"{probe}\n")
        service = next((name for name in SERVICES if knows_advisories(ask(one, name))), None)
    report = None if service is None else ask(pinned, service)
    if report is None:
        print(f"audit: NOT DONE: {' and '.join(SERVICES)} cannot be reached from here")  # noqa: T201
        return 0
    verdict = judge(report, accepted_advisories())
    print("\n".join(verdict.lines))  # noqa: T201
    return 0 if verdict.passes else 1


if __name__ == "__main__":
    sys.exit(main())
