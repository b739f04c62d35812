"""Examples for the documentation: a request that works, and its response, for each path."""

from typing import Final

from litestar.openapi.spec import Example

from domain.limits import EMBEDDING_DIMENSION, IMAGE_FORMATS
from domain.prompts import TEMPLATES, CameraType
from domain.reidentification import SAME_ENTITY_THRESHOLD

_IMAGE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAADAAAAAwCAIAAADYYG7QAAAAdklEQVR42u3YwQ2AMAxDUU/CmZkYjOk6DBvQqKRR"
    "jL7kAd4tdnTdo1UECBAgQICyQOM83lMHmlK+sLRVs2DSVsoCSzWauMkTlKIJmlSpiZjcQOmaqQkQIECAAJmDOK6O"
    "fYgKa7o6Ou6ypsu147bnHQMIEKBfgx5xUl35fQOrtgAAAABJRU5ErkJggg=="
)
"""A PNG of 48 x 48 pixels: a red disc on a blue ground."""

_OTHER_IMAGE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAADAAAAAwAQMAAABtzGvEAAAABlBMVEXw8PAUPMiDxN79AAAAGElEQVR42mNgoA6w//"
    "//HwMThD2kKQoBAHRaA3TCD/bdAAAAAElFTkSuQmCC"
)
"""A PNG of 48 x 48 pixels: a blue square on a light ground."""

_BASELINE: Final = [1.0] + [0.0] * (EMBEDDING_DIMENSION - 1)
_LABELS: Final = ["a red circle", "a dog", "a delivery truck"]

REQUESTS: Final = {
    "/embed": Example(summary="A red disc", value={"image": _IMAGE}),
    "/anomaly-score": Example(
        summary="A red disc against an arbitrary baseline, with a threshold",
        value={"image": _IMAGE, "baseline_embedding": _BASELINE, "threshold": 0.3},
    ),
    "/classify": Example(
        summary="With an ensemble of prompts",
        value={
            "image": _IMAGE,
            "labels": _LABELS,
            "use_ensemble": True,
            "camera_type": CameraType.OUTDOOR.value,
        },
    ),
    "/similarity": Example(
        summary="One text", value={"image": _IMAGE, "text": "a red circle on a blue background"}
    ),
    "/batch-similarity": Example(
        summary="Several texts", value={"image": _IMAGE, "texts": _LABELS}
    ),
    "/embed/batch": Example(
        summary="A good image and a bad one", value={"images": [_IMAGE, "bm90IGFuIGltYWdl"]}
    ),
    "/embed/text": Example(summary="Several texts", value={"texts": _LABELS}),
    "/compare": Example(
        summary="A red disc and a blue square", value={"image_a": _IMAGE, "image_b": _OTHER_IMAGE}
    ),
    "/baseline": Example(
        summary="Two images and a frame that was embedded before",
        value={"images": [_IMAGE, _OTHER_IMAGE], "embeddings": [_BASELINE]},
    ),
    "/v1/embeddings": Example(
        summary="A text and an image",
        value={
            "model": "clip",
            "input": ["a red circle", f"data:image/png;base64,{_IMAGE}"],
            "encoding_format": "float",
        },
    ),
    "/embeddings": Example(
        summary="A text and an image, as Frigate sends them",
        value={
            "model": "clip",
            "content": [
                {"prompt_string": "a red circle"},
                {"prompt_string": "<__media__>\n", "multimodal_data": [_IMAGE]},
            ],
        },
    ),
    "/v2/embed": Example(
        summary="Two texts, in two types",
        value={
            "model": "clip",
            "input_type": "search_document",
            "texts": ["a red circle", "a dog"],
            "embedding_types": ["float", "ubinary"],
        },
    ),
    "/vectorize": Example(
        summary="A text and an image", value={"texts": ["a red circle"], "images": [_IMAGE]}
    ),
    "/clip/embed_image": Example(
        summary="A red disc", value={"image": {"type": "base64", "value": _IMAGE}}
    ),
    "/clip/embed_text": Example(summary="Two texts", value={"text": ["a red circle", "a dog"]}),
    "/clip/compare": Example(
        summary="A red disc and two texts",
        value={
            "subject": {"type": "base64", "value": _IMAGE},
            "prompt": ["a red circle", "a dog"],
        },
    ),
}
"""By path."""

_DATA_URI: Final = f"data:image/png;base64,{_IMAGE}"

MORE_REQUESTS: Final = {
    "/v1/embeddings": (
        Example(
            summary="An image in messages, as vLLM's clients send it",
            value={
                "model": "clip",
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": _DATA_URI}}],
                    }
                ],
            },
        ),
        Example(
            summary="Objects, as Jina's clients send them",
            value={"model": "clip", "input": [{"text": "a red circle"}, {"image": _IMAGE}]},
        ),
    ),
    "/v2/embed": (
        Example(
            summary="A text and an image",
            value={
                "model": "clip",
                "input_type": "search_document",
                "inputs": [
                    {"content": [{"type": "text", "text": "a red circle"}]},
                    {"content": [{"type": "image_url", "image_url": {"url": _DATA_URI}}]},
                ],
            },
        ),
    ),
}
"""Further ones, by path."""

_SCORES: Final = dict(zip(_LABELS, (0.94, 0.05, 0.01), strict=True))

_TEXT_AND_IMAGE: Final = Example(
    summary="A text and an image",
    value={
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _BASELINE} for index in range(2)
        ],
        "model": "clip-vit-large-patch14",
        "usage": {"prompt_tokens": 5, "total_tokens": 5, "num_images": 1},
    },
)

_ROBOFLOWS_FRAME: Final = {
    "time": 0.0123,
    "inference_id": "0c5bbd2d4a0f4a3f8b6f5a4d3c2b1a09",
    "frame_id": None,
    "parent_id": None,
}

RESPONSES: Final = {
    "/embed": Example(
        summary="A unit vector", value={"embedding": _BASELINE, "inference_time_ms": 11.8}
    ),
    "/anomaly-score": Example(
        summary="Close to the baseline",
        value={
            "anomaly_score": 0.08,
            "similarity_to_baseline": 0.92,
            "inference_time_ms": 11.9,
            "is_anomaly": False,
        },
    ),
    "/classify": Example(
        summary="With an ensemble of prompts",
        value={
            "scores": _SCORES,
            "top_label": _LABELS[0],
            "inference_time_ms": 24.1,
            "ensemble_metadata": {
                "templates_used": list(TEMPLATES[CameraType.OUTDOOR]),
                "num_templates": len(TEMPLATES[CameraType.OUTDOOR]),
                "camera_type": CameraType.OUTDOOR.value,
                "ensemble_method": "mean",
            },
        },
    ),
    "/similarity": Example(
        summary="One text", value={"similarity": 0.27, "inference_time_ms": 14.0}
    ),
    "/batch-similarity": Example(
        summary="Several texts",
        value={
            "similarities": dict(zip(_LABELS, (0.27, 0.2, 0.17), strict=True)),
            "inference_time_ms": 15.2,
        },
    ),
    "/embed/batch": Example(
        summary="A good image and a bad one",
        value={
            "results": [
                {"embedding": _BASELINE, "error": None},
                {
                    "embedding": None,
                    "error": {
                        "status": 422,
                        "code": "not_an_image",
                        "detail": "image is not an image file that can be read; "
                        f"{', '.join(IMAGE_FORMATS)} are allowed.",
                    },
                },
            ],
            "inference_time_ms": 12.3,
        },
    ),
    "/embed/text": Example(
        summary="Several texts",
        value={"embeddings": [_BASELINE] * len(_LABELS), "inference_time_ms": 8.4},
    ),
    "/compare": Example(
        summary="Not the same entity",
        value={
            "similarity": 0.62,
            "same_entity": False,
            "threshold": SAME_ENTITY_THRESHOLD,
            "inference_time_ms": 17.5,
        },
    ),
    "/baseline": Example(
        summary="From three frames, too few for a threshold",
        value={
            "baseline_embedding": _BASELINE,
            "count": 3,
            "spread": {
                "mean_similarity": 0.83,
                "std_similarity": 0.05,
                "min_similarity": 0.78,
                "max_similarity": 0.87,
            },
            "suggested_threshold": None,
            "inference_time_ms": 18.2,
        },
    ),
    "/v1/embeddings": _TEXT_AND_IMAGE,
    "/embeddings": _TEXT_AND_IMAGE,
    "/v2/embed": Example(
        summary="Two texts, in two types",
        value={
            "id": "0c5bbd2d4a0f4a3f8b6f5a4d3c2b1a09",
            "embeddings": {
                "float": [_BASELINE] * 2,
                "ubinary": [[128] + [0] * (EMBEDDING_DIMENSION // 8 - 1)] * 2,
            },
            "texts": ["a red circle", "a dog"],
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"input_tokens": 9, "images": 0},
                "warnings": [],
            },
            "response_type": "embeddings_by_type",
        },
    ),
    "/vectorize": Example(
        summary="A text and an image",
        value={"textVectors": [_BASELINE], "imageVectors": [_BASELINE]},
    ),
    "/clip/embed_image": Example(
        summary="One image", value={"embeddings": [_BASELINE], **_ROBOFLOWS_FRAME}
    ),
    "/clip/embed_text": Example(
        summary="Two texts", value={"embeddings": [_BASELINE] * 2, **_ROBOFLOWS_FRAME}
    ),
    "/clip/compare": Example(
        summary="Two texts", value={"similarity": [0.31, 0.17], **_ROBOFLOWS_FRAME}
    ),
}
