"""Bodies in every form that an endpoint accepts, and the errors for all others."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.app import composed, serving
from tests.support.photos import as_base64, as_file, photo, plain
from tests.support.responses import Client, problem, succeeded

CASES = Path(__file__).parents[1] / "support" / "cases"
CAT = as_file(photo("cat"))
IMAGE = as_base64(photo("cat"))
DOG = as_file(photo("coffee"))
BASELINE = [1.0] + [0.0] * 767
JPEG = {"content-type": "image/jpeg"}

FIELDS: dict[str, dict[str, Any]] = {
    "/embed": {},
    "/anomaly-score": {"baseline_embedding": BASELINE, "threshold": 0.25},
    "/classify": {"labels": ["a dog", "a [cat], perhaps"], "camera_type": "indoor"},
    "/similarity": {"text": "a cat & a dog: 50 % each + one"},
    "/batch-similarity": {"texts": ["a dog", "a cat"]},
}


@pytest.fixture
def client(shared_client: Client) -> Client:
    return shared_client


def without_time(response: Any) -> dict[str, Any]:
    body = succeeded(response)
    del body["inference_time_ms"]
    return body


def as_texts(fields: dict[str, Any], *, arrays: bool) -> dict[str, Any]:
    """Fields as a form or a query has them: lists of texts as arrays or value by value."""
    return {
        name: json.dumps(value)
        if isinstance(value, list) and (arrays or isinstance(value[0], float))
        else value
        for name, value in fields.items()
    }


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("arrays", [True, False])
async def test_json_form_and_raw_image_are_the_same(
    client: Client, path: str, arrays: bool
) -> None:
    fields = FIELDS[path]
    expected = without_time(await client.post(path, json={"image": IMAGE, **fields}))
    texts = as_texts(fields, arrays=arrays)
    form = await client.post(path, files={"image": ("x.jpg", CAT)}, data=texts)
    assert without_time(form) == expected
    raw = await client.post(path, content=CAT, headers=JPEG, params=texts)
    assert without_time(raw) == expected


async def test_compare_and_baseline_take_forms_and_raw_images(client: Client) -> None:
    expected = without_time(
        await client.post("/compare", json={"image_a": IMAGE, "embedding_b": BASELINE})
    )
    form = await client.post(
        "/compare", files={"image_a": CAT}, data={"embedding_b": json.dumps(BASELINE)}
    )
    assert without_time(form) == expected
    query = {"embedding_b": json.dumps(BASELINE)}
    raw = await client.post("/compare", content=CAT, headers=JPEG, params=query)
    assert without_time(raw) == expected
    both = await client.post("/compare", files={"image_a": CAT, "image_b": CAT})
    assert succeeded(both)["similarity"] == pytest.approx(1.0)

    expected = without_time(
        await client.post("/baseline", json={"images": [IMAGE, as_base64(photo("coffee"))]})
    )
    form = await client.post("/baseline", files=[("images", CAT), ("images", DOG)])
    assert without_time(form) == expected
    raw = await client.post("/baseline", content=CAT, headers=JPEG)
    assert succeeded(raw)["count"] == 1


@pytest.mark.parametrize(
    ("path", "texts", "code", "detail"),
    [
        ("/classify", {}, "missing_field", "`labels`"),
        ("/classify", {"lables": ["a"]}, "missing_field", "did you mean labels?"),
        ("/classify", {"labels": ["a", " "]}, "blank_label", "labels[1]"),
        ("/similarity", {"text": ["a", "b"]}, "invalid_field", "2 fields named 'text'"),
        ("/anomaly-score", {"baseline_embedding": "[1, 2]"}, "baseline_wrong_length", "768"),
        ("/anomaly-score", {"baseline_embedding": "x"}, "invalid_field", "`float`"),
        ("/anomaly-score", {"baseline_embedding": "[" * 5000}, "invalid_field", "`float`"),
    ],
)
async def test_fields_that_are_wrong_in_a_form_or_query(
    client: Client, path: str, texts: dict[str, Any], code: str, detail: str
) -> None:
    for response in (
        await client.post(path, files={"image": CAT}, data=texts),
        await client.post(path, content=CAT, headers=JPEG, params=texts),
    ):
        body = problem(response, 422)
        assert body["code"] == code
        assert detail in body["detail"]


FORM = b"--x\r\nContent-Disposition: form-data; name=%s%s\r\n\r\n%s\r\n"
END = b"--x--\r\n"


@pytest.mark.parametrize(
    "name",
    [
        "照片.jpg".encode("gbk"),
        "\u6a5f.jpg".encode("big5"),
        "fa\xe7ade.jpg".encode("latin-1"),
        b"a\\b.jpg",
        b"\x80\xff\xfe",
        b"",
    ],
)
async def test_a_files_name_decides_nothing(client: Client, name: bytes) -> None:
    expected = without_time(await client.post("/embed", json={"image": IMAGE}))
    body = FORM % (b'"image"', b'; filename="' + name + b'"', CAT) + END
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert without_time(await client.post("/embed", content=body, headers=headers)) == expected


async def test_unused_parts_of_a_form_decide_nothing(client: Client) -> None:
    expected = without_time(await client.post("/embed", json={"image": IMAGE}))
    unused = b"".join(
        FORM % part
        for part in (
            (b'"note"', b"", b"\xff\xfe\x00"),
            (b'"\xc5\xe4"', b'; filename="\xc5"', b"x"),
            (b'"labels"', b"", b"\x80"),
        )
    )
    body = unused + FORM % (b'"image"', b"", CAT) + END
    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = await client.post("/embed", content=body, headers=headers)
    assert without_time(response) == expected
    assert response.headers["X-Unknown-Field"] == "note"


@pytest.mark.parametrize(
    "body",
    [
        b"--x\r\n\r\nno header\r\n--x--\r\n",
        b"--x\r\nno colon\r\n\r\n\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: attachment; name="image"\r\n\r\na\r\n--x--\r\n',
        b"--x\r\nContent-Length: many\r\n\r\na\r\n--x--\r\n",
    ],
)
async def test_nothing_of_the_parser_reaches_a_client(client: Client, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    told = problem(await client.post("/embed", content=body, headers=headers), 400)
    assert told["code"] == "invalid_form"
    assert "(" not in told["detail"]
    assert "codec" not in told["detail"]


async def sent_as_it_is(client: Client, name: str) -> Any:
    """A raw request's method, target, headers and body, sent in process."""
    head, _, body = (CASES / name).read_bytes().partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    method, target, _ = line.decode().split(" ")
    pairs = dict(header.split(b": ", 1) for header in headers)
    request = client.build_request(method, target, content=body, headers=pairs)
    return await client.send(request)


async def test_the_failing_requests_that_were_reported(client: Client) -> None:
    assert len(succeeded(await sent_as_it_is(client, "f03.raw"))["embedding"]) == 768
    assert len(succeeded(await sent_as_it_is(client, "h19.raw"))["embedding"]) == 768
    told = problem(await sent_as_it_is(client, "h21.raw"), 415)
    assert told["code"] == "unsupported_content_encoding"
    assert "'gzip'" in told["detail"]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
async def test_an_image_without_a_content_type_is_told_by_its_first_bytes(
    client: Client, file_format: str
) -> None:
    image = plain(200, 30, 30)
    expected = without_time(await client.post("/embed", json={"image": as_base64(image, "PNG")}))
    request = client.build_request("POST", "/embed", content=as_file(image, file_format))
    assert "content-type" not in request.headers
    assert without_time(await client.send(request)).keys() == expected.keys()


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 415), ("br", 415), ("identity", 200)])
async def test_compressed_bodies_are_refused_by_name(
    client: Client, encoding: str, status: int
) -> None:
    body = json.dumps({"image": IMAGE}).encode()
    response = await client.post(
        "/embed",
        content=gzip.compress(body) if status == 415 else body,
        headers={"content-type": "application/json", "content-encoding": encoding},
    )
    assert response.status_code == status
    if status == 415:
        assert encoding in response.json()["detail"]
        assert response.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        ({"image": IMAGE}, None),
        ({"image": IMAGE, "camera": 1}, "camera"),
        ({"imag": 1, "image": IMAGE}, "imag; did you mean image?"),
        ({"image": IMAGE[:40] + "\n" + IMAGE[40:], "x" * 500: []}, "x" * 60),
        ({"image": IMAGE, "a\r\nb: c\u00e9`": 1}, "a\\r\\nb: c\\xe9`"),
        ({"image": IMAGE, "": 1}, ""),
    ],
)
async def test_an_unknown_field_is_reported_and_decides_nothing(
    client: Client, body: dict[str, Any], reported: str | None
) -> None:
    response = await client.post("/embed", json=body)
    assert len(succeeded(response)["embedding"]) == 768
    assert response.headers.get("X-Unknown-Field") == reported


async def test_a_missing_field_is_told_with_the_unknown_one(client: Client) -> None:
    told = problem(await client.post("/classify", json={"image": IMAGE, "lables": ["a"]}), 422)
    assert told["code"] == "missing_field"
    assert "`labels`" in told["detail"]
    assert "lables; did you mean labels?" in told["detail"]


@pytest.mark.parametrize(
    ("default", "fields", "ensemble"),
    [
        (False, {}, None),
        (False, {"camera_type": "outdoor"}, "outdoor"),
        (False, {"use_ensemble": True}, "standard"),
        (False, {"use_ensemble": False, "camera_type": "outdoor"}, None),
        (True, {}, "standard"),
        (True, {"camera_type": "doorbell"}, "doorbell"),
        (True, {"use_ensemble": False}, None),
    ],
)
async def test_when_there_is_an_ensemble(
    default: bool, fields: dict[str, Any], ensemble: str | None
) -> None:
    variables = {"CLIP_ENCODER": "fake", "CLIP_USE_ENSEMBLE": str(default)}
    async with serving(composed(**variables)) as client:
        body = {"image": IMAGE, "labels": ["a", "b"], **fields}
        metadata = succeeded(await client.post("/classify", json=body))["ensemble_metadata"]
    assert (metadata and metadata["camera_type"]) == ensemble


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("https://cameras.example/porch.jpg", "address_input"),
        (" HTTP://10.0.0.7/snapshot?x=1\n", "address_input"),
        (as_base64(photo("cat")), "image_as_text"),
        (as_base64(plain(1, 2, 3), "PNG"), "image_as_text"),
        (as_base64(plain(1, 2, 3), "GIF"), "image_as_text"),
        (as_base64(plain(1, 2, 3), "BMP"), "image_as_text"),
        (as_base64(plain(1, 2, 3), "WEBP"), "image_as_text"),
        ("see https://cameras.example/porch.jpg", None),
        ("/9j/ is how a JPEG begins in base64", None),
        ("Quick brown foxes jump over lazy dogs", None),
        ("UklGR", None),
    ],
)
async def test_texts_that_were_meant_as_images_are_refused(text: str, code: str | None) -> None:
    for checks in (True, False):
        variables = {"CLIP_ENCODER": "fake", "CLIP_OPENAI_TEXT_CHECKS": str(checks)}
        async with serving(composed(**variables)) as client:
            response = await client.post("/v1/embeddings", json={"input": ["a cat", text]})
            meant = await client.post("/v1/embeddings", json={"input": text, "modality": "text"})
        assert meant.status_code == 200
        if code is None or not checks:
            assert response.status_code == 200, response.text
        else:
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (400, code)
            assert "input[1]" in error["message"]
            assert "data:image/" in error["message"]
