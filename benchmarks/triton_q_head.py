"""The Q-head's Triton kernels for `triton_report`: their arguments and tiles as `q_head_triton` launches them.

B states, A actions, P pairs, D features, K bins.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton.language as tl

from isogon.kernels import q_head_kernels_triton as kernels
from isogon.kernels.q_head_triton import Tiling, action_tiling, gradient_tiling, pair_tiling

KERNELS = ("pair_rows", "weight_gradient", "hidden_gradient", "action_values")

_TYPES = {
    "*i64": "state order tiles offsets place",
    "*fp32": "target loss rows stats upstream factor by_pair values best",
    "*fp64": "centres",
    "fp64": "low high origin width inverse_width",
    "*i32": "which",
    "*u8": "legal",
    "fp32": "inverse_sigma",
    "own": "hidden weight bias of_weight of_bias of_hidden",
}


class Task(NamedTuple):
    """A head's sizes, and how many pairs an action has."""

    features: int
    pairs_per_action: int
    states: int


CHESS = Task(1024, 33, 65536)
ATARI = Task(512, 14, 256)


def source(
    kernel: str, bins: int, dtype: str, stats: bool, centres: bool
) -> tuple[Any, dict[str, str], dict[str, Any], dict[str, Any]]:
    """A kernel, the types of its arguments, constants, and options: chess' sizes from 128 bins on, Atari's below."""
    task = CHESS if bins >= 128 else ATARI
    own, computed = (torch.bfloat16, tl.bfloat16) if dtype == "bf16" else (torch.float32, tl.float32)
    function = getattr(kernels, kernel)
    types = dict.fromkeys(function.arg_names, "i32")
    types |= {name: kind for kind, names in _TYPES.items() for name in names.split()}
    types = {name: f"*{dtype}" if kind == "own" else kind for name, kind in types.items()}
    tiling = _tiling(kernel, task, bins, own)
    constants = {
        "FEATURES": task.features,
        "BINS": bins,
        "BLOCK_B" if kernel == "action_values" else "BLOCK_P": tiling.samples,
        "BLOCK_K": tiling.bins,
        "BLOCK_D": tiling.features,
        "COMPUTE": computed,
        "PRECISION": "ieee",
    }
    if kernel == "pair_rows":
        constants["PROJECTION"] = "hl_gauss"
    left_out = {
        "pair_rows": () if stats else ("stats",),
        "weight_gradient": ("actions", "factor"),
        "hidden_gradient": ("of_hidden", "factor"),
        "action_values": ("values",),
    }[kernel]
    constants |= dict.fromkeys(left_out)
    if not centres and "centres" in function.arg_names:
        constants["centres"] = None
    return function, types, constants, tiling.options()


def _tiling(kernel: str, task: Task, bins: int, dtype: torch.dtype) -> Tiling:
    if kernel == "pair_rows":
        return pair_tiling(task.pairs_per_action, bins, dtype, dtype)
    if kernel == "action_values":
        return action_tiling(task.states, bins, dtype, dtype)
    return gradient_tiling(task.pairs_per_action, bins, task.features, dtype)
