"""Prompt ensembles: each label in five phrasings that suit camera footage."""

from enum import StrEnum

from domain.errors import UnknownCameraType


class CameraType(StrEnum):
    """The kind of camera; it selects the templates."""

    STANDARD = "standard"
    NIGHT_VISION = "night_vision"
    OUTDOOR = "outdoor"
    INDOOR = "indoor"
    DOORBELL = "doorbell"

    @classmethod
    def named(cls, name: str) -> "CameraType":
        """The camera type called ``name``.

        Raises:
            UnknownCameraType: there is no camera type of that name.
        """
        try:
            return cls(name)
        except ValueError:
            allowed = ", ".join(cls)
            raise UnknownCameraType(
                f"camera_type {name[:100]!r} is not known; it must be one of {allowed}."
            ) from None


TEMPLATES: dict[CameraType, tuple[str, ...]] = {
    CameraType.STANDARD: (
        "a photo of {}",
        "a security camera photo of {}",
        "a surveillance camera image of {}",
        "a low resolution photo of {}",
        "{} seen by a security camera",
    ),
    CameraType.NIGHT_VISION: (
        "a night vision image of {}",
        "an infrared security camera image of {}",
        "a black and white photo of {} at night",
        "a dark surveillance camera image of {}",
        "{} in the dark seen by a night vision camera",
    ),
    CameraType.OUTDOOR: (
        "a photo of {} outside",
        "an outdoor security camera image of {}",
        "a surveillance camera image of {} on the street",
        "a photo of {} from a distance",
        "{} seen by an outdoor security camera",
    ),
    CameraType.INDOOR: (
        "a photo of {} inside",
        "an indoor security camera image of {}",
        "a surveillance camera image of {} in a room",
        "a photo of {} in a house",
        "{} seen by an indoor security camera",
    ),
    CameraType.DOORBELL: (
        "a photo of {} at the front door",
        "a doorbell camera image of {}",
        "a wide angle doorbell camera photo of {}",
        "a photo of {} on the porch",
        "{} at the door seen by a doorbell camera",
    ),
}
"""Five templates per camera type; ``{}`` stands for the label."""


def prompts_for(label: str, camera_type: CameraType) -> tuple[str, ...]:
    """The label in each template of the camera type."""
    # str.replace and not str.format: a label may itself hold braces.
    return tuple(template.replace("{}", label) for template in TEMPLATES[camera_type])
