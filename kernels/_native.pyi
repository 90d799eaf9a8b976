"""The C extension; what its arguments mean is said in ``native/module.c``. Addresses are ``Tensor.data_ptr()``."""

from typing import Any

def plan(
    place: int,
    bins: int,
    window: int,
    before: int,
    pieces: int,
    scale: float,
    lowest: float,
    highest: float,
    origin: float,
    width: float,
    last: float,
    profile: int,
    /,
) -> object: ...
def forward(*arguments: Any) -> tuple[int, int]: ...
def instruction_set() -> str: ...
def use_instruction_set(name: str, /) -> None: ...
def use_streaming_above(bytes: int, /) -> int: ...
def use_two_passes_from(bins: int, /) -> int: ...
