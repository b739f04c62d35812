"""Rules for the labels and texts that a client sends."""

from collections.abc import Sequence

from domain.errors import InvalidLabels, InvalidTexts
from domain.limits import MAX_LABELS


def check_labels(labels: Sequence[str]) -> None:
    """1 to `MAX_LABELS` labels, none blank, none twice.

    Raises:
        InvalidLabels: says which rule and which label.
    """
    _check_list(labels, field="labels", limit=MAX_LABELS, error=InvalidLabels)


def check_texts(texts: Sequence[str], *, limit: int) -> None:
    """1 to ``limit`` texts, none blank, none twice.

    Raises:
        InvalidTexts: says which rule and which text.
    """
    _check_list(texts, field="texts", limit=limit, error=InvalidTexts)


def check_each_text(texts: Sequence[str], *, limit: int) -> None:
    """1 to ``limit`` texts, none blank; the same one may come twice.

    Raises:
        InvalidTexts: says which rule and which text.
    """
    _check_list(texts, field="texts", limit=limit, error=InvalidTexts, repeats=True)


def check_text(text: str) -> None:
    """One text that is not blank.

    Raises:
        InvalidTexts: it is empty or only white space.
    """
    if not text.strip():
        raise InvalidTexts("text is blank; it must hold at least one character.", code="blank_text")


def _check_list(
    items: Sequence[str],
    *,
    field: str,
    limit: int,
    error: type[InvalidLabels | InvalidTexts],
    repeats: bool = False,
) -> None:
    one = field.removesuffix("s")
    if not items:
        raise error(f"{field} is empty; it must hold 1 to {limit} entries.", code=f"no_{field}")
    if len(items) > limit:
        raise error(
            f"{field} holds {len(items)} entries; at most {limit} are allowed.",
            code=f"too_many_{field}",
        )
    first_place: dict[str, int] = {}
    for place, item in enumerate(items):
        # Compared without surrounding white space. The tokenizer drops it, so two entries that
        # differ only there would have one embedding under two names.
        bare = item.strip()
        if not bare:
            raise error(
                f"{field}[{place}] is blank; each entry must hold at least one character.",
                code=f"blank_{one}",
            )
        if bare in first_place and not repeats:
            raise error(
                f"{field}[{place}] repeats {field}[{first_place[bare]}] ({bare[:100]!r}); "
                "each entry may appear once.",
                code=f"repeated_{one}",
            )
        first_place[bare] = place
