"""What models and updates are made of, and what makes them fit to be averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np

AverageKind: TypeAlias = Literal["mean", "statistic", "integer"]
"""How a tensor averages over learners: ``mean`` is trained (a parameter: changes are added up), ``statistic`` is
measured (a floating buffer such as a running mean: values are averaged, and no server optimiser touches them),
``integer`` counts."""

Tensors: TypeAlias = Mapping[str, np.ndarray]
"""Arrays by name: a model, or an update. Whoever is given them does not write into them."""

_DTYPES: dict[AverageKind, tuple[str, str]] = {
    "mean": ("f", "a floating dtype"),
    "statistic": ("f", "a floating dtype"),
    "integer": ("iub", "an integer dtype or bool: a count has no fractions"),
}


def check_kinds(model: Tensors, kinds: Mapping[str, AverageKind]) -> None:
    """Say whether each tensor can be averaged as its kind wants it.

    Raises:
        ValueError: a tensor has no kind or a kind no tensor; a kind is unknown; a dtype does not go with its kind.
    """
    if odd := sorted(model.keys() ^ kinds.keys()):
        missing = "kinds" if odd[0] in model else "the model"
        raise ValueError(f"tensor {odd[0]!r} is not in {missing} ({len(odd)} such): model and kinds must name the same")
    for name, kind in kinds.items():
        if kind not in _DTYPES:
            raise ValueError(f"kind of {name!r} is {kind!r}: it must be one of {', '.join(_DTYPES)}")
        letters, wanted = _DTYPES[kind]
        if model[name].dtype.kind not in letters:
            raise ValueError(f"tensor {name!r} is {model[name].dtype}: averaged as {kind!r} it must have {wanted}")


def check_update(update: Tensors, model: Tensors, kinds: Mapping[str, AverageKind]) -> None:
    """Say whether an update is fit to be applied: laid out as the model, finite, no variance below 0.

    Args:
        update: changes of the ``mean`` tensors, values of the others.
        model: any version of the global model.
        kinds: of its tensors.

    Raises:
        ValueError: it is not; the message names the tensor.
    """
    check_layout(update, model)
    variances = variances_with_means(kinds)
    for name, array in update.items():
        if array.dtype.kind == "f" and not all_finite(array):
            raise ValueError(f"update has a NaN or an infinity in {name!r}: the training diverged")
        if name in variances and (array < 0).any():
            raise ValueError(f"update has {array.min()} in {name!r}: a variance must be at least 0")


def all_finite(array: np.ndarray) -> bool:
    """Whether there is neither a NaN nor an infinity among floating numbers.

    The sum of squares is finite only then, and takes one pass over memory and nothing beside it; it overflows where
    numbers are very large.
    """
    flat = array.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.dot(flat, flat)) or np.isfinite(flat).all())


def check_layout(update: Tensors, model: Tensors) -> None:
    """Say whether an update has the model's names, shapes and dtypes. Raises ValueError where it has not."""
    if odd := sorted(update.keys() ^ model.keys()):
        owner, other = ("the model", "the update") if odd[0] in model else ("the update", "the model")
        raise ValueError(f"{owner} has the tensor {odd[0]!r} and {other} has not ({len(odd)} such): another model?")
    for name, array in update.items():
        if (array.shape, array.dtype) != (model[name].shape, model[name].dtype):
            raise ValueError(
                f"update has {name!r} as {array.dtype} {list(array.shape)}: "
                f"the model has it as {model[name].dtype} {list(model[name].shape)}"
            )


def variances_with_means(kinds: Mapping[str, AverageKind]) -> dict[str, str]:
    """Which statistics are variances, and of which other statistic's measurements, by the names that torch gives them.

    Returns:
        ``X.running_var`` to ``X.running_mean`` for each X that has both.
    """
    statistics = {name for name, kind in kinds.items() if kind == "statistic"}
    pairs = {}
    for name in kinds:
        owner, _, leaf = name.rpartition(".")
        mean = f"{owner}.running_mean" if owner else "running_mean"
        if leaf == "running_var" and {name, mean} <= statistics:
            pairs[name] = mean
    return pairs
