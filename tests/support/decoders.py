"""Stand-ins for the picture decoder that do what a hostile file could make it do."""

import os
import signal
import time

import numpy as np
from numpy.typing import NDArray

from application.ports import ImageInput
from domain.errors import ImageTooLarge, InvalidImage

NAME = "tests.support.decoders:obey"


def levels(number: int, size: int) -> NDArray[np.uint8]:
    """A picture that is recognised by its number, below 2**24: all of it has that colour."""
    colour = [number >> 16, number >> 8 & 255, number & 255]
    return np.full((size, size, 3), colour, dtype=np.uint8)


def obey(data: bytes, *, image_input: ImageInput, max_pixels: int) -> NDArray[np.uint8]:
    """Do what the file says; ``pixels N`` is what a good one says, and yields `levels`.

    What crashes once does so until the file that it names is there.
    """
    size = image_input.size
    verb, _, argument = data.decode().partition(" ")
    if verb == "pixels":  # whatever follows the number is only there to be long
        return levels(int(argument.split()[0]), size)
    if verb == "slow":
        time.sleep(0.002)
        return levels(int(argument), size)
    if verb == "refuse":
        raise InvalidImage(f"image is {argument}.", code="damaged_image")
    if verb == "too_large":
        raise ImageTooLarge("image is large.")
    _do_harm(verb, argument)
    return np.zeros((size, size, 3), dtype=np.uint8)


def _do_harm(verb: str, argument: str) -> None:
    if verb == "allocate":
        np.ones(int(argument), dtype=np.uint8)
    elif verb == "loop":
        np.linalg.matrix_power(np.eye(2000), 2**60)  # one call of C code, for hours
    elif verb == "sleep":
        time.sleep(3600)
    elif verb == "signal":
        os.kill(os.getpid(), int(argument))
    elif verb == "crash_once":
        if not os.path.exists(argument):
            with open(argument, "w") as file:
                file.write("crashed")
            os.kill(os.getpid(), signal.SIGSEGV)
    elif verb == "reply":  # in the worker's name, which says nothing itself
        for number in map(int, os.listdir("/proc/self/fd")):
            if os.path.realpath(f"/proc/self/fd/{number}").rpartition("/")[2].startswith("socket:"):
                os.write(number, argument.encode())
        time.sleep(3600)
    elif verb == "fail":
        raise ZeroDivisionError("in the decoder")
    elif verb == "environment":
        raise InvalidImage(repr(sorted(os.environ)), code="environment")
