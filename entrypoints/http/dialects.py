"""Other protocols that the server speaks besides our own and OpenAI's."""

from enum import StrEnum
from typing import Final


class Dialect(StrEnum):
    """A protocol for which camera or search software already has a client."""

    LLAMA_CPP = "llamacpp"
    """llama.cpp's server, as Frigate's provider of that name uses it."""

    VLLM = "vllm"
    """``messages`` in place of ``input``, as in vLLM, SGLang and Frigate's ``vllm``."""

    JINA = "jina"
    """Objects in ``input``, as in Jina and SGLang."""

    COHERE = "cohere"
    """``/v2/embed``."""

    WEAVIATE = "weaviate"
    """The service behind Weaviate's module ``multi2vec-clip``."""

    ROBOFLOW = "roboflow"
    """``/clip/...`` of Roboflow's inference server."""


DIALECTS_ALLOWED: Final = f"all, none, or some of {', '.join(Dialect)}, separated by commas"


def dialects_of(text: str) -> frozenset[Dialect]:
    """The value of the setting ``CLIP_DIALECTS``.

    Raises:
        ValueError: a name is unknown; the message lists the known ones.
    """
    names = {name.strip().lower() for name in text.split(",")}
    if names == {"all"}:
        return frozenset(Dialect)
    if names == {"none"}:
        return frozenset()
    try:
        return frozenset(map(Dialect, names))
    except ValueError:
        raise ValueError(f"it must be {DIALECTS_ALLOWED}") from None
