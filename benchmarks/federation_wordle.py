"""Four unequal Wordle clients on Ray: each alone, and together by four strategies, at equal wall time.

``python benchmarks/federation_wordle.py`` runs ``isogon federate run --preset wordle-silos`` for each of them and each
seed, a few at a time (a client sleeps most of its time: the preset emulates slow machines), and prints a table. The
last line is JSON. It takes seven minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

STEPS = 20
"""Local steps of a piece of work where the strategy gives all clients the same."""

CLIENTS = ("fast", "middle", "slow", "slowest")
ARMS: dict[str, tuple[str, ...]] = {
    **{
        f"{name} alone": (f"participants=[{name}]", "least_clients=1") for name in ("fast", "middle", "slow", "slowest")
    },
    "FedAvg": ("strategy.kind=fedavg", f"strategy.steps={STEPS}"),
    "FedAsync": ("strategy.kind=fedasync", f"strategy.steps={STEPS}"),
    "FedBuff": ("strategy.kind=fedbuff", f"strategy.steps={STEPS}"),
    "FedCompass": (),
}


def run(folder: Path, arm: str, seed: int, changes: tuple[str, ...]) -> dict[str, Any]:
    """One run's summary; what is there already is not run again."""
    directory = folder / f"{arm.replace(' ', '-')}-{seed}"
    summary = directory / "summary.json"
    if not summary.is_file():
        command = [sys.executable, "-m", "isogon", "federate", "run", "--preset", "wordle-silos", "--seed", str(seed)]
        for change in changes:
            command += ["--set", change]
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        with (folder / f"{directory.name}.log").open("w") as log:
            subprocess.run([*command, "--run-dir", str(directory)], check=True, env=environment, stdout=log, stderr=log)
    content: dict[str, Any] = json.loads(summary.read_bytes())
    content["late_score"] = late_score(directory)
    told = f"validation {content['late_score']:.3f}, never-seen words {content['final_never_seen_return']:.3f}"
    print(f"{arm}, seed {seed}: {told}", flush=True)
    return content


def late_score(directory: Path) -> float:
    """The mean validation return over the last third of the run: single evaluations jump by 0.2."""
    rows = [json.loads(line) for line in (directory / "attempts" / "1" / "metrics.jsonl").read_text().splitlines()]
    scores = [(row["evaluated_at"], row["evaluation"]["score"]) for row in rows if "evaluation" in row]
    return float(mean(score for at, score in scores if at >= scores[-1][0] * 2 / 3))


def spread(values: list[float], digits: int = 2) -> str:
    """A mean with the least and the largest."""
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The rows of a table in Markdown."""
    lines = [
        "| | validation, last third | never-seen words | solved | clients' words | local steps | staleness | busy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, runs in results.items():
        cells = [
            arm,
            spread([one["late_score"] for one in runs]),
            spread([one["final_never_seen_return"] for one in runs]),
            f"{mean([one['final_never_seen_solved'] for one in runs]):.0%}",
            spread([one["final_seen_return"] for one in runs]),
            f"{mean([one['local_steps'] for one in runs]):,.0f}",
            f"{mean([one['mean_staleness'] for one in runs]):.1f}",
            f"{mean([one['utilisation'] for one in runs]):.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/federation-wordle"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=3)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    # Seeds are the outer loop, and each begins with another arm, so that none always runs beside the same ones.
    arms = list(ARMS.items())
    orders = [arms[3 * seed % len(arms) :] + arms[: 3 * seed % len(arms)] for seed in range(arguments.seeds)]
    work = [(arm, seed, changes) for seed, order in enumerate(orders) for arm, changes in order]
    with ThreadPoolExecutor(arguments.jobs) as executor:
        done = executor.map(lambda one: (one[0], run(arguments.folder, *one)), work)
        for arm, summary in done:
            results[arm].append(summary)
    for line in table(results):
        print(line)
    figures = {arm: round(mean([one["late_score"] for one in runs]), 3) for arm, runs in results.items()}
    print(json.dumps({"benchmark": "federation_wordle", "seeds": arguments.seeds, "validation_last_third": figures}))


if __name__ == "__main__":
    main()
