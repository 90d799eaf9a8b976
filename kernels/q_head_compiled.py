"""The Q-head's functions as operators of `torch.library`: what `torch.compile` puts into its graph.

Imported while something is compiled, and only then, as `compiled` is. An operator sees numbers, which tracing does not:
what is to be checked about them is checked inside. The gradients of the chosen logits, ``[P, K]``, are an output of the
forward pass that the backward pass reads, beside the pairs as they were sorted.

B states, A actions, P pairs, D features, K bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch

from .backends import Impl
from .compiled import flat_support, support_of
from .cross_entropy import OutOfRange
from .hl_gauss import check_values
from .pairs import Pairs
from .projections import Projection
from .q_head_backend import Wanted
from .q_head_checks import check_indices, check_some_legal, choose
from .support import Support


class Head(NamedTuple):
    """A layer, its bins, and how to compute with them.

    Attributes:
        hidden: ``[B, D]``.
        weight: ``[A, K, D]``.
        bias: ``[A, K]`` or None.
        support: the bins.
        impl: not the reference.
        compute: what operands are rounded to; autocast is known while tracing, and not when the operator runs.
    """

    hidden: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    support: Support
    impl: Impl
    compute: torch.dtype

    def arguments(self) -> tuple[Any, ...]:
        """The first arguments of every operator."""
        return self.hidden, self.weight, self.bias, [*flat_support(self.support)], self.impl, self.compute


@torch.library.custom_op("isogon::q_head_losses", mutates_args=())
def _losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Sequence[float],
    impl: str,
    compute: torch.dtype,
    row: torch.Tensor | None,
    action: torch.Tensor,
    used: torch.Tensor,
    target: torch.Tensor,
    choices: str,
    gradient: bool,
    stats: bool,
) -> list[torch.Tensor]:
    projection, out_of_range, validate, sparse = choices.split()
    if sparse == "True":
        raise ValueError(
            "sparse_weight_gradient is True under torch.compile, whose graphs have dense gradients only: pass False, "
            "or keep the loss out of the graph by torch.compiler.disable"
        )
    bins = support_of(tuple(support))
    check_indices(row, action, hidden.shape[0], weight.shape[0], validate == "True")
    if validate == "True" or hidden.device.type == "cpu":
        check_values(target, used, bins, cast(OutOfRange, out_of_range))
    backend, kernels = choose(cast(Impl, impl), hidden, compute, bins.bins)
    pairs = Pairs.group(row, action, used)
    with torch.autocast(hidden.device.type, enabled=False):
        found = backend.pair_losses(
            hidden,
            weight,
            bias,
            pairs,
            target,
            bins,
            cast(Projection, projection),
            compute,
            kernels=kernels,
            gradient=gradient,
            stats=stats,
        )
    # Outputs of an operator may not share memory, as a backend's stats may.
    seen = [part.clone() for part in (found.value, found.entropy, found.logsumexp) if part is not None]
    kept = [] if found.rows is None else [found.rows, pairs.action, pairs.state, pairs.order]
    return [found.loss, *seen, *kept]


@_losses.register_fake
def _(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Sequence[float],
    impl: str,
    compute: torch.dtype,
    row: torch.Tensor | None,
    action: torch.Tensor,
    *others: Any,
) -> list[torch.Tensor]:
    *_, gradient, stats = others
    size, dtype = action.shape[0], _wide(compute)
    parts = [hidden.new_empty(size, dtype=dtype) for _ in range(4 if stats else 1)]
    if gradient:
        parts.append(hidden.new_empty((size, weight.shape[1]), dtype=dtype))
        parts += [torch.empty_like(action, memory_format=torch.contiguous_format) for _ in range(3)]
    return parts


@torch.library.custom_op("isogon::q_head_gradients", mutates_args=())
def _gradients(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Sequence[float],
    impl: str,
    compute: torch.dtype,
    rows: torch.Tensor,
    action: torch.Tensor,
    state: torch.Tensor,
    order: torch.Tensor,
    unique_states: bool,
    upstream: torch.Tensor,
    wanted: Sequence[bool],
) -> list[torch.Tensor]:
    backend, _ = choose(cast(Impl, impl), hidden, compute, weight.shape[1])
    pairs = Pairs(action, state, order, unique_states)
    with torch.autocast(hidden.device.type, enabled=False):
        found = backend.gradients(
            hidden, weight, bias, pairs, rows, upstream, compute, Wanted(wanted[0], wanted[1], wanted[2], sparse=False)
        )
    return [part for part in found if part is not None]


@_gradients.register_fake
def _(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *others: Any) -> list[torch.Tensor]:
    tensors = zip((hidden, weight, bias), others[-1], strict=True)
    return [tensor.new_empty(tensor.shape) for tensor, asked in tensors if asked and tensor is not None]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
    hidden, weight, bias, *constants = inputs[:6]
    ctx.constants = constants
    ctx.unique_states = inputs[6] is None
    ctx.save_for_backward(hidden, weight, bias, *output[-4:])


def _go_back(ctx: Any, upstream: list[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    hidden, weight, bias, *kept = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:3])
    given = hidden, weight, bias, *ctx.constants, *kept, ctx.unique_states, upstream[0].contiguous(), wanted
    found = iter(torch.ops.isogon.q_head_gradients(*given))
    return (*[next(found) if asked else None for asked in wanted], *[None] * 10)


_losses.register_autograd(_go_back, setup_context=_keep)


@torch.library.custom_op("isogon::q_head_values", mutates_args=())
def _values(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Sequence[float],
    impl: str,
    compute: torch.dtype,
) -> torch.Tensor:
    bins = support_of(tuple(support))
    backend, _ = choose(cast(Impl, impl), hidden, compute, bins.bins)
    with torch.autocast(hidden.device.type, enabled=False):
        return backend.all_values(hidden, weight, bias, bins, compute)


@_values.register_fake
def _(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Sequence[float],
    impl: str,
    compute: torch.dtype,
) -> torch.Tensor:
    return hidden.new_empty((hidden.shape[0], weight.shape[0]), dtype=_wide(compute))


@torch.library.custom_op("isogon::q_head_chosen", mutates_args=())
def _chosen(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Sequence[float],
    impl: str,
    compute: torch.dtype,
    row: torch.Tensor | None,
    action: torch.Tensor,
    used: torch.Tensor,
    validate: bool,
) -> torch.Tensor:
    bins = support_of(tuple(support))
    check_indices(row, action, hidden.shape[0], weight.shape[0], validate)
    backend, _ = choose(cast(Impl, impl), hidden, compute, bins.bins)
    with torch.autocast(hidden.device.type, enabled=False):
        return backend.pair_values(hidden, weight, bias, Pairs.group(row, action, used), bins, compute)


@_chosen.register_fake
def _(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Sequence[float],
    impl: str,
    compute: torch.dtype,
    row: torch.Tensor | None,
    action: torch.Tensor,
    *_: Any,
) -> torch.Tensor:
    return hidden.new_empty(action.shape[0], dtype=_wide(compute))


@torch.library.custom_op("isogon::q_head_best", mutates_args=())
def _best(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Sequence[float],
    impl: str,
    compute: torch.dtype,
    legal: torch.Tensor | None,
    validate: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    bins = support_of(tuple(support))
    check_some_legal(legal, validate)
    backend, _ = choose(cast(Impl, impl), hidden, compute, bins.bins)
    with torch.autocast(hidden.device.type, enabled=False):
        value, action = backend.best_values(hidden, weight, bias, bins, legal, compute)
    return value, action


@_best.register_fake
def _(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Sequence[float],
    impl: str,
    compute: torch.dtype,
    *_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    states = hidden.shape[0]
    return hidden.new_empty(states, dtype=_wide(compute)), hidden.new_empty(states, dtype=torch.int64)


def compiled_losses(
    head: Head,
    row: torch.Tensor | None,
    action: torch.Tensor,
    used: torch.Tensor,
    target: torch.Tensor,
    choices: tuple[Projection, OutOfRange, bool, bool],
    gradient: bool,
    stats: bool,
) -> list[torch.Tensor]:
    """Losses ``[P]`` of pairs, weights not applied, and if asked value, entropy and log-sum-exp.

    Args:
        head: the layer.
        row: ``[P]`` or None.
        action: ``[P]``.
        used: ``[P]`` bool, which pairs count.
        target: ``[P]``.
        choices: projection, out_of_range, validate and sparse_weight_gradient, which is refused.
        gradient: whether something of the layer requires one.
        stats: whether they are wanted.
    """
    told = " ".join(str(choice) for choice in choices)
    parts = torch.ops.isogon.q_head_losses(*head.arguments(), row, action, used, target, told, gradient, stats)
    return [parts[0], *(part.detach() for part in (parts[1:4] if stats else ()))]


def compiled_values(head: Head) -> torch.Tensor:
    """Expected values ``[B, A]``."""
    values: torch.Tensor = torch.ops.isogon.q_head_values(*head.arguments())
    return values


def compiled_chosen(
    head: Head, row: torch.Tensor | None, action: torch.Tensor, used: torch.Tensor, validate: bool
) -> torch.Tensor:
    """Expected values ``[P]`` of pairs, 0 for those not used."""
    values: torch.Tensor = torch.ops.isogon.q_head_chosen(*head.arguments(), row, action, used, validate)
    return values


def compiled_best(head: Head, legal: torch.Tensor | None, validate: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The best of the legal actions ``[B, A]``: its value and which it is."""
    value, action = torch.ops.isogon.q_head_best(*head.arguments(), legal, validate)
    return value, action


def _wide(compute: torch.dtype) -> torch.dtype:
    return torch.float64 if compute == torch.float64 else torch.float32
