"""Environment variables as declarations: a struct's fields define their names and allowed values.

msgspec, which the HTTP schemas use too, converts and checks the values. This module adds words for
true and false, error messages, secrets, and a check for misspelt names.
"""

import difflib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

_TRUE: Final = ("true", "yes", "on", "1", "enabled")
_FALSE: Final = ("false", "no", "off", "0", "disabled")

_NEAR: Final = 0.8
"""Names at least this similar (by `difflib`) count as misspellings."""


class InvalidSetting(Exception):
    """A variable has a value that is not allowed.

    The message is one line that names the variable, its value and what is allowed. It never
    contains a secret value.
    """


class Secret:
    """A text that never appears in logs or error messages."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Secret()"

    def reveal(self) -> str:
        """The text itself."""
        return self._text


@dataclass(frozen=True, slots=True)
class Variable:
    """The variable of a field: ``port: Annotated[int, Variable("PORT", ...)] = 8093``.

    Attributes:
        name: of the variable, such as ``PORT``.
        group: its heading in the documentation.
        meaning: one sentence or two.
        option: the equivalent option of ``clip-server serve``, such as ``--port``.
        none: value that means None, such as ``auto``; None if there is no such value.
        default: the default's text in the documentation; None shows the field's default.
        secret: whether the value must never be shown.
        unit: of a number, such as ``seconds``.
        parse: converts the text to the field's value, instead of msgspec; raises ValueError.
        allowed: completes "it must be ..."; None derives it from the field's type.
    """

    name: str
    group: str
    meaning: str
    option: str | None = None
    none: str | None = None
    default: str | None = None
    secret: bool = False
    unit: str = ""
    parse: Callable[[str], Any] | None = None
    allowed: str | None = None


@dataclass(frozen=True, slots=True)
class Declaration:
    """A field and its variable.

    Attributes:
        field: the field's name.
        about: its variable's declaration.
        annotation: the field's type, with its limits.
        kind: the type as described by `msgspec.inspect`, without None.
        default: the field's default.
    """

    field: str
    about: Variable
    annotation: Any
    kind: msgspec.inspect.Type
    default: Any

    @property
    def allowed(self) -> str:
        """The allowed values; completes "it must be ..."."""
        if self.about.allowed is not None:
            return self.about.allowed
        none, unit = self.about.none, self.about.unit
        match self.kind:
            case msgspec.inspect.BoolType():
                text = "true or false (or yes, on, 1, enabled; no, off, 0, disabled)"
            case msgspec.inspect.IntType() as number:
                text = f"a whole number {_range(number)}"
            case msgspec.inspect.FloatType() as number:
                text = f"a number{f' of {unit}' if unit else ''} {_range(number)}"
            case msgspec.inspect.EnumType(cls):
                words = [none] if none else []
                text = f"one of {', '.join([*words, *(str(member.value) for member in cls)])}"
            case msgspec.inspect.CustomType(cls) if cls is Path:
                text = f"a path, or {none}" if none else "a path"
            case _:
                text = "text"
        return text

    @property
    def default_text(self) -> str:
        """The default as a user would write it; empty if there is none."""
        if self.about.default is not None:
            return self.about.default
        if self.default is None or self.default == ():
            return self.about.none or ""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return format(self.default, "g") if isinstance(self.default, float) else str(self.default)

    def parse(self, text: str) -> Any:
        """The field's value.

        Raises:
            ValueError: the text is not allowed; its message completes "is not allowed: ...".
        """
        about = self.about
        if about.none is not None and text.lower() == about.none:
            return None
        if about.parse is not None:
            return about.parse(text)
        if isinstance(self.kind, msgspec.inspect.BoolType):
            text = _boolean(text)
        elif isinstance(self.kind, msgspec.inspect.EnumType):
            text = text.lower()
        try:
            value = msgspec.convert(text, self.annotation, strict=False, dec_hook=_path)
        except msgspec.ValidationError:
            value = None
        if value is None:  # msgspec reads "null" as None; here only the declared word means None
            raise ValueError(f"it must be {self.allowed}")
        # "0.0" means the same as "0".
        return None if about.none == "0" and value == 0 else value


def declarations(settings: type[msgspec.Struct]) -> Iterator[Declaration]:
    """The fields of a struct that have a variable, in their order."""
    annotations = typing.get_type_hints(settings, include_extras=True)
    described = msgspec.inspect.type_info(settings)
    assert isinstance(described, msgspec.inspect.StructType)
    for field in described.fields:
        annotation = annotations[field.name]
        for about in getattr(annotation, "__metadata__", ()):
            if isinstance(about, Variable):
                kind = _without_none(field.type)
                yield Declaration(field.name, about, annotation, kind, field.default)


def parse_all(
    known: Iterable[Declaration],
    environment: Mapping[str, str],
    options: Mapping[str, str],
) -> dict[str, Any]:
    """The values of all fields whose variable is set and not empty.

    Args:
        known: the declarations.
        environment: the variables.
        options: values from the command line that override variables, by variable name.

    Raises:
        InvalidSetting: one of them is not allowed.
    """
    values = {}
    for declaration in known:
        about = declaration.about
        name, text = about.name, environment.get(about.name, "")
        if about.name in options:
            name, text = about.option or name, options[about.name]
        if not about.secret:
            text = text.strip()
        if not text:
            continue
        try:
            values[declaration.field] = declaration.parse(text)
        except ValueError as reason:
            shown = name if about.secret else f"{name}={text!r}"
            raise InvalidSetting(f"{shown} is not allowed: {reason}.") from None
    return values


def unknown_variables(environment: Iterable[str], known: Iterable[str], prefix: str) -> list[str]:
    """A warning for each unknown variable with the prefix, with the most similar known name.

    Args:
        environment: names of the variables that are set.
        known: names of those that are read.
        prefix: of the project's own variables, such as ``CLIP_``.
    """
    names = set(known)
    warnings = []
    for name in sorted(set(environment) - names):
        if name.startswith(prefix):
            near = _nearest(name, names, prefix)
            hint = f"; did you mean {near}?" if near else "."
            warnings.append(f"{name} is set, but the server has no such setting{hint}")
    return warnings


def _nearest(name: str, known: set[str], prefix: str) -> str | None:
    bare = name.removeprefix(prefix)
    if bare in known:  # CLIP_PORT for PORT
        return bare
    # Compared without the prefix, which would make all names similar.
    ratios = {
        candidate: difflib.SequenceMatcher(None, bare, candidate.removeprefix(prefix)).ratio()
        for candidate in known
    }
    words = set(bare.split("_"))
    near = [
        candidate
        for candidate, ratio in ratios.items()
        if ratio >= _NEAR or words <= set(candidate.removeprefix(prefix).split("_"))
    ]
    return max(sorted(near), key=ratios.__getitem__, default=None)


def _range(number: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    low, high = number.ge, number.le
    if low is None:
        return "of any size" if high is None else f"of at most {high:.0f}"
    return f"of at least {low:.0f}" if high is None else f"from {low:.0f} to {high:.0f}"


def _without_none(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    match kind:
        case msgspec.inspect.Metadata(type=inner):
            return _without_none(inner)
        case msgspec.inspect.UnionType(types):
            return next(
                _without_none(each)
                for each in types
                if not isinstance(each, msgspec.inspect.NoneType)
            )
        case _:
            return kind


def _boolean(text: str) -> str:
    if text.lower() in _TRUE:
        return "true"
    return "false" if text.lower() in _FALSE else text


def _path(kind: type, text: str) -> Path:
    """Msgspec's hook for types that it does not know."""
    if kind is not Path:
        raise NotImplementedError(f"no variable can be converted to {kind}")
    return Path(text).expanduser()
