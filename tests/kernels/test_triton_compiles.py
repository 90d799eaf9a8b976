"""The Triton kernels, compiled ahead of time for three generations of GPUs in processes that do not interpret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("triton", reason="triton is not installed: it is made for Linux on x86-64 and Arm")


def last_line_of(script: str, *arguments: str, cache: Path) -> Any:
    """What a script prints last, as JSON."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment |= {"TRITON_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_kernel_spills_out_of_its_registers(tmp_path: Path) -> None:
    compilations = last_line_of("benchmarks/triton_report.py", "--quick", cache=tmp_path)["compilations"]
    of_rows = {"window_rows", "dense_rows", "long_rows", "scale_in_place"}
    of_q_head = {"pair_rows", "weight_gradient", "hidden_gradient", "action_values"}
    assert {row["arch"] for row in compilations} == {80, 90, 100}
    assert {row["kernel"] for row in compilations} == of_rows | of_q_head
    for row in compilations:
        assert row["shared"] <= {80: 163, 90: 227, 100: 227}[row["arch"]] * 1024, row
        assert row["spilled"] == 0, row
        assert row["registers"] <= 255, row
        if row["kernel"] == "window_rows" and not row["stats"]:
            assert row["registers"] <= 128, row


def test_other_sizes_and_supports_compile_nothing_new(tmp_path: Path) -> None:
    seen = last_line_of("tests/kernels/triton_compilations.py", cache=tmp_path)
    new = ("first", "first chosen", "first gradient", "gradient with one factor", "first scale")
    assert seen == [[name, int(name in new)] for name, _ in seen]
