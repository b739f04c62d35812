"""``messages`` on ``/v1/embeddings``, as vLLM, SGLang and Frigate's provider ``vllm`` send them.

A conversation is one input: the user's turn. A system turn is meant for another kind of model and
is ignored, as is the empty assistant turn that chat templates require.
"""

from collections.abc import Sequence

from domain.errors import InvalidInputs
from entrypoints.http.routes.dialects.one_input import of_parts
from entrypoints.http.schemas.dialects import Message, Part


def input_of(messages: Sequence[Message]) -> bytes | str:
    """The image or the text of a conversation.

    Raises:
        InvalidInputs: there is not exactly one user's turn, another turn holds something, or the
            turn is not one text or one image.
        NotBase64: the image is not base64.
    """
    users: list[tuple[int, Message]] = []
    for place, message in enumerate(messages):
        match message.role:
            case "user":
                users.append((place, message))
            case "system" | "developer":
                pass
            case "assistant" if not _holds_something(message):
                pass
            case _:
                raise InvalidInputs(
                    f"messages[{place}] has the role {message.role[:100]!r} and a content; only "
                    "what the role 'user' says is embedded.",
                    code="unknown_turn",
                )
    if len(users) != 1:
        raise InvalidInputs(
            f"messages holds {len(users)} turns of the role 'user'; it must hold one, which is the "
            "one input of the request.",
            code="not_one_turn",
        )
    place, message = users[0]
    return of_parts(_parts(message), name=f"messages[{place}]")


def _parts(message: Message) -> list[Part]:
    content = message.content
    return content if isinstance(content, list) else [Part(type="text", text=content or "")]


def _holds_something(message: Message) -> bool:
    return any(part.image_url is not None or (part.text or "").strip() for part in _parts(message))
