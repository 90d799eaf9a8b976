"""The suite of all schedulers of clients, on FedCompass's rivals."""

from __future__ import annotations

from typing import ClassVar

from isogon.schedulers.asynchronous import FedAsync, FedBuff
from isogon.schedulers.events import Assign
from isogon.schedulers.federated import Silence
from isogon.schedulers.queue_aware import FedQueue
from isogon.schedulers.rounds import Rounds
from isogon.schedulers.tiers import FedAT

from .federated_suite import FederatedMachine

SILENCE = Silence(2.0, 20.0)


class RoundsMachine(FederatedMachine):
    least = most = 7

    def make_scheduler(self, attempt: int) -> Rounds:
        return Rounds(attempt, steps=7, silence=SILENCE)


class SampledRoundsMachine(FederatedMachine):
    everybody_works: ClassVar[bool] = False

    def make_scheduler(self, attempt: int) -> Rounds:
        return Rounds(
            attempt,
            steps=7,
            steps_by="samples",
            clients_per_round=2,
            least_clients=2,
            least_results=2,
            round_seconds=30.0,
            normalise_steps=True,
        )

    def teardown(self) -> None:
        for client in ("silo-0", "silo-1"):
            if client not in self.alive:
                self.a_client_joins(client, 10, 0.0)
        super().teardown()


class FedAsyncMachine(FederatedMachine):
    least = most = 7

    def make_scheduler(self, attempt: int) -> FedAsync:
        return FedAsync(attempt, steps=7, silence=SILENCE)


class FedBuffMachine(FederatedMachine):
    least = most = 7

    def make_scheduler(self, attempt: int) -> FedBuff:
        return FedBuff(attempt, steps=7, buffer=3, most_staleness=2, concurrency=2, silence=SILENCE)

    def check_training(self, assign: Assign) -> None:
        assert sum(other.kind == "train" for other in self.in_hand.values()) < 2


class FedATMachine(FederatedMachine):
    least = most = 7

    def make_scheduler(self, attempt: int) -> FedAT:
        return FedAT(attempt, steps=7, tiers=3, retier_rounds=2, profile_seconds=50.0, silence=SILENCE)


class FedQueueMachine(FederatedMachine):
    least, most = 5, 40

    def make_scheduler(self, attempt: int) -> FedQueue:
        return FedQueue(attempt, round_seconds=30.0, least_steps=5, most_steps=40, silence=SILENCE)


TestRoundsAnyOrder = RoundsMachine.TestCase
TestSampledRoundsAnyOrder = SampledRoundsMachine.TestCase
TestFedAsyncAnyOrder = FedAsyncMachine.TestCase
TestFedBuffAnyOrder = FedBuffMachine.TestCase
TestFedATAnyOrder = FedATMachine.TestCase
TestFedQueueAnyOrder = FedQueueMachine.TestCase
