"""What NVIDIA's cards could compute, and so what to expect of one."""

from typing import Final

OPERATIONS_PER_IMAGE: Final = 162.2e9
"""Of ViT-L/14's image tower: two for each product of a multiplication, as vendors count."""

PEAKS: Final = {
    "T4": 65e12,
    "RTX 3070": 40.6e12,
    "RTX 3090": 71e12,
    "RTX 4080": 97.5e12,
    "RTX 4090": 165.2e12,
    "RTX 5090": 209.5e12,
    "L4": 121e12,
    "A10": 125e12,
    "A100": 312e12,
    "L40S": 362e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
}
"""Operations a second of dense products in fp16, summed in fp32, by NVIDIA's data sheets.

Of gaming cards that is half of what they do where the sums are fp16 too.
"""

REACHED: Final = 0.75
"""Share of the peak that a good server reaches; timm and NVIDIA publish 0.78 to 0.82."""

SECONDS_IN_FRONT: Final = 0.003
"""Of one core for a request with a 640 x 480 JPEG, decoding included; measured on an EPYC."""


_VARIANTS: Final = ("D", "Ti", "SUPER", "Laptop", "Mobile")
"""Words after a card's name that make it another one."""


def peak_of(card: str) -> float | None:
    """Operations a second of a card by its full name; None where it is not known.

    Args:
        card: such as ``NVIDIA GeForce RTX 4090``.
    """
    words = f" {card.replace('-', ' ')} "
    if any(f" {variant} " in words for variant in _VARIANTS):
        return None
    known = [name for name in PEAKS if f" {name} " in words]
    return PEAKS[max(known, key=len)] if known else None


def table() -> str:
    """For each card: peak, images a second at the peak and as expected, and cores in front."""
    lines = [
        "| card | peak, TFLOP/s | images/s at the peak | at 75 % | cores in front |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, peak in PEAKS.items():
        most = peak / OPERATIONS_PER_IMAGE
        cores = most * REACHED * SECONDS_IN_FRONT
        lines.append(
            f"| {name} | {peak / 1e12:.4g} | {most:.0f} | {most * REACHED:.0f} | {cores:.1f} |"
        )
    return "\n".join(lines)
