"""A Dockerfile as the stages and steps that it consists of."""

import io
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from dockerfile_parse import DockerfileParser

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = ROOT / "deploy" / "Dockerfile"

_VARIABLE: Final = re.compile(r"\$(?:{(\w+)}|(\w+))")


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction.

    Attributes:
        name: in capitals, such as ``RUN``.
        flags: its ``--name=value``, without the dashes.
        value: the rest, its lines joined.
    """

    name: str
    flags: dict[str, str]
    value: str

    def words(self) -> list[str]:
        """The value's words, of the JSON or the shell's form."""
        return decode_list(self.value) if self.value.startswith("[") else shlex.split(self.value)

    def assignments(self) -> dict[str, str]:
        """The value's ``NAME=value``, or for ``ARG`` a bare ``NAME``."""
        return {name: value for name, _, value in (word.partition("=") for word in self.words())}


@dataclass(slots=True)
class Stage:
    """From one ``FROM`` to the next.

    Attributes:
        base: an image, or the name of an earlier stage.
        name: its own.
        steps: what follows.
    """

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def all(self, name: str) -> list[Step]:
        """The instructions of that name, in their order."""
        return [step for step in self.steps if step.name == name]

    def last(self, name: str) -> Step:
        """The instruction of that name that counts."""
        return self.all(name)[-1]

    def environment(self) -> dict[str, str]:
        """What ``ENV`` sets, as it is written."""
        return {
            name: value for step in self.all("ENV") for name, value in step.assignments().items()
        }


def read_stages(path: Path = DOCKERFILE) -> dict[str, Stage]:
    """Every stage by its name, in their order; arguments before the first are filled in."""
    parser = DockerfileParser(fileobj=io.BytesIO(path.read_bytes()))
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for entry in parser.structure:
        if entry["instruction"] == "COMMENT":
            continue
        step = _step(entry)
        if step.name == "FROM":
            base, _, name = step.words()
            current = stages[name] = Stage(expand(base, arguments), name)
        elif current is None:
            arguments |= step.assignments()
        else:
            current.steps.append(step)
    return stages


def expand(text: str, variables: dict[str, str]) -> str:
    """Put the values of variables in the place of their names; unknown ones are empty."""
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], ""), text)


def decode_list(text: str) -> list[str]:
    """A list in JSON."""
    return msgspec.json.decode(text, type=list[str])


def _step(entry: dict[str, Any]) -> Step:
    flags, value = {}, str(entry["value"])
    while match := re.match(r"--([\w-]+)=(\S+)\s+", value):
        flags[match[1]] = match[2]
        value = value[match.end() :]
    return Step(str(entry["instruction"]), flags, value)
