"""What the search for the costliest request goes by: costs are measured, and limits hold."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="limits of memory and the processes' files are Linux's"
)

MEASURE = """
import os, signal
import numpy as np
from checks.hostile.measuring import measured
from domain.errors import InvalidImage

MIB = 2**20

def refuse():
    raise InvalidImage("image is damaged.", code="damaged_image")

def loop():
    while True: pass

def cost(work):
    return measured(work, cpu_s=0.3, memory_bytes=200 * MIB)

done = cost(lambda: np.ones(64 * MIB, dtype=np.uint8))
assert done.outcome == "done" and 60 < done.mebibytes < 80, done
assert cost(refuse).outcome == "damaged_image"
assert cost(lambda: np.ones(300 * MIB, dtype=np.uint8)).outcome == "memory"
looped = cost(loop)
assert looped.outcome == "time" and 0.2 < looped.seconds < 1, looped
assert cost(lambda: os.kill(os.getpid(), signal.SIGSEGV)).outcome == "ended with -11"
"""


def test_costs_are_measured_and_limits_hold() -> None:
    subprocess.run([sys.executable, "-c", MEASURE], check=True, timeout=120)
