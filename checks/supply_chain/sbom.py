"""``make sbom``: what ``make serve`` installs, as a CycloneDX bill of materials.

The environment may hold more (what tests need), so of all that cyclonedx-py finds there only what
the server needs is kept, by the same rules that pip installs it by.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SERVER: Final = "clip-embedding-server"
SPECIFICATION: Final = SchemaVersion.V1_6

Bill = dict[str, Any]
"""A CycloneDX document as JSON."""


def needed(extras: Iterable[str]) -> set[str]:
    """The names of all packages that the server with these extras needs, its own included."""
    seen: set[tuple[str, str]] = set()
    waiting = [(SERVER, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            raise SystemExit(f"sbom: {name} is not installed; make serve installs it") from None
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                found = canonicalize_name(requirement.name)
                waiting += [(found, wanted) for wanted in ("", *requirement.extras)]
    return {name for name, _ in seen}


def of_environment() -> Bill:
    """Everything in this environment."""
    run = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", "environment", sys.executable, "--output-format",
         "JSON", "--spec-version", SPECIFICATION.to_version(), "--output-reproducible",
         "--no-validate"],
        stdout=subprocess.PIPE,
        check=True,
    )  # fmt: skip
    bill: Bill = json.loads(run.stdout)
    return bill


def only(bill: Bill, names: set[str]) -> Bill:
    """The same with these packages alone; the server is what it is about.

    Where the packages lie on this machine is left out.
    """
    kept = [part for part in bill["components"] if canonicalize_name(part["name"]) in names]
    for part in kept:
        part["externalReferences"] = [
            place
            for place in part.get("externalReferences", ())
            if not place["url"].startswith("file:")
        ]
    references = {part["bom-ref"] for part in kept}
    (server,) = (part for part in kept if part["name"] == SERVER)
    return {
        **bill,
        "metadata": {**bill.get("metadata", {}), "component": {**server, "type": "application"}},
        "components": [part for part in kept if part is not server],
        "dependencies": [
            {**edge, "dependsOn": [on for on in edge.get("dependsOn", ()) if on in references]}
            for edge in bill["dependencies"]
            if edge["ref"] in references
        ],
    }


def problem_of(text: str) -> str | None:
    """What CycloneDX's own schema has against a document; None if nothing."""
    found = JsonStrictValidator(SPECIFICATION).validate_str(text)
    return None if found is None else str(found)


def main(arguments: list[str] | None = None) -> None:
    """Write the bill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", default="cpu", help="of make serve, separated by commas")
    parser.add_argument("--output", type=Path, default=Path("sbom.cdx.json"))
    options = parser.parse_args(arguments)
    names = needed(filter(None, options.extras.split(",")))
    text = json.dumps(only(of_environment(), names), indent=2) + "\n"
    if (problem := problem_of(text)) is not None:
        raise SystemExit(f"sbom: not valid CycloneDX: {problem}")
    options.output.write_text(text, encoding="utf-8")
    print(f"sbom: {len(names)} packages in {options.output}")  # noqa: T201


if __name__ == "__main__":
    main()
