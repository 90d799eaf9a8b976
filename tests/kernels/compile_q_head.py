"""Compile the Q-head's Triton kernels ahead of time, for GPUs that need not be there: one JSON line for each.

B states, A actions, P pairs, D features, K bins.
"""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from isogon.kernels import q_head_kernels_triton as kernels
from isogon.kernels.q_head_triton import Tiling, action_tiling, gradient_tiling, pair_tiling

ARCHITECTURES = (80, 90, 100)
CHESS = {"dtype": torch.bfloat16, "features": 1024, "bins": 128, "pairs_per_action": 33, "states": 65536}
ATARI = {"dtype": torch.float32, "features": 512, "bins": 51, "pairs_per_action": 14, "states": 256}

_TYPES = {
    "*i64": "state order tiles offsets place",
    "*fp32": "loss rows stats upstream factor by_pair values best",
    "*fp64": "position centres",
    "*i32": "which",
    "*u8": "legal",
    "fp32": "inverse_sigma",
    "own": "hidden weight bias of_weight of_bias of_hidden",
}


def signature(dtype: torch.dtype) -> dict[str, str]:
    """Types of the kernels' arguments; whatever is not named is an int32."""
    types = {name: kind for kind, names in _TYPES.items() for name in names.split()}
    own = "*bf16" if dtype == torch.bfloat16 else "*fp32"
    return {name: own if kind == "own" else kind for name, kind in types.items()}


def calls(
    dtype: torch.dtype, features: int, bins: int, pairs_per_action: int, states: int
) -> Iterator[tuple[Any, Tiling, dict[str, Any]]]:
    """The kernels with their tiles and constants, as `q_head_triton` launches them."""
    common = {
        "FEATURES": features,
        "BINS": bins,
        "COMPUTE": tl.bfloat16 if dtype == torch.bfloat16 else tl.float32,
        "PRECISION": "ieee",
        "INTERPRET": False,
    }
    tiling = pair_tiling(pairs_per_action, bins, dtype, dtype)
    yield kernels.pair_rows, tiling, common | {"centres": None, "PROJECTION": "hl_gauss", "BLOCK_P": tiling.samples}
    tiling = gradient_tiling(pairs_per_action, bins, features, dtype)
    yield kernels.weight_gradient, tiling, common | {"actions": None, "factor": None, "BLOCK_P": tiling.samples}
    yield kernels.hidden_gradient, tiling, common | {"of_hidden": None, "factor": None, "BLOCK_P": tiling.samples}
    tiling = action_tiling(states, bins, dtype, dtype)
    yield kernels.action_values, tiling, common | {"centres": None, "values": None, "BLOCK_B": tiling.samples}


def compiled(kernel: Any, tiling: Tiling, constants: dict[str, Any], types: dict[str, str], architecture: int) -> Any:
    constants = constants | {"BLOCK_K": tiling.bins, "BLOCK_D": tiling.features}
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    aligned = [i for i, name in enumerate(names) if signature[name].startswith("*") or name.endswith("_stride")]
    attributes = {
        (i,): [["tt.divisibility", 16]] for i in aligned if names[i] not in ("upstream_stride", "legal_stride")
    }
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=tiling.options())


def spilled_bytes(binary: bytes) -> int:
    """Bytes of stack and local memory that a thread uses."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        told = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return sum(int(number) for number in re.findall(r"(?:STACK|LOCAL):(\d+)", told))


def main() -> None:
    os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"
    for task in (CHESS, ATARI):
        for kernel, tiling, constants in calls(**task):  # type: ignore[arg-type]
            for architecture in ARCHITECTURES:
                made = compiled(kernel, tiling, constants, signature(task["dtype"]), architecture)  # type: ignore[arg-type]
                row = {
                    "kernel": kernel.__name__,
                    "bins": task["bins"],
                    "architecture": architecture,
                    "spilled_bytes": spilled_bytes(made.asm["cubin"]),
                    "shared_bytes": made.metadata.shared,
                }
                print(json.dumps(row))


if __name__ == "__main__":
    main()
