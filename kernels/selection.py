"""Pairs of a state and an action as rows of ``logits [B, A, K]``."""

from __future__ import annotations

import torch


def checked_index(
    logits: torch.Tensor,
    row: torch.Tensor | None,
    action: torch.Tensor | None,
    weight: torch.Tensor | None,
    validate: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What a kernel needs of pairs ``(row [P], action [P])``.

    A pair of negative row or action is left out: its index is -1 and its weight 0.

    Returns:
        index: ``[P]`` int64 of rows of the flat logits.
        flat: the logits as ``[B A, K]``.
        weight: ``[P]``, or None.

    Raises:
        ValueError: shapes or dtypes do not fit, or (on the CPU, or with ``validate``) an index is out of range.
    """
    if row is None or action is None:
        raise ValueError(f"{'row' if row is None else 'action'} is None: pairs need both row and action")
    if logits.dim() != 3:
        raise ValueError(f"logits have shape {tuple(logits.shape)}: with row and action they must be [B, A, K]")
    states, actions, _ = logits.shape
    check_index("row", row)
    check_index("action", action)
    if action.shape != row.shape:
        raise ValueError(f"action has shape {tuple(action.shape)} and row {tuple(row.shape)}: both must be [P]")
    if row.device != logits.device or action.device != logits.device:
        raise ValueError(f"row is on {row.device}, action on {action.device} and logits on {logits.device}")
    compiling = torch.compiler.is_compiling()
    checked = validate or row.device.type == "cpu"
    if row.numel() and checked and not compiling:
        check_below("row", row, states, "states")
        check_below("action", action, actions, "actions")
    left_out = (row < 0) | (action < 0)
    index = torch.where(left_out, -1, row * actions + action)
    if checked and compiling:
        # Nothing can be looked at yet. What is out of range is made so as an index too, for `check_rows` to see.
        index = torch.where((row >= states) | (action >= actions), states * actions, index)
    if row.device.type != "cpu" or compiling or bool(left_out.any()):
        kept = torch.ones(row.shape, device=row.device) if weight is None else weight
        weight = kept.masked_fill(left_out, 0)
    return index, logits.flatten(0, 1), weight


def chosen_rows(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows ``[P, K]`` of ``logits [N, K]``; some row for an index of -1."""
    return logits.index_select(0, index.clamp(min=0))


def check_index(name: str, index: torch.Tensor) -> None:
    """Raise ValueError unless it is ``[P]`` int64."""
    if index.dim() != 1 or index.dtype != torch.int64:
        raise ValueError(f"{name} is {index.dtype} {tuple(index.shape)}: it must be torch.int64 [P]")


def check_rows(index: torch.Tensor, rows: int) -> None:
    """Raise ValueError for indices ``[P]`` of `checked_index` that are out of range. Makes a GPU's host wait."""
    wrong = index >= rows
    if bool(wrong.any()):
        raise ValueError(f"row and action have {int(wrong.sum())} of {index.numel()} pairs out of logits' range")


def check_below(name: str, index: torch.Tensor, end: int, what: str) -> None:
    """Raise ValueError for an index that is too large. Makes a GPU's host wait."""
    if (most := int(index.max())) >= end:
        raise ValueError(f"{name} has {most}, of {end} {what}")
