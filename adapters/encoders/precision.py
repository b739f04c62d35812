"""What the towers compute in."""

from enum import StrEnum


class Precision(StrEnum):
    """Floating-point type of both towers; int8 quantises the image tower only."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
