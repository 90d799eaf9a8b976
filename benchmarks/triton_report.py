"""What the Triton kernels become, compiled ahead of time: no GPU is needed.

A table with a row for each kernel, variant and architecture: registers a thread, bytes that spilled out of them (local
memory and stack), shared memory, and machine instructions a logit. The last line is one JSON object.

    python benchmarks/triton_report.py [--arch 80 90 100] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
import triton_q_head
from rich.console import Console
from rich.table import Table
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from isogon.kernels import rows_triton
from isogon.kernels.dense_rows_triton import dense_rows
from isogon.kernels.long_rows_triton import long_rows
from isogon.kernels.rows import ScalarTargets
from isogon.kernels.scale_triton import SCALE_BLOCK, scale_in_place
from isogon.kernels.window_rows_triton import window_rows

ARCHITECTURES = (80, 90, 100)
DTYPES = ("fp32", "bf16")
TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True)
class Variant:
    """One compilation.

    Attributes:
        kernel: its name.
        target: the projection, or ``"given"`` or ``"moved"``.
        bins: K.
        dtype: of the logits.
        stats: whether stats are asked for.
        chosen: whether samples choose their rows.
        centres: whether the mean is formed in float64.
    """

    kernel: str
    target: str
    bins: int
    dtype: str
    stats: bool = False
    chosen: bool = False
    centres: bool = False

    @property
    def name(self) -> str:
        extras = ("stats", "chosen", "centres")
        return " ".join([self.target, *(extra for extra in extras if getattr(self, extra))])


@dataclass(frozen=True)
class Compiled:
    """What became of it.

    Attributes:
        registers: a thread.
        spilled: bytes of stack and local memory a thread.
        shared: bytes of shared memory a program.
        instructions_per_logit: of the machine code, with both sides of each branch, and loops counted once; for the
            Q-head's gradients, an element of a tile of logits.
    """

    registers: int
    spilled: int
    shared: int
    instructions_per_logit: float


def compilations(quick: bool = False) -> Iterator[tuple[Variant, int]]:
    """Variants and architectures to report on; with ``quick`` those that a test can afford."""
    if quick:
        for place, variant in enumerate(_few()):
            for architecture in ARCHITECTURES if place % 2 == 0 else (90,):
                yield variant, architecture
        yield from itertools.product(_q_head(((128, "bf16"), (51, "fp32"))), ARCHITECTURES)
    else:
        sizes = itertools.product((51, 128, 255, 512), DTYPES)
        yield from itertools.product([*_few(), *_more(), *_q_head(sizes)], ARCHITECTURES)


def _few() -> Iterator[Variant]:
    for bins in (51, 128, 255, 1001):
        yield Variant("window_rows", "hl_gauss", bins, "fp32", stats=True)
        yield Variant("window_rows", "hl_gauss", bins, "bf16")
    yield Variant("dense_rows", "hl_gauss", 128, "fp32", stats=True, chosen=True)
    yield Variant("dense_rows", "hl_gauss", 51, "bf16")
    yield Variant("dense_rows", "moved", 128, "fp32", stats=True, chosen=True)
    yield Variant("dense_rows", "given", 51, "bf16")
    yield Variant("long_rows", "given", 50257, "fp32", stats=True, chosen=True)
    yield Variant("window_rows", "two_hot", 255, "fp32")
    yield Variant("window_rows", "hl_gauss", 255, "bf16", stats=True, centres=True)
    yield Variant("window_rows", "one_hot", 51, "fp32")
    yield Variant("scale_in_place", "", 128, "bf16")


def _more() -> Iterator[Variant]:
    for bins in (51, 128, 255, 1001):
        yield Variant("window_rows", "hl_gauss", bins, "bf16", stats=True)
        yield Variant("window_rows", "hl_gauss", bins, "fp32")
    for bins, dtype in itertools.product((600, 2000, 4096), DTYPES):
        yield Variant("window_rows", "hl_gauss", bins, dtype, stats=True, centres=True)
    for target, bins, dtype in itertools.product(("hl_gauss", "given", "moved"), (51, 128, 255, 1001, 4096), DTYPES):
        yield Variant("dense_rows", target, bins, dtype, stats=True, chosen=True)
    for target, stats, chosen in itertools.product(("hl_gauss", "given", "moved"), (False, True), (False, True)):
        yield Variant("long_rows", target, 50257, "bf16", stats, chosen)


def _q_head(sizes: Iterable[tuple[int, str]]) -> Iterator[Variant]:
    for bins, dtype in sizes:
        yield Variant("pair_rows", "hl_gauss", bins, dtype, stats=True)
        for kernel in triton_q_head.KERNELS[1:]:
            yield Variant(kernel, "", bins, dtype)


def compile_variant(variant: Variant, architecture: int) -> Compiled:
    """Compile for sm_<architecture> and read the machine code's resources with the cuobjdump that Triton brings."""
    kernel, types, constants, options = _source(variant)
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    aligned = [name for name, kind in signature.items() if kind.startswith("*")]
    wide = ("state_stride", "action_stride", "bin_stride") if variant.kernel in triton_q_head.KERNELS else ()
    if variant.bins % 16 == 0:
        wide = (*wide, "row_stride")
    aligned += [name for name in wide if signature.get(name) == "i32"]
    hints = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=hints)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([TOOL, flag, file.name], capture_output=True, text=True, check=True).stdout
            for flag in ("-res-usage", "-sass")
        )
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    instructions = len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/", code, re.MULTILINE))
    rows = next((constants[name] for name in ("BLOCK_R", "BLOCK_P", "BLOCK_B") if name in constants), 1)
    logits = rows * min(variant.bins, constants["BLOCK_K"]) if "BLOCK_K" in constants else constants["BLOCK"]
    return Compiled(
        registers=found["REG"],
        spilled=found["STACK"] + found["LOCAL"],
        shared=int(compiled.metadata.shared),
        instructions_per_logit=round(instructions * 32 * options["num_warps"] / logits, 1),
    )


def _source(variant: Variant) -> tuple[Any, dict[str, str], dict[str, Any], dict[str, Any]]:
    """A variant's kernel, types of arguments, constants, and options."""
    if variant.kernel in triton_q_head.KERNELS:
        return triton_q_head.source(variant.kernel, variant.bins, variant.dtype, variant.stats, variant.centres)
    logit = "*" + variant.dtype
    if variant.kernel == "scale_in_place":
        types = {"values": logit, "factor": "*fp32", "count": "i64"}
        return scale_in_place, types, {"BLOCK": SCALE_BLOCK}, {"num_warps": 4, "enable_fp_fusion": True}
    kernel = {"window_rows": window_rows, "dense_rows": dense_rows, "long_rows": long_rows}[variant.kernel]
    layout = rows_triton.window_tile if variant.kernel == "window_rows" else rows_triton.dense_tile
    shape: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in layout(variant.bins).items():
        (shape if key.startswith("BLOCK") else options)[key] = value
    types = {
        **dict.fromkeys(("logits", "gradient"), logit),
        **dict.fromkeys(("target", "reward", "discount", "weight", "loss", "stats"), "*fp32"),
        **dict.fromkeys(("low", "high", "origin", "width", "inverse_width"), "fp64"),
        **dict.fromkeys(("coefficient", "inverse_sigma"), "fp32"),
        **dict.fromkeys(("row_stride", "target_stride", "half"), "i32"),
        "index": "*i32",
        "order": "*i64",
        "centres": "*fp64",
        "samples": "i64",
    }
    constants: dict[str, Any] = {"upstream": None, "upstream_stride": 0, "bin_stride": 1, "BINS": variant.bins, **shape}
    if not variant.stats:
        constants["stats"] = None
    if not variant.centres:
        constants["centres"] = None
    if variant.kernel == "window_rows":
        targets = ScalarTargets(torch.zeros(0), variant.target, variant.bins, 0.75, 0.0, 1.0, 0.0, 1.0)  # type: ignore[arg-type]
        return (
            kernel,
            types,
            {**constants, "PROJECTION": variant.target, "BLOCK_W": rows_triton.window(targets)[1]},
            options,
        )
    constants |= {"KIND": variant.target, "target_bin_stride": 1}
    if not variant.chosen:
        constants |= {"index": None, "order": None}
    if variant.target != "moved":
        constants |= {"reward": None, "discount": None}
    return kernel, types, constants, options


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile, print the table, and then the JSON object."""
    parser = argparse.ArgumentParser(description="Compile the Triton kernels ahead of time and report on them.")
    parser.add_argument("--arch", type=int, nargs="+", default=ARCHITECTURES, help="80 is A100, 90 H100, 100 B200")
    parser.add_argument("--quick", action="store_true", help="only the variants that the tests compile")
    options = parser.parse_args(arguments)
    begin = time.perf_counter()
    rows = [
        (variant, architecture, compile_variant(variant, architecture))
        for variant, architecture in compilations(options.quick)
        if architecture in options.arch
    ]
    seconds = time.perf_counter() - begin
    table = Table(title=f"Triton {triton.__version__}, {len(rows)} compilations in {seconds:.0f} s")
    headings = ("kernel", "variant", "K", "logits", "arch", "registers", "spilled", "shared", "instructions a logit")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("kernel", "variant") else "right")
    for variant, architecture, compiled in rows:
        table.add_row(
            variant.kernel,
            variant.name,
            str(variant.bins),
            variant.dtype,
            f"sm_{architecture}",
            *(str(value) for value in asdict(compiled).values()),
        )
    Console(width=130).print(table)
    found = [{**asdict(variant), "arch": architecture, **asdict(compiled)} for variant, architecture, compiled in rows]
    print(json.dumps({"benchmark": "triton_report", "triton": triton.__version__, "compilations": found}))


if __name__ == "__main__":
    main()
