"""The 50 camera concepts that the demo model is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CameraConcept:
    """One class of the zero-shot evaluation.

    Attributes:
        label: the name used as class label in the evaluation.
        emoji: the character whose artwork shows the concept; its Twemoji drawing is held out.
        synonyms: other captions of the same thing, used in training only.
        kin: characters whose artwork shows the same thing differently (a side view, a breed); their
            drawings in the training families are also trained as this concept.
    """

    label: str
    emoji: str
    synonyms: tuple[str, ...] = ()
    kin: tuple[str, ...] = ()


CAMERA_CONCEPTS: tuple[CameraConcept, ...] = (
    CameraConcept(
        "person walking",
        "🚶",
        ("pedestrian", "someone walking", "walking person", "man walking", "woman walking"),
    ),
    CameraConcept(
        "person running",
        "🏃",
        ("runner", "someone running", "jogger", "running person", "man running"),
    ),
    CameraConcept(
        "police officer",
        "👮",
        ("policeman", "cop", "policewoman", "police", "officer in uniform"),
    ),
    CameraConcept(
        "construction worker",
        "👷",
        ("worker with a hard hat", "worker in a helmet", "builder", "workman"),
    ),
    CameraConcept("baby", "👶", ("infant", "small child", "toddler")),
    CameraConcept(
        "person riding a bicycle",
        "🚴",
        ("cyclist", "person biking", "bicyclist", "someone on a bike", "man riding a bike"),
        ("🚵",),
    ),
    CameraConcept("bicycle", "🚲", ("bike", "parked bicycle", "push bike")),
    CameraConcept("car", "🚗", ("automobile", "parked car", "vehicle", "sedan"), ("🚙", "🚘")),
    CameraConcept("taxi", "🚕", ("cab", "yellow cab", "taxi cab"), ("🚖",)),
    CameraConcept(
        "delivery truck",
        "🚚",
        ("van", "parcel van", "courier truck", "delivery van", "truck", "lorry"),
        ("🚛",),
    ),
    CameraConcept("tractor", "🚜", ("farm tractor", "farm vehicle")),
    CameraConcept("bus", "🚌", ("city bus", "coach", "school bus"), ("🚍", "🚎")),
    CameraConcept("police car", "🚓", ("patrol car", "police vehicle"), ("🚔",)),
    CameraConcept("ambulance", "🚑", ("emergency vehicle", "ambulance van")),
    CameraConcept("fire engine", "🚒", ("fire truck", "red fire truck")),
    CameraConcept("motorcycle", "🏍", ("motorbike", "parked motorcycle", "racing motorcycle")),
    CameraConcept("motor scooter", "🛵", ("scooter", "moped", "vespa")),
    CameraConcept("airplane", "✈", ("plane", "aeroplane", "aircraft", "jet"), ("🛩", "🛫", "🛬")),
    CameraConcept("helicopter", "🚁", ("chopper", "hovering helicopter")),
    CameraConcept("sailboat", "⛵", ("boat", "sailing boat", "yacht")),
    CameraConcept("train", "🚆", ("railway train", "locomotive"), ("🚂", "🚄", "🚅", "🚇", "🚊")),
    CameraConcept("dog", "🐕", ("puppy", "pet dog", "hound"), ("🐶", "🐩", "🦮")),
    CameraConcept("cat", "🐈", ("kitten", "pet cat", "house cat"), ("🐱",)),
    CameraConcept("bird", "🐦", ("small bird", "songbird"), ("🐤",)),
    CameraConcept("horse", "🐎", ("pony", "racehorse"), ("🐴",)),
    CameraConcept("cow", "🐄", ("cattle", "dairy cow"), ("🐮",)),
    CameraConcept("sheep", "🐑", ("ewe", "lamb")),
    CameraConcept("rabbit", "🐇", ("bunny", "hare"), ("🐰",)),
    CameraConcept("rat", "🐀", ("rodent", "vermin")),
    CameraConcept("snake", "🐍", ("serpent", "viper")),
    CameraConcept("spider", "🕷", ("spider on the lens", "insect on the camera")),
    CameraConcept("bear", "🐻", ("brown bear", "wild bear")),
    CameraConcept("fire", "🔥", ("flames", "flame", "burning fire", "blaze")),
    CameraConcept("package", "📦", ("parcel", "cardboard box", "box", "delivered parcel")),
    CameraConcept("house", "🏠", ("home", "family house", "house building"), ("🏡",)),
    CameraConcept("door", "🚪", ("front door", "closed door", "doorway")),
    CameraConcept("tree", "🌳", ("deciduous tree", "big tree", "leafy tree"), ("🌲",)),
    CameraConcept("kitchen knife", "🔪", ("knife", "blade", "weapon")),
    CameraConcept("hammer", "🔨", ("tool", "claw hammer")),
    CameraConcept("key", "🔑", ("door key", "house key"), ("🗝",)),
    CameraConcept("camera", "📷", ("photo camera", "digital camera"), ("📸",)),
    CameraConcept("backpack", "🎒", ("rucksack", "school bag", "bag")),
    CameraConcept("umbrella", "☂", ("open umbrella", "umbrella in the rain"), ("☔",)),
    CameraConcept("traffic light", "🚦", ("traffic signal", "stop light"), ("🚥",)),
    CameraConcept("snowman", "⛄", ("snow figure", "man made of snow"), ("☃",)),
    CameraConcept("lightning", "⚡", ("lightning bolt", "high voltage", "thunderbolt")),
    CameraConcept("light bulb", "💡", ("lamp", "electric light")),
    CameraConcept("mobile phone", "📱", ("phone", "smartphone", "cell phone")),
    CameraConcept("wastebasket", "🗑", ("trash can", "garbage can", "waste bin", "bin")),
    CameraConcept("padlock", "🔒", ("lock", "locked padlock"), ("🔓", "🔐")),
)
"""Fifty concepts, hence a chance of 2 % (top-1) and 10 % (top-5)."""
