"""Without a GPU, Triton kernels run in Triton's interpreter, which has to be chosen before triton is imported."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> str:
    """Where Triton kernels are tested."""
    if torch.cuda.is_available():
        return "cuda"
    from triton import knobs

    assert knobs.runtime.interpret, "triton was imported before tests/kernels/conftest.py chose its interpreter"
    return "cpu"
