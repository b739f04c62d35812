"""Objects in ``input`` on ``/v1/embeddings``, as Jina and SGLang have them."""

from entrypoints.http.routes.dialects.one_input import one_input
from entrypoints.http.schemas.dialects import InputObject


def input_of(item: InputObject, *, name: str) -> bytes | str:
    """The text or the image of an object. Raises as `one_input`."""
    texts = [] if item.text is None else [item.text]
    images = [image for image in (item.image, item.bytes, item.url) if image is not None]
    return one_input(texts, images, name=name)
