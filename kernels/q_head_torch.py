"""A Q-head's loss, gradient and values, for any device: one product of torch's for each action that has pairs.

B states, A actions, P pairs, U different actions among them, D features, K bins. Logits exist for some pairs at a time
only. Operands are rounded to the compute dtype; products, softmax and sums are in float32 at least, so logits are never
rounded; what follows logits is up to the row kernels. On CUDA the host waits for the number of pairs of each action, as
it does not for `q_head_triton`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from .hl_gauss import centres_for, value_of_mean
from .pairs import Pairs, ordered_sum
from .projections import Projection
from .q_head_backend import Best, Gradients, PairLosses, Wanted, best_of, row_sparse
from .rows import RowKernels, scalar_targets
from .support import Support

_BLOCK_ELEMENTS = 2**20
"""Logits held at a time: 4 MiB of float32."""

_GROUP_COST = 180_000
"""Multiplications that cost as much as handling one more action on its own, measured on a CPU."""


def pair_losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pairs: Pairs,
    target: torch.Tensor,
    support: Support,
    projection: Projection,
    compute: torch.dtype,
    *,
    kernels: RowKernels,
    gradient: bool,
    stats: bool,
) -> PairLosses:
    """The contract is `q_head_backend.QHeadBackend`'s."""
    wide = _wide(compute)
    used = pairs.without_left_out()
    loss = hidden.new_zeros(target.shape[0], dtype=wide)
    rows = hidden.new_empty((target.shape[0], support.bins), dtype=wide) if gradient else None
    left_out = target.shape[0] - used.order.shape[0]
    seen = [torch.zeros_like(loss) for _ in range(3)] if stats else None
    centres = centres_for(support, hidden.device) if stats else None
    for start, stop, logits in _logits(hidden, weight, bias, used, compute):
        order = used.order[start:stop]
        targets = scalar_targets(target.index_select(0, order), support, projection)
        result = kernels.forward(logits, None, targets, None, 1.0, gradient=gradient, stats=stats, centres=centres)
        assert result.loss is not None
        loss.index_copy_(0, order, result.loss)
        if rows is not None and result.gradient is not None:
            rows[left_out + start : left_out + stop] = result.gradient
        if seen and result.stats is not None:
            found = value_of_mean(result.stats.mean, support), result.stats.entropy, result.stats.logsumexp
            for whole, part in zip(seen, found, strict=True):
                whole.index_copy_(0, order, part)
    return PairLosses(loss, rows, *(seen or (None, None, None)))


def gradients(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pairs: Pairs,
    rows: torch.Tensor,
    upstream: torch.Tensor,
    compute: torch.dtype,
    wanted: Wanted,
) -> Gradients:
    """The contract is `q_head_backend.QHeadBackend`'s."""
    used = pairs.without_left_out()
    actions, names, counts = used.groups()
    scaled = rows[rows.shape[0] - used.order.shape[0] :]
    scaled = scaled * upstream.index_select(0, used.order).to(rows.dtype).unsqueeze(-1)
    parts = torch.split(scaled, counts)
    of_hidden = of_weight = of_bias = None
    if wanted.hidden:
        by_pair = scaled.new_empty(scaled.shape[0], hidden.shape[1])
        for name, part, out in zip(names, parts, torch.split(by_pair, counts), strict=True):
            torch.mm(part, _operand(weight[name], compute), out=out)
        of_hidden = ordered_sum(by_pair, used.state, hidden.shape[0]).to(hidden.dtype)
    if wanted.weight:
        features = torch.split(_operand(hidden.index_select(0, used.state), compute), counts)
        if wanted.sparse:
            blocks = weight.new_empty(len(names), *weight.shape[1:])
            _weight_blocks(blocks, range(len(names)), parts, features)
            of_weight = row_sparse(actions, blocks, weight.shape)
        else:
            of_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
            _weight_blocks(of_weight, names, parts, features)
    if wanted.bias and bias is not None:
        group = torch.arange(len(names), device=bias.device).repeat_interleave(actions.new_tensor(counts))
        sums = ordered_sum(scaled, group, len(names)).to(bias.dtype)
        of_bias = row_sparse(actions, sums, bias.shape) if wanted.sparse else _spread(actions, sums, bias.shape[0])
    return Gradients(of_hidden, of_weight, of_bias)


def pair_values(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pairs: Pairs,
    support: Support,
    compute: torch.dtype,
) -> torch.Tensor:
    """The contract is `q_head_backend.QHeadBackend`'s."""
    used = pairs.without_left_out()
    values = hidden.new_zeros(pairs.order.shape[0], dtype=_wide(compute))
    for start, stop, logits in _logits(hidden, weight, bias, used, compute):
        values.index_copy_(0, used.order[start:stop], support.expectation(torch.softmax(logits, -1)))
    return values


def all_values(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Support,
    compute: torch.dtype,
) -> torch.Tensor:
    """The contract is `q_head_backend.QHeadBackend`'s."""
    values = hidden.new_empty(hidden.shape[0], weight.shape[0], dtype=_wide(compute))
    for states, actions, block in _value_blocks(hidden, weight, bias, support, compute):
        values[states, actions] = block
    return values


def best_values(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Support,
    legal: torch.Tensor | None,
    compute: torch.dtype,
) -> Best:
    """The contract is `q_head_backend.QHeadBackend`'s."""
    if legal is not None and _few(legal, weight):
        row, action = legal.nonzero(as_tuple=True)
        pairs = Pairs.group(row, action, torch.ones_like(row, dtype=torch.bool))
        values = hidden.new_full(legal.shape, -torch.inf, dtype=_wide(compute))
        values[row, action] = pair_values(hidden, weight, bias, pairs, support, compute)
        return best_of(values)
    best = hidden.new_full((hidden.shape[0],), -torch.inf, dtype=_wide(compute))
    which = torch.full_like(best, -1, dtype=torch.int64)
    for states, actions, block in _value_blocks(hidden, weight, bias, support, compute):
        found = best_of(block if legal is None else block.masked_fill(~legal[states, actions], -torch.inf))
        better = (found.value > best[states]) | (found.value.isnan() & ~best[states].isnan())
        best[states] = torch.where(better, found.value, best[states])
        which[states] = torch.where(better, found.action + actions.start, which[states])
    return Best(best, which)


def _weight_blocks(
    gradient: torch.Tensor, blocks: Sequence[int], rows: Sequence[torch.Tensor], features: Sequence[torch.Tensor]
) -> None:
    """Write these blocks of ``gradient [., K, D]``, ascending, and zeros between them: all of it once."""
    first = 0
    for block, part, feature in zip(blocks, rows, features, strict=True):
        if first < block:
            gradient[first:block].zero_()
        if gradient.dtype == part.dtype:
            torch.mm(part.t(), feature, out=gradient[block])
        else:
            gradient[block] = part.t() @ feature
        first = block + 1
    gradient[first:].zero_()


def _spread(actions: torch.Tensor, values: torch.Tensor, size: int) -> torch.Tensor:
    return values.new_zeros(size, *values.shape[1:]).index_copy_(0, actions, values)


def _few(legal: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the legal pairs, one action at a time, are less work than every action of every state."""
    block = weight.shape[1] * weight.shape[2]
    return 2 * int(legal.sum()) * block + weight.shape[0] * _GROUP_COST < legal.numel() * block


def _wide(compute: torch.dtype) -> torch.dtype:
    return torch.float64 if compute == torch.float64 else torch.float32


def _operand(tensor: torch.Tensor, compute: torch.dtype) -> torch.Tensor:
    return tensor.to(compute).to(_wide(compute))


def _logits(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, used: Pairs, compute: torch.dtype
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Logits of sorted pairs, some at a time: (start, stop, ``[stop - start, K]``)."""
    bins = weight.shape[1]
    block = max(1, _BLOCK_ELEMENTS // bins)
    for start in range(0, used.order.shape[0], block):
        state, action = used.state[start : start + block], used.action[start : start + block]
        names, counts = torch.unique_consecutive(action, return_counts=True)
        sizes = counts.tolist()
        features = _operand(hidden.index_select(0, state), compute)
        logits = features.new_empty(features.shape[0], bins)
        for name, part, out in zip(
            names.tolist(), torch.split(features, sizes), torch.split(logits, sizes), strict=True
        ):
            torch.mm(part, _operand(weight[name], compute).t(), out=out)
        if bias is not None:
            logits += _operand(bias.index_select(0, action), compute)
        yield start, start + state.shape[0], logits


def _value_blocks(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, support: Support, compute: torch.dtype
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Values of some states and actions at a time: (states, actions, block); a state's actions ascend."""
    actions, bins, _ = weight.shape
    states_at_a_time = min(max(hidden.shape[0], 1), max(1, _BLOCK_ELEMENTS // bins))
    actions_at_a_time = max(1, _BLOCK_ELEMENTS // (states_at_a_time * bins))
    for first in range(0, actions, actions_at_a_time):
        some_actions = slice(first, min(first + actions_at_a_time, actions))
        matrix = _operand(weight[some_actions], compute).flatten(0, 1).t()
        offset = None if bias is None else _operand(bias[some_actions], compute).flatten()
        for start in range(0, hidden.shape[0], states_at_a_time):
            some_states = slice(start, start + states_at_a_time)
            features = _operand(hidden[some_states], compute)
            outputs = features @ matrix if offset is None else torch.addmm(offset, features, matrix)
            probabilities = torch.softmax(outputs.reshape(outputs.shape[0], outputs.shape[1] // bins, bins), -1)
            yield some_states, some_actions, support.expectation(probabilities)
