"""Whether two losses differ: an interval over seeds and words, and the word for it.

S is the number of seeds, W of words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy import stats

from ...learners.randomness import stream

Verdict: TypeAlias = Literal["better", "worse", "tie"]

_RESAMPLES = 9_999
_LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A mean difference with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """``tie`` where the interval holds 0."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "tie"


def difference(ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """The mean of ``ours - theirs [S, W]``, returns of the same seeds and words, with a 95 % interval.

    The interval is the wider, at each end, of two. One is a bootstrap that draws seeds and words anew (the pigeonhole
    bootstrap, Owen 2007): another run or another word list would have given other figures. The other is Student's t
    over the seeds' means, since a bootstrap of five seeds alone is too narrow by a third.

    Raises:
        ValueError: the shapes differ, or there are fewer than two seeds.
    """
    if ours.shape != theirs.shape or ours.ndim != 2 or len(ours) < 2:
        raise ValueError(f"ours {list(ours.shape)}, theirs {list(theirs.shape)}: both must be [S, W], S >= 2")
    gaps = ours.astype(np.float64) - theirs
    low, high = _pigeonhole_interval(gaps)
    student_low, student_high = _student_interval(gaps.mean(axis=1))
    return Difference(float(gaps.mean()), min(low, student_low), max(high, student_high))


def _pigeonhole_interval(gaps: np.ndarray) -> tuple[float, float]:
    generator = stream(0, "bootstrap over seeds and words")
    seeds, words = (generator.multinomial(size, np.full(size, 1 / size), size=_RESAMPLES) / size for size in gaps.shape)
    means = np.einsum("rs,sw,rw->r", seeds, gaps, words, optimize=True)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _student_interval(means: np.ndarray) -> tuple[float, float]:
    if np.ptp(means) == 0:
        return float(means[0]), float(means[0])
    interval = stats.ttest_1samp(means, 0.0).confidence_interval(_LEVEL)
    return float(interval.low), float(interval.high)
