from __future__ import annotations

from typing import ClassVar

from isogon.schedulers.federated import Client, FederatedScheduler, Piece, Result, Silence

from .federated_suite import FederatedMachine


class Greedy(FederatedScheduler):
    """The least policy there is: each result is applied as it comes, and its client goes on."""

    name: ClassVar[str] = "greedy"

    def on_ready(self, client: Client) -> None:
        self.give(client, 5)

    def on_result(self, client: Client, result: Result, piece: Piece) -> None:
        self.commit([(result, 1.0)])

    def on_published(self) -> None:
        for client in self.free_clients():
            self.give(client, 5)


class GreedyMachine(FederatedMachine):
    least = most = 5

    def make_scheduler(self, attempt: int) -> Greedy:
        return Greedy(attempt, silence=Silence(2.0, 20.0))


TestAnyOrder = GreedyMachine.TestCase
