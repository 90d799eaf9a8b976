"""Handwritten digits: the test part of UCI's optdigits, 1,797 images of 8 x 8 pixels. Source and licence: NOTICE."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

DARKEST = 16
"""Pixels are whole numbers from 0 to this."""
CLASSES = 10


@lru_cache(maxsize=1)
def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """All of them: images ``[1797, 64] float32`` in 0..1 and labels ``[1797] int64``. Read only: callers share them."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        images = file["images"].astype(np.float32) / np.float32(DARKEST)
        labels = file["labels"].astype(np.int64)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


__all__ = ["CLASSES", "DARKEST", "load_digits"]
