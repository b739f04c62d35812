"""Comparing what encoders return, before the domain normalises it."""

import numpy as np


def unit(rows: np.ndarray) -> np.ndarray:
    """``[n, dimension]`` with each row's length made one."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def smallest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of each row with the same row of the other array."""
    return float((unit(a) * unit(b)).sum(axis=1).min())
