"""The precision of the towers."""

from enum import StrEnum


class Precision(StrEnum):
    """Floating-point type of both towers; int8 quantises the image tower only.

    Normalisations and the embeddings themselves are always float32.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
