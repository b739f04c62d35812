"""The error table, once: what is wrong with a request, and the response that it must get.

Run in process by `tests/integration/test_error_table.py` and over a socket by
`tests/e2e/test_error_table.py`, against a server with the fake encoder and no settings but that.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any, Final

from domain.limits import MAX_BODY_BYTES, MAX_IMAGE_BYTES
from tests.support.photos import as_base64, as_file, photo, plain

IMAGE: Final = as_base64(photo("cat"))
CAT: Final = as_file(photo("cat"))

GOOD: Final[dict[str, dict[str, Any]]] = {
    "/embed": {"image": IMAGE},
    "/anomaly-score": {"image": IMAGE, "baseline_embedding": [1.0] + [0.0] * 767},
    "/classify": {"image": IMAGE, "labels": ["a dog", "a cat"]},
    "/similarity": {"image": IMAGE, "text": "a cat"},
    "/batch-similarity": {"image": IMAGE, "texts": ["a dog", "a cat"]},
    "/embed/batch": {"images": [IMAGE]},
    "/embed/text": {"texts": ["a cat"]},
    "/compare": {"image_a": IMAGE, "image_b": IMAGE},
    "/baseline": {"images": [IMAGE]},
    "/v1/embeddings": {"input": ["a cat"]},
}
"""A request for each endpoint that gets 200."""


@dataclass(frozen=True)
class Wrong:
    """A request that is refused.

    Attributes:
        path: where it goes.
        body: as it is sent.
        status: of the response; where errors have OpenAI's shape, 400 for 422.
        code: of the error.
        details: parts of what people are told.
        content_type: of the body.
        method: of HTTP.
    """

    path: str
    body: bytes
    status: int
    code: str
    details: tuple[str, ...] = ()
    content_type: str = "application/json"
    method: str = "POST"

    def __str__(self) -> str:
        return f"{self.path} {self.code} {'; '.join(self.details)}"

    @property
    def headers(self) -> dict[str, str]:
        """Of the request."""
        return {"content-type": self.content_type}

    def check(self, response: Any) -> None:
        """Assert that it is the right response, in the right shape."""
        openai = self.path.startswith("/v1/")
        status = 400 if openai and self.status == 422 else self.status
        assert response.status_code == status, response.text
        body = response.json()
        if openai:
            assert response.headers["content-type"] == "application/json"
            assert set(body) == {"error"}
            error = body["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["type"] == "invalid_request_error"
            told = error["message"]
        else:
            assert response.headers["content-type"] == "application/problem+json"
            error, told = body, body["detail"]
            assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
            assert (body["status"], body["type"]) == (status, "about:blank")
            assert body["title"]
            assert body["request_id"] == response.headers["X-Request-ID"]
        assert error["code"] == self.code
        for detail in self.details:
            assert detail in told


def _field(path: str, code: str, *details: str, status: int = 422, **fields: Any) -> Wrong:
    return Wrong(path, json.dumps({**GOOD[path], **fields}).encode(), status, code, details)


def _without(path: str, field: str) -> Wrong:
    body = {name: value for name, value in GOOD[path].items() if name != field}
    return Wrong(path, json.dumps(body).encode(), 422, "missing_field", (f"`{field}`",))


_TOO_LARGE: Final = base64.b64encode(CAT.ljust(MAX_IMAGE_BYTES + 1, b"\0")).decode()
_NUMBER: Final = json.dumps({**GOOD["/anomaly-score"], "baseline_embedding": [0.5] * 768})

ERRORS: Final = (
    # Not JSON, of whatever endpoint
    *(
        Wrong(path, body, 400, "invalid_json")
        for path in ("/embed", "/classify", "/compare", "/v1/embeddings")
        for body in (b"", b"{", b"{'image': 1}", b'{"x": NaN}', b"\xff\xfe", b"[" * 99999)
    ),
    Wrong("/embed", b'{"image": "\xff"}', 400, "invalid_json"),
    # Declared as something else
    *(
        Wrong(path, CAT, 415, "unsupported_media_type", (kind, "application/json"), kind)
        for path, kind in (
            ("/embed", "text/plain"),
            ("/embed", "image/tiff"),
            ("/classify", "application/x-www-form-urlencoded"),
            ("/embed/batch", "image/jpeg"),
            ("/embed/text", "multipart/form-data"),
            ("/v1/embeddings", "image/jpeg"),
        )
    ),
    # Too large
    *(
        Wrong(path, b" " * (MAX_BODY_BYTES + 1), 413, "body_too_large", (str(MAX_BODY_BYTES),))
        for path in ("/embed", "/v1/embeddings")
    ),
    _field(
        "/embed", "image_too_large", str(MAX_IMAGE_BYTES + 1), str(MAX_IMAGE_BYTES),
        status=413, image=_TOO_LARGE,
    ),
    _field(
        "/v1/embeddings", "image_too_large", str(MAX_IMAGE_BYTES),
        status=413, input=f"data:image/jpeg;base64,{_TOO_LARGE}",
    ),
    # Missing
    *(_without(path, "image") for path in GOOD if "image" in GOOD[path]),
    _without("/classify", "labels"),
    _without("/similarity", "text"),
    _without("/embed/batch", "images"),
    _without("/embed/text", "texts"),
    _without("/v1/embeddings", "input"),
    Wrong("/embed", b"[1]", 422, "invalid_field", ("`object`",)),
    # Of the wrong type
    _field("/embed", "invalid_field", "`$.image`", image=5),
    _field("/embed", "invalid_field", "base64 text", image=None),
    _field("/similarity", "invalid_field", "`$.text`", text=5),
    _field("/classify", "invalid_field", "`array`", labels="a"),
    _field("/classify", "invalid_field", "`bool`", use_ensemble="yes"),
    _field("/anomaly-score", "invalid_field", "`float`", baseline_embedding=["1"] * 768),
    _field("/anomaly-score", "invalid_field", "`float`", baseline_embedding=[None] * 768),
    _field("/embed/batch", "invalid_field", "images[0]", images=[5]),
    _field("/embed/text", "invalid_field", texts=[1]),
    _field("/v1/embeddings", "invalid_field", "`$.input`", input=5),
    # Not an image
    _field("/embed", "invalid_base64", "standard base64", image="no base64!"),
    _field("/embed", "invalid_base64", "standard base64", image=IMAGE[:-1]),
    _field("/embed", "not_an_image", "empty", image=""),
    _field("/embed", "not_an_image", "JPEG, PNG, GIF, BMP, WEBP, MPO", image="aGVsbG8="),
    _field("/embed", "unsupported_format", "TIFF", image=as_base64(plain(1, 2, 3), "TIFF")),
    _field("/v1/embeddings", "not_an_image", "input[0]", input="data:image/png;base64,aGVsbG8="),
    Wrong("/embed", b"", 422, "not_an_image", ("empty",), "image/jpeg"),
    Wrong("/classify", b"hello", 422, "missing_field", ("`labels`",), "image/jpeg"),
    Wrong("/embed", b"nothing", 400, "invalid_form", (), "multipart/form-data; boundary=x"),
    Wrong("/embed", CAT, 400, "invalid_form", ("boundary",), "multipart/form-data"),
    # Against a rule
    _field("/classify", "no_labels", "1 to 100", labels=[]),
    _field("/classify", "too_many_labels", "101", "100", labels=[str(n) for n in range(101)]),
    _field("/classify", "blank_label", "labels[1]", labels=["a", " "]),
    _field("/classify", "repeated_label", "labels[1]", "'a'", labels=["a", "a"]),
    _field("/classify", "unknown_camera_type", "'space'", "standard", camera_type="space"),
    _field("/classify", "unknown_score", "'cosine'", "softmax, sigmoid", score="cosine"),
    _field("/classify", "no_logit_bias", "no logit bias", "SigLIP", score="sigmoid"),
    _field("/similarity", "blank_text", "blank", text=" "),
    _field("/batch-similarity", "no_texts", "1 to 100", texts=[]),
    _field("/batch-similarity", "too_many_texts", "101", texts=[str(n) for n in range(101)]),
    _field("/batch-similarity", "blank_text", "texts[0]", texts=[" "]),
    _field("/batch-similarity", "repeated_text", "texts[1]", texts=["a", "a"]),
    _field("/anomaly-score", "baseline_wrong_length", "767", "768", baseline_embedding=[0.0] * 767),
    Wrong(
        "/anomaly-score", _NUMBER.replace("[0.5", "[1e999", 1).encode(), 422, "invalid_field",
        ("out of range", "baseline_embedding[0]"),
    ),
    _field("/embed/batch", "no_images", "1 to 64", images=[]),
    _field("/embed/batch", "too_many_images", "65", images=[IMAGE] * 65),
    _field("/embed/text", "no_texts", texts=[]),
    _field("/embed/text", "blank_text", "texts[1]", texts=["a", " "]),
    _field("/compare", "image_or_embedding", "image_a", embedding_a=[1.0] * 768),
    _field("/baseline", "no_frames", "1 to 1000", images=[]),
    _field("/v1/embeddings", "no_inputs", "1 to 2048", input=[]),
    _field("/v1/embeddings", "blank_input", "input[1]", input=["a", " "]),
    _field("/v1/embeddings", "token_input", "input[0]", input=[[1, 2]]),
    _field("/v1/embeddings", "model_not_found", "'ada'", status=404, model="ada"),
    _field("/v1/embeddings", "unsupported_dimensions", "768", dimensions=64),
    # Nowhere
    Wrong("/nowhere", b"{}", 404, "not_found", ("'/nowhere'",)),
    Wrong("/v1/nowhere", b"{}", 404, "not_found", ("'/v1/nowhere'",)),
    Wrong("/embed", b"", 405, "method_not_allowed", ("PUT", "'/embed'"), method="PUT"),
)  # fmt: skip
