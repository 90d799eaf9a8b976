"""What goes wrong in a federation is said in one line, counted, and goes no further; damage costs what it must."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isogon.actors.federation.client import Silo
from isogon.actors.pools.contract import PoolEvent, PoolExhausted
from isogon.actors.work import PolicyState, WorkResult
from isogon.schedulers.events import Arrived, Assign, Joined, Left, Token
from isogon.system.errors import ExitCode, explain
from isogon.system.federation.config import FederationConfig

from ..actors.regression import Regression
from .federations import STRATEGIES, Federation, check_ended, federation_config
from .moments import Moment, every_moment
from .timed_pool import Deeds, TimedPool

BUFFERED = federation_config(STRATEGIES["fedbuff"])


@pytest.fixture
def killed(quick_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Federation]:
    """A federation whose server was killed with an acknowledged update in the spool, and three checkpoints."""

    def make(config: FederationConfig = BUFFERED) -> Federation:
        first = Federation(quick_disk / "first", config)
        with every_moment(first.path, monkeypatch, first.deeds.copy) as moments:
            first.run()
        (*_, moment) = [moment for moment in moments if is_told(moment)]
        moment.restore(quick_disk / "killed")
        return Federation(quick_disk / "killed", config, deeds=moment.known.copy())

    return make


def is_told(moment: Moment[Deeds]) -> bool:
    """Whether version 3 is the newest on disk, and an update for the next waits in the spool and is acknowledged."""
    there = "checkpoints/1-3/manifest.json" in moment.files and "checkpoints/1-4" not in moment.files
    spooled = [content for name, content in moment.files.items() if name.endswith(".update")]
    tokens = [json.loads((content or b"").split(b"\n")[0][9:])["token"] for content in spooled]
    return there and bool(tokens) and set(tokens) <= set(moment.known.acknowledged)


def metric(federation: Federation, name: str) -> float:
    """Its newest value."""
    (*_, path) = sorted(federation.path.glob("attempts/*/metrics.jsonl"))
    return float(json.loads(path.read_text().splitlines()[-1])[name])


# What is damaged on disk.


def test_a_damaged_checkpoint_costs_what_was_applied_since_the_one_before(killed: Callable[..., Federation]) -> None:
    federation = killed()
    (federation.path / "checkpoints/1-3/server.safetensors").write_bytes(b"")
    spans = check_ended(federation, federation.run())
    assert "server.safetensors has 0 bytes" in federation.said.one("checkpoint 1-3 is passed over")
    assert "what happened since checkpoint 1-2 is lost" in federation.said.one("journal/1-2.jsonl is missing")
    assert federation.said.one("1 updates that had arrived since then are dropped")
    assert {span.version for token, span in spans.items() if token.startswith("1/")} == {1}


def test_a_missing_journal_is_said(killed: Callable[..., Federation]) -> None:
    federation = killed()
    (federation.path / "journal/1-3.jsonl").unlink()
    check_ended(federation, federation.run())
    assert federation.said.one("journal/1-3.jsonl is missing: what happened since checkpoint 1-3 is lost")


def test_a_damaged_journal_is_read_up_to_the_damage(killed: Callable[..., Federation]) -> None:
    federation = killed()
    path = federation.path / "journal/1-3.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert b"Arrived" in lines[1]
    lines[1] = lines[1].replace(b'"amount": 4', b'"amount": 5')
    path.write_bytes(b"".join(lines))
    spans = check_ended(federation, federation.run())
    assert federation.said.one("1-3.jsonl, line 2 cannot be read (it is not as it was written)")
    assert federation.said.one("1 updates that had arrived since then are dropped")
    assert "the run was taken up without it" in {span.reason.partition(": ")[2] for span in spans.values()}


def test_a_torn_line_costs_nothing(killed: Callable[..., Federation]) -> None:
    federation = killed()
    with (federation.path / "journal/1-3.jsonl").open("ab") as file:
        file.write(b'6b16740b {"event": "Jo')
    check_ended(federation, federation.run(), federation.deeds.acknowledged)
    assert federation.said.lines[0].startswith("took up checkpoint 1-3")


def test_a_damaged_update_costs_itself(killed: Callable[..., Federation]) -> None:
    federation = killed()
    (path,) = federation.path.glob("spool/*.update")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    outcome = federation.run()
    (path.with_name(f"{path.name}.damaged")).unlink()
    spans = check_ended(federation, outcome)
    assert federation.said.one(f"{path.name}.damaged in the spool is damaged")
    token = federation.said.one("is gone from the spool: it cannot be applied").split()[0]
    assert (spans[token].outcome, spans[token].reason) == ("dropped", "its result is gone")


def test_an_update_that_is_spoilt_while_it_waits_costs_itself(quick_disk: Path) -> None:
    spoilt: list[Path] = []

    class Spoiling(TimedPool):
        def acknowledge(self, token: Token) -> None:
            super().acknowledge(token)
            waiting = sorted(federation.path.glob("spool/*.update"))
            if waiting and not spoilt and len(self.deeds.acknowledged) > 2:
                spoilt.append(waiting[0])
                waiting[0].write_bytes(waiting[0].read_bytes()[:-3])

    federation = Federation(quick_disk / "run", BUFFERED, pool=Spoiling)
    spans = check_ended(federation, federation.run())
    assert spoilt
    assert "1 of 2 results of a commit are dropped" in federation.said.one("cannot be read: spool file")
    (reason,) = [s.reason for s in spans.values() if s.outcome == "dropped" and s.reason != "the run ends"]
    assert "is not as it was written" in reason
    assert any(span.version == 1 and span.outcome == "applied" for span in spans.values())


@pytest.mark.parametrize("strategy", ["fedcompass", "fedavg"])
def test_a_full_disk_ends_the_run_with_a_line_and_loses_nothing(
    strategy: str, quick_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = federation_config(STRATEGIES[strategy], budget={"versions": 2})
    flush, number, ended = 0, 0, 0

    def fsync(descriptor: int) -> None:
        nonlocal flush
        flush += 1
        if flush > number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", fsync)
    whole = 1_000
    # The directory, its config and its attempt take the first few.
    for number in range(12, whole, 3):
        flush = 0
        federation = Federation(quick_disk / str(number), config)
        try:
            federation.run()
        except OSError as error:
            ended += 1
            told = explain(error)
            assert told.code == ExitCode.DISK_FULL
            assert told.line.startswith(f"the disk is full, writing {federation.path}")
        else:
            break
        number = whole
        kept = list(federation.deeds.acknowledged)
        check_ended(federation, federation.run(), kept)
        shutil.rmtree(federation.path)
    assert ended > 10


# Clients that are not as they should be.


def tampering(spoil: Callable[[Assign, WorkResult], WorkResult]) -> Callable[..., TimedPool]:
    """A pool whose clients' answers are changed on the way."""

    class Pool(TimedPool):
        def answer(self, assign: Assign, state: PolicyState) -> WorkResult:
            return spoil(assign, super().answer(assign, state))

    return Pool


def with_weight(result: WorkResult, weight: np.ndarray) -> WorkResult:
    return replace(result, payload={**result.payload, "weight": weight})


BAD_WEIGHTS = {
    "nan": (np.array([1.0, np.nan, 1.0]), "update has a NaN or an infinity in 'weight': the training diverged"),
    "infinite": (np.array([1.0, -np.inf, 1.0]), "update has a NaN or an infinity in 'weight'"),
    "longer": (np.zeros(4), "update has 'weight' as float64 [4]: the model has it as float64 [3]"),
    "narrow": (np.zeros(3, np.float32), "update has 'weight' as float32 [3]"),
    "too large": (np.full(3, 1e6), "the update's norm is 1.732e+06: at most 1000 is taken (server.most_norm)"),
}


@pytest.mark.parametrize("what", BAD_WEIGHTS)
def test_a_client_that_sends_what_is_not_fit_gets_no_more_work(what: str, quick_disk: Path) -> None:
    weight, line = BAD_WEIGHTS[what]
    pool = tampering(lambda assign, result: with_weight(result, weight) if assign.worker == "b" else result)
    config = federation_config(server={"most_norm": 1000.0}, budget={"versions": 9})
    federation = Federation(quick_disk / "run", config, pool=pool)
    spans = check_ended(federation, federation.run())
    refused = [span for span in spans.values() if span.worker == "b"]
    assert [span.outcome for span in refused] == ["dropped"] * 3
    assert all(
        span.reason.startswith(("refused: ", "given up: b failed 3 times in a row, at last: refused: "))
        for span in refused
    )
    told = [text for text in federation.said.lines if f"is refused: {line}" in text]
    assert [text.split()[:2] for text in told] == [["b's", "train"]] * 3
    assert federation.said.one("is given up: b failed 3 times in a row")
    messages = (federation.path / "attempts/1/messages.txt").read_text()
    assert all(text in messages for text in told)
    dropped = sum(span.outcome == "dropped" for span in spans.values())
    assert metric(federation, "isogon_pool_results_dropped_total") == dropped >= 3


def test_figures_that_are_no_numbers_are_refused_and_those_that_say_nothing_left_out(quick_disk: Path) -> None:
    def spoil(assign: Assign, result: WorkResult) -> WorkResult:
        stats: dict[str, Any] = {"a": {"loss": float("nan")}, "b": {"loss": np.float32(1.5)}, "c": {"loss": "low"}}
        return replace(result, stats=stats[assign.worker])

    federation = Federation(quick_disk / "run", pool=tampering(spoil))
    spans = check_ended(federation, federation.run())
    outcomes = {name: {span.outcome for span in spans.values() if span.worker == name} for name in "abc"}
    assert "applied" in outcomes["a"]
    assert "applied" in outcomes["b"]
    assert outcomes["c"] == {"dropped"}
    assert all("are not numbers by name" in text for text in federation.said.lines if "c's train" in text)


def test_an_answer_of_another_kind_or_version_is_dropped(quick_disk: Path) -> None:
    def spoil(assign: Assign, result: WorkResult) -> WorkResult:
        if assign.worker == "a":
            return replace(result, kind="evaluate", payload={"score": np.zeros(1)})
        return replace(result, version=result.version + 1) if assign.worker == "b" else result

    federation = Federation(quick_disk / "run", pool=tampering(spoil))
    spans = check_ended(federation, federation.run())
    reasons = {name: {s.reason for s in spans.values() if s.worker == name} for name in "ab"}
    assert any("it is the answer to a piece of kind 'evaluate'" in reason for reason in reasons["a"])
    assert any(
        "4 steps from version 2 came of 8 from 1" in r or "steps from version 2 came of" in r for r in reasons["b"]
    )


class Answering(TimedPool):
    """Also holds answers that nobody asked for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        update = {"weight": np.full(3, 1e3), "seen": np.array(99)}
        for event in self.agenda:
            if isinstance(arrived := event[2], Arrived):
                token = arrived.token
                self.results[token] = WorkResult(token, "train", arrived.version, arrived.amount, 10, update, 0.1)


def answer(time: float, token: str) -> Arrived:
    name = Token.parse(token)
    return Arrived(time, name.worker, name, 1, 4, 10, 32, 0.1, 0.0)


def test_answers_that_nobody_waits_for_are_discarded_and_counted(quick_disk: Path) -> None:
    script: list[PoolEvent] = [
        answer(0.05, "1/nobody/0"),
        answer(0.06, "1/a/77"),
        Left(0.5, "c", "its node is gone"),
        Joined(2.0, "c", 12),
    ]
    config = federation_config(budget={"versions": 9})
    federation = Federation(quick_disk / "run", config, script=script, pool=Answering)
    spans = check_ended(federation, federation.run())
    assert federation.said.one("nobody answered 1/nobody/0, which has ended or never was: the answer is discarded")
    assert federation.said.one("a answered 1/a/77, which")
    # What c was at when it left comes all the same.
    assert federation.said.one("c is gone: its node is gone")
    assert federation.said.one("c answered 1/c/2, which has ended")
    assert spans["1/c/2"].reason == "client left: its node is gone"
    assert any(span.worker == "c" and span.outcome == "applied" for span in spans.values())
    discarded = [text for text in federation.said.lines if text.endswith("the answer is discarded")]
    assert metric(federation, "isogon_pool_results_late_total") == len(discarded) >= 3
    assert {"1/nobody/0", "1/a/77", "1/c/2"} <= set(federation.deeds.acknowledged)


def test_an_answer_that_comes_twice_counts_once(quick_disk: Path) -> None:
    class Twice(TimedPool):
        def events(self, timeout: float) -> list[PoolEvent]:
            return [event for event in super().events(timeout) for _ in range(1 + isinstance(event, Arrived))]

    federation = Federation(quick_disk / "run", BUFFERED, pool=Twice)
    spans = check_ended(federation, federation.run(), federation.deeds.acknowledged)
    assert any("twice: the second answer is discarded" in text for text in federation.said.lines)
    assert metric(federation, "isogon_pool_results_late_total") >= len(spans) - 3


def test_yesterdays_answer_is_discarded_after_a_resume(killed: Callable[..., Federation]) -> None:
    federation = killed()
    yesterday = federation.deeds.submitted[-1]
    federation.script, federation.pool = [answer(0.01, yesterday)], Answering
    kept = list(federation.deeds.acknowledged)
    spans = check_ended(federation, federation.run(), kept)
    assert federation.said.one(f"answered {yesterday}, which has ended")
    assert spans[yesterday].reason == "client left: the run was taken up without it"


def test_a_client_that_does_not_come_back_holds_nobody_up(killed: Callable[..., Federation]) -> None:
    class WithoutC(TimedPool):
        def __init__(self, makers: Any, *rest: Any) -> None:
            super().__init__({name: make for name, make in makers.items() if name != "c"}, *rest)

    federation = killed(federation_config(STRATEGIES["fedavg"]))
    federation.pool = WithoutC
    spans = check_ended(federation, federation.run(), federation.deeds.acknowledged)
    assert not any(token.startswith("2/c") for token in spans)


def test_a_clock_that_goes_back_stands_still(quick_disk: Path) -> None:
    class Earlier(TimedPool):
        def events(self, timeout: float) -> list[PoolEvent]:
            events = super().events(timeout)
            return [replace(event, time=event.time - 0.5) if 1 < event.time < 2 else event for event in events]

    federation = Federation(quick_disk / "run", pool=Earlier)
    spans = check_ended(federation, federation.run(), federation.deeds.acknowledged)
    told = [text for text in federation.said.lines if text.startswith("the clock went back by")]
    assert 1 <= len(told) <= 2
    times = [span.ended for span in spans.values()]
    assert times == [time for time in times if time >= 0]


# Strategies and rules that do not go together.


def test_a_robust_rule_with_too_few_updates_drops_them(quick_disk: Path) -> None:
    strategy = {"kind": "fedbuff", "steps": 4, "buffer": 3}
    config = federation_config(strategy, server={"average": {"kind": "median"}}, budget={"seconds": 0.6})
    federation = Federation(quick_disk / "run", config)
    outcome = federation.run()
    reasons = {span.reason for span in federation.spans().values() if span.outcome == "dropped"}
    assert any("Median needs at least 3" in reason for reason in reasons)
    assert "results of a commit are dropped: commit holds" in federation.said.one("Median needs at least 3")
    assert np.array_equal(outcome.model["weight"], np.zeros(3))
    assert not list(federation.path.glob("spool/*.update*"))


def test_everybody_fails_and_the_run_ends_with_a_line(quick_disk: Path) -> None:
    pool = tampering(lambda assign, result: with_weight(result, np.full(3, np.nan)))
    config = federation_config(ray={"start_timeout_seconds": 0.2})
    federation = Federation(quick_disk / "run", config, pool=pool)
    with pytest.raises(PoolExhausted, match="3 clients are there and none is given work: either they failed") as caught:
        federation.run()
    assert explain(caught.value).code == ExitCode.WORKERS_LOST


@dataclass(frozen=True)
class WithoutData(Regression):
    """A task of which one client has no data."""

    without: tuple[str, ...] = field(default=("b",))

    def make_client(self, silo: Silo) -> Any:
        if silo.name in self.without:
            raise ValueError(f"{silo.name} has no data: give it some, or leave it out")
        return super().make_client(silo)


def real_pool(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the pool that the config asks for."""
    from isogon.system.federation.builder import build_pool

    def make(*_: Any) -> Any:
        return build_pool(federation.config, federation.task, federation.clock.seconds)

    monkeypatch.setattr(federation, "_make_pool", make)


def test_a_client_without_data_is_left_out_with_its_reason(quick_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = federation_config(STRATEGIES["fedavg"], budget={"versions": 2})
    federation = Federation(quick_disk / "run", config, WithoutData())
    real_pool(federation, monkeypatch)
    outcome = federation.run()
    assert outcome.standing.version == 3
    assert federation.said.one("b is gone: failed to start: ValueError: b has no data: give it some, or leave it out")
    assert outcome.totals.clients.keys() == {"a", "c"}


def test_no_client_with_data_ends_the_run(quick_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation(quick_disk / "run", task=WithoutData(without=("a", "b", "c")))
    real_pool(federation, monkeypatch)
    with pytest.raises(PoolExhausted, match="a failed to start: ValueError: a has no data"):
        federation.run()
