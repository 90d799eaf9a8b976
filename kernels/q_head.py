"""Q-heads of many actions: a linear map from features to the bins of each action, its loss and its values.

The head's logits ``hidden [B, D] x weight [A, K, D] -> [B, A, K]`` are most of the memory and the work of a Q-network
with many actions, and a loss needs few of them. As in Cut Cross-Entropy (Wijmans et al. 2024, arXiv 2411.09009) they
are never made: the loss computes those of the chosen (state, action) pairs, block by block of the weights that these
choose, and the maximum over actions keeps a running maximum.

B states, A actions, P pairs, D features, K bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch

from . import q_head_reference
from .backends import Impl
from .cross_entropy import OutOfRange, Reduction, check_reduction, check_target_kind, reduce_loss
from .hl_gauss import check_values
from .pairs import Pairs
from .projections import Projection, check_projection
from .q_head_backend import LossCall, PairLoss, best_of
from .q_head_checks import (
    check_indices,
    check_layer,
    check_legal_shape,
    check_pairs,
    check_samples,
    check_some_legal,
    choose,
    compute_dtype,
    refuse_sparse_under_ddp,
)
from .reference import HLGaussStats
from .support import Support


@overload
def hl_gauss_q_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    row: torch.Tensor | None,
    action: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    projection: Projection = ...,
    sample_weight: torch.Tensor | None = ...,
    reduction: Reduction = ...,
    out_of_range: OutOfRange = ...,
    return_stats: Literal[False] = ...,
    sparse_weight_gradient: bool = ...,
    validate: bool = ...,
    impl: Impl = ...,
) -> torch.Tensor: ...


@overload
def hl_gauss_q_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    row: torch.Tensor | None,
    action: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    projection: Projection = ...,
    sample_weight: torch.Tensor | None = ...,
    reduction: Reduction = ...,
    out_of_range: OutOfRange = ...,
    return_stats: Literal[True],
    sparse_weight_gradient: bool = ...,
    validate: bool = ...,
    impl: Impl = ...,
) -> tuple[torch.Tensor, HLGaussStats]: ...


@overload
def hl_gauss_q_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    row: torch.Tensor | None,
    action: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    projection: Projection = ...,
    sample_weight: torch.Tensor | None = ...,
    reduction: Reduction = ...,
    out_of_range: OutOfRange = ...,
    return_stats: bool,
    sparse_weight_gradient: bool = ...,
    validate: bool = ...,
    impl: Impl = ...,
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]: ...


def hl_gauss_q_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    row: torch.Tensor | None,
    action: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    projection: Projection = "hl_gauss",
    sample_weight: torch.Tensor | None = None,
    reduction: Reduction = "mean",
    out_of_range: OutOfRange = "clamp",
    return_stats: bool = False,
    sparse_weight_gradient: bool = False,
    validate: bool = False,
    impl: Impl = "auto",
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """`hl_gauss_loss` of the chosen actions' logits, ``weight[action_i] hidden[row_i] + bias[action_i]``.

    The same as ``hl_gauss_loss((hidden @ weight.flatten(0, 1).T).view(B, A, K)[row, action] + bias[action], target,
    support, weight=sample_weight, ...)``, without logits ``[B, A, K]``. Differentiable in hidden, weight and bias;
    gradients are the same to the bit in every run, and exact for every reduction. Between the passes it keeps the
    gradients of the chosen logits, ``[P, K]`` in float32. A gradient is summed in the order of pairs, those of lower
    actions first.

    Pairs with a negative row or action, and pairs of weight 0, are *left out*: their loss and gradient are 0, and their
    features, target and stats may be anything and are 0. Like a weight of 0 they still count in a ``"mean"``, and do
    not in a ``"weighted_mean"``.

    Args:
        hidden: ``[B, D]`` floating, features of states.
        weight: ``[A, K, D]``, of the head's layer. Under `torch.autocast` hidden, weight and bias may differ in dtype,
            and the operands of the products are rounded to autocast's; otherwise the three have one dtype. Products are
            summed in float32 at least, softmax and loss are in float32 (float64 for float64), and gradients have the
            dtype of what they belong to.
        bias: ``[A, K]`` or None, likewise.
        row: ``[P]`` int64, the state of each pair; several pairs may share one. None: pair i is of state i, and P = B.
        action: ``[P]`` int64.
        target: ``[P]`` floating, in units of value; a constant.
        support: the bins.
        projection: see `isogon.kernels.projections`.
        sample_weight: ``[P]`` floating or None, multiplies each pair's loss before it is reduced: importance weights.
        reduction: see `hl_gauss_loss`.
        out_of_range: see `hl_gauss_loss`.
        return_stats: also give `HLGaussStats`, ``[P]``.
        sparse_weight_gradient: gradients of weight and bias are coalesced `torch.sparse_coo_tensor` over the actions
            that have pairs (``[U]``, ascending; values ``[U, K, D]`` and ``[U, K]``), for vocabularies; for
            `torch.optim.SGD` and `torch.optim.SparseAdam`. On CUDA the host waits for U.
        validate: on CUDA, look whether rows and actions exist and targets are right, which makes the host wait. On the
            CPU they are always looked at. Otherwise a pair whose row or action does not exist, or whose target is NaN,
            has a loss of NaN.
        impl: ``"triton"``: on CUDA, for float32, bfloat16 and float16 and up to 512 bins. ``"torch"``: products by
            torch for one action at a time, on any device. ``"native"``: likewise, and what follows them in C, on the
            CPU. ``"auto"``: the first of triton, native and torch that there is for the device. ``"reference"``: plain
            torch, which holds the weights ``[P, K, D]``, has dense gradients only, and alone a second derivative.

    Returns:
        The loss, and with ``return_stats`` the pair (loss, stats).

    Raises:
        ValueError: shapes, dtypes or devices do not fit, a choice is unknown, a target is refused (see
            `hl_gauss_loss`), or sparse gradients are wanted in a group of several processes, where
            DistributedDataParallel averages dense ones only, or a row or an action is too large.
    """
    check_layer(hidden, weight, bias, support)
    check_pairs(row, action, hidden)
    check_indices(row, action, hidden.shape[0], weight.shape[0], validate)
    size, device = action.shape[0], hidden.device
    check_samples("target", target, "action", size, device)
    if sample_weight is not None:
        check_samples("sample_weight", sample_weight, "action", size, device)
    check_target_kind(target, out_of_range)
    check_projection(projection)
    check_reduction(reduction)
    if sparse_weight_gradient:
        refuse_sparse_under_ddp()
    used, unknown = _used(row, action, sample_weight, hidden.shape[0], weight.shape[0])
    counted = used.to(torch.float32) if sample_weight is None else sample_weight.masked_fill(~used, 0)
    if validate or device.type == "cpu":
        if not torch.compiler.is_compiling():
            check_values(target, counted, support, out_of_range)
    elif out_of_range == "error":
        raise ValueError("out_of_range is 'error' on CUDA: pass validate=True, as the check makes the host wait")
    compute = compute_dtype(hidden)
    gradient = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden, weight, bias))
    seen: Sequence[torch.Tensor]
    if impl == "reference":
        if sparse_weight_gradient:
            raise ValueError("sparse_weight_gradient is True: impl='reference' has dense gradients only")
        layer = _rounded(hidden, weight, bias, compute)
        with torch.autocast(device.type, enabled=False):
            seen = q_head_reference.pair_losses(*layer, row, action, used, target, support, projection, out_of_range)
    elif torch.compiler.is_compiling():
        from .q_head_compiled import Head, compiled_losses

        head = Head(hidden, weight, bias, support, impl, compute)
        choices = projection, out_of_range, validate, sparse_weight_gradient
        seen = compiled_losses(head, row, action, used, target, choices, gradient, return_stats)
    else:
        call = LossCall(
            *choose(impl, hidden, compute, support.bins),
            Pairs.group(row, action, used),
            target,
            support,
            projection,
            compute,
            gradient=gradient,
            stats=return_stats,
            sparse=sparse_weight_gradient,
        )
        seen = PairLoss.apply(hidden, weight, bias, call)  # type: ignore[no-untyped-call]
    loss = seen[0]
    if unknown is not None:
        loss = loss.masked_fill(unknown, torch.nan)
        counted = counted.masked_fill(unknown, 1.0)
    reduced = reduce_loss(loss, counted, reduction)
    if not return_stats:
        return reduced
    value, entropy, logsumexp = seen[1:]
    td_error = torch.where(used, value - target.to(value.dtype).clamp(support.lowest, support.highest), 0)
    outside = used & ((target < support.lowest) | (target > support.highest))
    return reduced, HLGaussStats(loss.detach(), value, td_error, entropy, logsumexp, outside.sum())


@torch.no_grad()
def q_values(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Support,
    *,
    impl: Impl = "auto",
) -> torch.Tensor:
    """Expected values ``[B, A]`` of every action, without logits ``[B, A, K]`` and without a gradient.

    Args:
        hidden: ``[B, D]``; this and the next three as in `hl_gauss_q_loss`.
        weight: ``[A, K, D]``.
        bias: ``[A, K]`` or None.
        support: the bins.
        impl: see `hl_gauss_q_loss`.

    Returns:
        Float32, or float64 for float64 features.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or ``impl`` cannot do it.
    """
    check_layer(hidden, weight, bias, support)
    compute = compute_dtype(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        if impl == "reference":
            return q_head_reference.all_values(*_rounded(hidden, weight, bias, compute), support)
        if torch.compiler.is_compiling():
            from .q_head_compiled import Head, compiled_values

            return compiled_values(Head(hidden, weight, bias, support, impl, compute))
        return choose(impl, hidden, compute, support.bins)[0].all_values(hidden, weight, bias, support, compute)


@torch.no_grad()
def q_chosen(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    row: torch.Tensor | None,
    action: torch.Tensor,
    support: Support,
    *,
    validate: bool = False,
    impl: Impl = "auto",
) -> torch.Tensor:
    """Expected values ``[P]`` of the pairs (``row [P]``, ``action [P]``), without a gradient.

    Arguments and errors are those of `hl_gauss_q_loss`. Pairs with a negative row or action have value 0, and on CUDA
    those whose row or action does not exist have NaN.
    """
    check_layer(hidden, weight, bias, support)
    check_pairs(row, action, hidden)
    check_indices(row, action, hidden.shape[0], weight.shape[0], validate)
    used, unknown = _used(row, action, None, hidden.shape[0], weight.shape[0])
    compute = compute_dtype(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        if impl == "reference":
            layer, target = _rounded(hidden, weight, bias, compute), torch.zeros(action.shape, device=action.device)
            value = q_head_reference.pair_losses(*layer, row, action, used, target, support, "one_hot", "clamp")[1]
        elif torch.compiler.is_compiling():
            from .q_head_compiled import Head, compiled_chosen

            value = compiled_chosen(Head(hidden, weight, bias, support, impl, compute), row, action, used, validate)
        else:
            backend, _ = choose(impl, hidden, compute, support.bins)
            value = backend.pair_values(hidden, weight, bias, Pairs.group(row, action, used), support, compute)
    return value if unknown is None else value.masked_fill(unknown, torch.nan)


@torch.no_grad()
def q_max(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Support,
    *,
    legal: torch.Tensor | None = None,
    validate: bool = False,
    impl: Impl = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest expected value ``[B]`` of a state's actions, and which action ``[B]`` int64 has it.

    Neither logits ``[B, A, K]`` nor, on CUDA, values ``[B, A]`` are held, and there is no gradient. Of equal values the
    lowest action is taken; a legal action's NaN is larger than any number.

    Args:
        hidden: ``[B, D]``; this and the next three as in `hl_gauss_q_loss`.
        weight: ``[A, K, D]``.
        bias: ``[A, K]`` or None.
        support: the bins.
        legal: ``[B, A]`` bool or None for all: the actions among which to choose.
        validate: on CUDA, look whether every state has a legal action. On the CPU it is always looked at. Otherwise
            states without one have the value minus infinity and the action -1.
        impl: see `hl_gauss_q_loss`.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, ``impl`` cannot do it, or a state has no legal action.
    """
    check_layer(hidden, weight, bias, support)
    check_legal_shape(legal, hidden, weight.shape[0])
    check_some_legal(legal, validate)
    compute = compute_dtype(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        if impl == "reference":
            values = q_head_reference.all_values(*_rounded(hidden, weight, bias, compute), support)
            return best_of(values if legal is None else values.masked_fill(~legal, -torch.inf))
        if torch.compiler.is_compiling():
            from .q_head_compiled import Head, compiled_best

            return compiled_best(Head(hidden, weight, bias, support, impl, compute), legal, validate)
        return choose(impl, hidden, compute, support.bins)[0].best_values(hidden, weight, bias, support, legal, compute)


def _used(
    row: torch.Tensor | None, action: torch.Tensor, sample_weight: torch.Tensor | None, states: int, actions: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Which pairs count, and which of them do not exist; None on the CPU, where that has been refused."""
    used = action >= 0
    if row is not None:
        used &= row >= 0
    if sample_weight is not None:
        used &= sample_weight != 0
    if action.device.type == "cpu":
        return used, None
    exists = action < actions
    if row is not None:
        exists &= row < states
    return used & exists, used & ~exists


def _rounded(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, compute: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    return hidden.to(compute), weight.to(compute), None if bias is None else bias.to(compute)
