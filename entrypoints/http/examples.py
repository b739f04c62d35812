"""Examples for the interactive page: every request here can be sent as it is."""

from typing import Final

from litestar.openapi.spec import Example

from domain.limits import EMBEDDING_DIMENSION
from domain.prompts import TEMPLATES, CameraType

_IMAGE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAADAAAAAwCAIAAADYYG7QAAAAdklEQVR42u3YwQ2AMAxDUU/CmZkYjOk6DBvQqKRR"
    "jL7kAd4tdnTdo1UECBAgQICyQOM83lMHmlK+sLRVs2DSVsoCSzWauMkTlKIJmlSpiZjcQOmaqQkQIECAAJmDOK6O"
    "fYgKa7o6Ou6ypsu147bnHQMIEKBfgx5xUl35fQOrtgAAAABJRU5ErkJggg=="
)
"""A PNG of 48 x 48 pixels: a red disc on a blue ground."""

_BASELINE: Final = [1.0] + [0.0] * (EMBEDDING_DIMENSION - 1)
_LABELS: Final = ["a red circle", "a dog", "a delivery truck"]

EMBED: Final = Example(summary="A red disc", value={"image": _IMAGE})
ANOMALY_SCORE: Final = Example(
    summary="A red disc against an arbitrary baseline",
    value={"image": _IMAGE, "baseline_embedding": _BASELINE},
)
CLASSIFY: Final = Example(
    summary="With an ensemble of prompts",
    value={
        "image": _IMAGE,
        "labels": _LABELS,
        "use_ensemble": True,
        "camera_type": CameraType.OUTDOOR.value,
    },
)
SIMILARITY: Final = Example(
    summary="One text", value={"image": _IMAGE, "text": "a red circle on a blue background"}
)
BATCH_SIMILARITY: Final = Example(
    summary="Several texts", value={"image": _IMAGE, "texts": _LABELS}
)

_SCORES: Final = dict(zip(_LABELS, (0.94, 0.05, 0.01), strict=True))

ANSWERS: Final = {
    "/embed": Example(
        summary="A unit vector", value={"embedding": _BASELINE, "inference_time_ms": 11.8}
    ),
    "/anomaly-score": Example(
        summary="Much as usual",
        value={"anomaly_score": 0.08, "similarity_to_baseline": 0.92, "inference_time_ms": 11.9},
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
}
