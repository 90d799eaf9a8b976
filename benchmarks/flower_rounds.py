"""FedAvg rounds of Flower's simulation, one for each line on standard input: a subprocess of `federation.py`.

It is run by the Python of an environment that has Flower, which need not have Isogon. A round lasts from the strategy's
choice of nodes to its aggregated model: what Flower does before and after (evaluation, logs of results) is left out.
Clients answer at once, with the model that they were given.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from typing import Any

import flwr
import numpy as np
import ray
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    answer = ArrayRecord(numpy_ndarrays=message.content["arrays"].to_numpy_ndarrays())
    content = RecordDict({"arrays": answer, "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=message)


class OnDemand(FedAvg):
    """Rounds that wait for a line, and say in one how long they took."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if not sys.stdin.readline():
            sys.exit()
        self._begun = time.perf_counter()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        replies = list(replies)
        failed = [str(reply.error) for reply in replies if reply.has_error()]
        aggregated = super().aggregate_train(server_round, replies)
        seconds = time.perf_counter() - self._begun
        say({"seconds": seconds, "replies": len(replies), "failed": failed})
        return aggregated


def say(values: dict[str, Any]) -> None:
    """One line of JSON to whoever started this; Flower and Ray write to the same file, but no such lines."""
    os.write(_ANSWERS, json.dumps(values).encode() + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--nbytes", type=int, required=True, help="of the model, float32")
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    server_app = ServerApp()

    @server_app.main()
    def run(grid: Grid, context: Context) -> None:
        strategy = OnDemand(fraction_evaluate=0.0, min_train_nodes=options.clients, min_available_nodes=options.clients)
        model = ArrayRecord(numpy_ndarrays=np.array_split(np.zeros(options.nbytes // 4, np.float32), 4))
        say({"flwr": flwr.__version__, "ray": ray.__version__})
        strategy.start(grid=grid, initial_arrays=model, num_rounds=options.rounds)

    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=options.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0},
            # A CPU to an actor, and so an actor to a client.
            "init_args": {"num_cpus": options.clients, "include_dashboard": False, "log_to_driver": False},
        },
    )


if __name__ == "__main__":
    # Whatever prints, prints to standard error: standard output is for answers.
    _ANSWERS = os.dup(1)
    os.dup2(2, 1)
    main()
