from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def harness() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("benchmark_harness", BENCHMARKS / "harness.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class FakeTime:
    """A clock that only the competitors move, and the order in which they did."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def work(self, name: str, *seconds: float) -> Callable[[], None]:
        """A call that takes the given seconds, one after the other, then the last for ever."""
        left = list(seconds)

        def run() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_minimum_median_and_ratio_are_exact(harness: ModuleType) -> None:
    time = FakeTime()
    competitors = {
        # Three calls of warm-up, the third to see how long one takes, then four samples.
        "steady": harness.Competitor(time.work("steady", 9.0, 9.0, 2.0), items=4, also={"game": 6}),
        "uneven": harness.Competitor(time.work("uneven", 9.0, 9.0, 9.0, 3.0, 1.0, 5.0, 4.0)),
    }
    benchmark = harness.Benchmark("made_up", "thing", "steady", competitors)
    timings = harness.measure(benchmark, rounds=4, warmup=2, sample_seconds=1.0, clock=lambda: time.now)
    assert timings["steady"] == harness.Timing(0.5, 0.5, 4, 1)
    assert timings["uneven"] == harness.Timing(1.0, 3.5, 4, 1)
    rows = harness.summarise(benchmark, timings)["competitors"]
    assert (rows["steady"]["ratio_minimum"], rows["steady"]["ratio_median"]) == (1, 1)
    assert (rows["uneven"]["ratio_minimum"], rows["uneven"]["ratio_median"]) == (2, 7)
    assert (rows["steady"]["items_per_second"], rows["steady"]["games_per_second"]) == (2, 3)


def test_competitors_take_turns_at_being_first(harness: ModuleType) -> None:
    time = FakeTime()
    competitors = {name: harness.Competitor(time.work(name, 1.0)) for name in "abc"}
    harness.measure(
        harness.Benchmark("made_up", "thing", "a", competitors),
        rounds=4,
        warmup=1,
        sample_seconds=1.0,
        clock=lambda: time.now,
    )
    assert "".join(time.calls) == "aabbcc" + "abc" + "bca" + "cab" + "abc"


def test_short_calls_are_repeated_until_a_sample_is_long_enough(harness: ModuleType) -> None:
    time = FakeTime()
    benchmark = harness.Benchmark("made_up", "thing", "a", {"a": harness.Competitor(time.work("a", 0.25))})
    timing = harness.measure(benchmark, rounds=3, warmup=0, sample_seconds=100.0, clock=lambda: time.now)["a"]
    assert 400 <= timing.calls_per_sample <= 480
    assert (timing.minimum, timing.median) == (0.25, 0.25)


def test_what_cannot_be_measured_is_refused(harness: ModuleType) -> None:
    one = {"a": harness.Competitor(lambda: None)}
    with pytest.raises(ValueError, match="baseline 'b' is not a competitor: choose of a"):
        harness.Benchmark("made_up", "thing", "b", one)
    with pytest.raises(ValueError, match="competitor 'a' does 0 items a call"):
        harness.Benchmark("made_up", "thing", "a", {"a": harness.Competitor(lambda: None, 0)})
    with pytest.raises(ValueError, match="rounds is 0"):
        harness.measure(harness.Benchmark("made_up", "thing", "a", one), rounds=0)


def test_commit_and_whether_the_tree_differs(harness: ModuleType, tmp_path: Path) -> None:
    assert harness.describe_commit(tmp_path) == {"commit": None, "dirty": None}

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    assert harness.describe_commit(tmp_path) == {"commit": None, "dirty": False}
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    commit = git("rev-parse", "HEAD")
    assert harness.describe_commit(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "file").touch()
    assert harness.describe_commit(tmp_path) == {"commit": commit, "dirty": True}


def test_a_whole_benchmark_ends_in_one_json_object_and_records_it(tmp_path: Path) -> None:
    script = [sys.executable, str(BENCHMARKS / "bench_wordle_environment.py")]
    options = ["--rounds", "1", "--warmup", "0", "--sample-seconds", "0.001", "--record", "--results", str(tmp_path)]
    done = subprocess.run(script + options, capture_output=True, text=True, check=True)
    line = done.stdout.splitlines()[-1]
    summary = json.loads(line)
    assert {"benchmark", "date", "commit", "dirty", "machine", "versions", "baseline", "competitors"} <= summary.keys()
    assert summary["competitors"]["bare look-up"]["ratio_median"] == 1
    assert summary["competitors"]["environment step"]["ratio_median"] > 1
    assert summary["machine"]["cores"] >= 1
    assert "numpy" in summary["versions"]
    assert summary["competitors"]["mixture player, whole games"]["games_per_second"] > 1000
    assert "bare look-up (baseline)" in done.stdout
    assert (tmp_path / "wordle_environment.jsonl").read_text() == line + "\n"
    subprocess.run(script + options, capture_output=True, check=True)
    assert len((tmp_path / "wordle_environment.jsonl").read_text().splitlines()) == 2
