"""A federated client as a pool's worker: what it is given, what is checked of its answer, what crosses the link."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping

import numpy as np

from ...learners.learner import AverageKind
from ...learners.randomness import stream
from ...schedulers.events import Assign
from ..work import PolicyState, Scores, Update, WorkResult
from .client import FederatedClient, FederatedTask, LocalWork, Model, Silo
from .throttle import Throttle


class ClientWorker:
    """Does ``train`` and ``evaluate`` with one client of a task, one piece at a time.

    Everything random in a piece comes from the stream that seed, client and sequence number name, so that a client
    without a memory of its own answers alike wherever and whenever it is asked.

    Args:
        task: makes the client, and says how its tensors are averaged.
        silo: which client it is.
        throttle: slows its training down.

    Raises:
        ValueError: the client has no samples.
    """

    def __init__(self, task: FederatedTask, silo: Silo, *, throttle: Throttle | None = None) -> None:
        self._task = task
        self._silo = silo
        self._kinds = task.kinds()
        self._throttle = throttle
        self._client = self._make_client()

    @property
    def samples(self) -> int:
        """Size of the client's data set."""
        return self._client.samples

    def run(self, assign: Assign, state: PolicyState) -> WorkResult:
        """Train from these weights, or say how good they are.

        Raises:
            ValueError: the weights are of another version than the work asks for, the kind is ``rollout``, or the
                client's answer does not fit the global model.
        """
        started = time.perf_counter()
        if assign.version != state.version:
            raise ValueError(f"{assign.token} asks for version {assign.version}, and the weights are {state.version}'s")
        payload: Update | Scores
        if assign.kind == "train":
            payload, amount, stats = self._train(assign, state.tensors)
        elif assign.kind == "evaluate":
            payload, amount, stats = self._evaluate(assign, state.tensors), assign.amount, {}
        else:
            raise ValueError(f"{assign.token} is of kind {assign.kind!r}: a client does 'train' and 'evaluate'")
        return WorkResult(
            token=assign.token,
            kind=assign.kind,
            version=assign.version,
            amount=amount,
            samples=self._client.samples,
            payload=payload,
            compute_seconds=time.perf_counter() - started,
            stats=stats,
        )

    def reset(self) -> None:
        """Make the client anew: what it kept between assignments is gone."""
        self._client.close()
        self._client = self._make_client()

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def _make_client(self) -> FederatedClient:
        client = self._task.make_client(self._silo)
        if client.samples < 1:
            raise ValueError(f"{self._silo.name} has {client.samples} samples: a client needs at least 1")
        return client

    def _train(self, assign: Assign, model: Model) -> tuple[Update, int, dict[str, float]]:
        after_step: Callable[[], None] = lambda: None  # noqa: E731
        if self._throttle is not None:
            self._throttle.begin()
            after_step = self._throttle.after_step
        work = LocalWork(
            steps=assign.amount,
            version=assign.version,
            generator=self._stream(assign),
            rate_scale=assign.rate_scale,
            after_step=after_step,
        )
        local = self._client.train(model, work)
        # Own code may count with numpy's integers, which are no JSON.
        steps = operator.index(local.steps)
        if steps < 1:
            raise ValueError(f"{self._silo.name} answered with {steps} steps: at least 1 of {assign.amount}")
        return make_update(self._silo.name, model, local.tensors, self._kinds), steps, dict(local.stats)

    def _evaluate(self, assign: Assign, model: Model) -> Scores:
        scores = self._client.evaluate(model, assign.amount, self._stream(assign))
        if "score" not in scores:
            raise ValueError(f"{self._silo.name} evaluated {', '.join(scores) or 'nothing'}: 'score' is missing")
        return {name: np.array([value], np.float64) for name, value in scores.items()}

    def _stream(self, assign: Assign) -> np.random.Generator:
        return stream(self._silo.seed, "client", self._silo.index, assign.token.sequence)


def make_update(client: str, start: Model, local: Model, kinds: Mapping[str, AverageKind]) -> Update:
    """What a client's training came to, as it crosses the link.

    Args:
        client: its name, for the messages.
        start: the global model that it began from.
        local: its model now.
        kinds: how each tensor of the model is averaged.

    Returns:
        For a ``mean`` tensor ``local - start``, for any other a copy of the local value; in the order of ``start``.

    Raises:
        ValueError: a tensor is missing, unknown, or of another shape or dtype than the global model's.
    """
    for what, names in (("the task's kinds are of", kinds), (f"{client} answered with", local)):
        if names.keys() != start.keys():
            raise ValueError(
                f"{what} tensors {', '.join(sorted(names)) or '(none)'}: "
                f"the global model has {', '.join(sorted(start)) or '(none)'}"
            )
    for name, begun in start.items():
        for what, got, expected in (
            ("shape", local[name].shape, begun.shape),
            ("dtype", local[name].dtype, begun.dtype),
        ):
            if got != expected:
                raise ValueError(f"{client} answered with {name} of {what} {got}: the global model's is {expected}")
    # A value is copied, for the client may go on writing into its own.
    return {
        name: np.asarray(local[name] - begun) if kinds[name] == "mean" else np.array(local[name])
        for name, begun in start.items()
    }
