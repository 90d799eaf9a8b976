"""Pairs of a state and an action, grouped by action: what a Q-head's loss reads and writes, block by block.

B states, A actions, P pairs. Sorted by action, the pairs of one action lie beside each other, so that its block of
weights is read once, and the gradient of the block is one matrix product: written once, in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Pairs:
    """P pairs, stably sorted by action.

    Attributes:
        action: ``[P]`` int64, ascending; -1 for pairs that are left out, so that they come first.
        state: ``[P]`` int64, whose features each of them reads; 0 for pairs that are left out.
        order: ``[P]`` int64, where each of them stood before it was sorted.
        unique_states: whether pair i, before it was sorted, is state i, so that no state has two pairs.
    """

    action: torch.Tensor
    state: torch.Tensor
    order: torch.Tensor
    unique_states: bool

    @classmethod
    def group(cls, row: torch.Tensor | None, action: torch.Tensor, used: torch.Tensor) -> Pairs:
        """Sort pairs; those that are not ``used [P]`` bool are left out. Nothing here makes a host wait.

        Args:
            row: ``[P]`` int64, the state of each pair; None: pair i is of state i.
            action: ``[P]`` int64.
            used: ``[P]`` bool.
        """
        sorted_action, order = torch.sort(torch.where(used, action, -1), stable=True)
        state = order if row is None else row.index_select(0, order)
        return cls(sorted_action, torch.where(sorted_action < 0, 0, state), order, row is None)

    def offsets(self, actions: int) -> torch.Tensor:
        """``[A + 1]`` int64: the pairs of action a are those from ``offsets[a]`` to ``offsets[a + 1]``."""
        every_action = torch.arange(actions + 1, device=self.action.device)
        return torch.searchsorted(self.action, every_action)

    def without_left_out(self) -> Pairs:
        """The pairs that count. On CUDA this makes the host wait."""
        first = int(torch.searchsorted(self.action, 0))
        return Pairs(self.action[first:], self.state[first:], self.order[first:], self.unique_states)

    def groups(self) -> tuple[torch.Tensor, list[int], list[int]]:
        """The different actions, ``[U]`` and as a list, and the numbers of their pairs. On CUDA the host waits."""
        actions, counts = torch.unique_consecutive(self.action, return_counts=True)
        return actions, actions.tolist(), counts.tolist()


def ordered_sum(rows: torch.Tensor, place: torch.Tensor, size: int) -> torch.Tensor:
    """Sum ``rows [n, D]`` into ``[size, D]`` at ``place [n]``, in their order: to the same bits in every run."""
    total = rows.new_zeros(size, rows.shape[1])
    if rows.device.type == "cpu":
        return total.index_add_(0, place, rows)
    # On CUDA index_add_ adds by atomics, in any order; index_put_ sorts first.
    return total.index_put_((place,), rows, accumulate=True)
