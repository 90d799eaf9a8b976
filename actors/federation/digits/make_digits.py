"""Make the shipped digits: `python make_digits.py optdigits.tes`, which writes digits.npz beside this script.

The input is the test part of UCI's "Optical Recognition of Handwritten Digits": 1,797 lines of 64 pixels and a label,
separated by commas. UCI has it as `optdigits.tes`, scikit-learn's wheel as `sklearn/datasets/data/digits.csv.gz`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

PIXELS = 64
DARKEST = 16
CLASSES = 10


def read_digits(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images ``[N, 64] uint8`` in 0..16 and labels ``[N] uint8``, in the file's order.

    Raises:
        ValueError: the file holds something else.
    """
    table = np.loadtxt(path, delimiter=",")
    if table.ndim != 2 or table.shape[1] != PIXELS + 1:
        raise ValueError(
            f"{path} holds a table of shape {list(table.shape)}: expected {PIXELS} pixels and a label a line"
        )
    images, labels = table[:, :PIXELS], table[:, PIXELS]
    for name, numbers, most in (("pixels", images, DARKEST), ("labels", labels, CLASSES - 1)):
        if not (numbers == np.clip(np.round(numbers), 0, most)).all():
            raise ValueError(f"{path} holds {name} that are no whole numbers from 0 to {most}")
    return images.astype(np.uint8), labels.astype(np.uint8)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} optdigits.tes")
    try:
        read_images, read_labels = read_digits(Path(sys.argv[1]))
    except (OSError, ValueError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    np.savez_compressed(Path(__file__).with_name("digits.npz"), images=read_images, labels=read_labels)
