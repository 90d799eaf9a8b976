"""`isogon.kernels` by itself: what it imports, how it does without its extension, and in forked processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import isogon.kernels
from isogon.kernels import Support, hl_gauss_loss
from isogon.kernels.backends import why_not


def in_a_process(code: str) -> Any:
    """What a fresh interpreter prints, as JSON."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_importing_the_kernels_loads_nothing_else_and_starts_nothing() -> None:
    code = """
import json, os, sys
import torch
threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
before = set(sys.modules)
import isogon.kernels
now = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
print(json.dumps({"modules": sorted(set(sys.modules) - before), "threads": now - threads}))
"""
    seen = in_a_process(code)
    assert "isogon.kernels.hl_gauss" in seen["modules"]
    foreign = (
        "ray",
        "pydantic",
        "triton",
        "scipy",
        "isogon.learners",
        "isogon.actors",
        "isogon.system",
        "torch._dynamo",
    )
    loaded = [name for name in seen["modules"] if name.startswith(foreign)]
    assert not loaded
    assert "isogon.kernels.compiled" not in seen["modules"]
    assert seen["threads"] == 0


def test_everything_that_is_exported_is_there() -> None:
    assert sorted(isogon.kernels.__all__) == isogon.kernels.__all__
    for name in isogon.kernels.__all__:
        assert getattr(isogon.kernels, name) is not None


LOSSES = """
import json, sys
{hide}
import torch
from isogon.kernels import Support, hl_gauss_loss
from isogon.kernels.backends import describe, why_not
generator = torch.Generator().manual_seed(0)
logits = torch.randn(9, 51, generator=generator, requires_grad=True)
target = 4 * torch.randn(9, generator=generator)
loss = hl_gauss_loss(logits, target, Support(-5.0, 5.0, 51))
loss.backward()
try:
    hl_gauss_loss(logits, target, Support(-5.0, 5.0, 51), impl="native")
    refused = None
except ValueError as error:
    refused = str(error)
print(json.dumps(dict(loss=loss.item(), slope=logits.grad.tolist(), refused=refused, told=describe()["cpu"],
                      missing=why_not("native"))))
"""
HIDE = """
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == "isogon.kernels._native":
            raise ImportError("no such file", name=name)
sys.meta_path.insert(0, Hidden())
"""


def test_without_the_extension_torch_does_the_same_and_says_so() -> None:
    with_it, without = in_a_process(LOSSES.format(hide="")), in_a_process(LOSSES.format(hide=HIDE))
    assert without["refused"].startswith("impl is 'native': the C extension was not built (no such file); install a C")
    assert without["told"].startswith("torch, several times slower than C")
    assert "install isogon again" in without["missing"]
    assert without["loss"] == pytest.approx(with_it["loss"], abs=1e-5)
    torch.testing.assert_close(torch.tensor(without["slope"]), torch.tensor(with_it["slope"]), rtol=0, atol=2e-6)
    if why_not("native") is None:
        assert with_it["refused"] is None
        assert with_it["told"].startswith("native, C with ")


def large_loss(threads: int) -> tuple[float, float]:
    """Enough work for several threads of the extension: the loss, and a number that hangs on the whole gradient."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20000, 51, generator=generator, requires_grad=True)
    loss = hl_gauss_loss(logits, torch.randn(20000, generator=generator), Support(-5.0, 5.0, 51), impl="native")
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.item(), float((gradient.numpy() ** 2).sum())


def send_a_large_loss(connection: Any, threads: int) -> None:
    connection.send(large_loss(threads))
    connection.close()


@pytest.mark.skipif(why_not("native") is not None, reason="the C extension is not built")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_15_a_forked_process_computes_the_same() -> None:
    """A pool of threads would not have come along; the extension keeps none."""
    code = f"""
import json, multiprocessing, sys, warnings
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.kernels.test_kernels_alone import large_loss, send_a_large_loss
import torch
before = large_loss(2)
context = multiprocessing.get_context("fork")
receiver, sender = context.Pipe(duplex=False)
warnings.simplefilter("ignore", DeprecationWarning)  # From Python 3.12 on, of forks beside other threads.
child = context.Process(target=send_a_large_loss, args=(sender, 2))
child.start()
told = receiver.poll(60) and receiver.recv()
child.join(10)
print(json.dumps([before, told, child.exitcode]))
"""
    before, told, exit_code = in_a_process(code)
    assert exit_code == 0
    assert told == before
