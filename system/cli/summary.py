"""The summary for a person: which of its figures are shown, under which words, in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        label: what it is.
        template: a format string over the summary's keys. Without any of them there is no such line.
    """

    label: str
    template: str

    def text(self, summary: Mapping[str, Any]) -> str | None:
        """The line's right side, None where the summary lacks a key."""
        keys = [key for _, key, _, _ in Formatter().parse(self.template) if key]
        if any(summary.get(key) is None for key in keys):
            return None
        return self.template.format_map({key: _joined(value) for key, value in summary.items()})


def _joined(value: Any) -> Any:
    """Lists and mappings as a person reads them."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part:.3f}" for key, part in value.items() if isinstance(part, float))
    return ", ".join(map(str, value)) if isinstance(value, list) else value


ROWS = (
    Row("preset", "{preset}"),
    Row("federation", "{federation}"),
    Row("strategy", "{strategy}"),
    Row("clients", "{clients:,}"),
    Row("score", "{score:.3f}"),
    Row("  best", "{best_score:.3f}"),
    Row("  target reached", "after {target_seconds:.1f} s"),
    Row("never-seen words: return", "{final_never_seen_return:.3f}"),
    Row("never-seen words solved", "{final_never_seen_solved:.1%}"),
    Row("trained words: return", "{final_seen_return:.3f}"),
    Row("trained words solved", "{final_seen_solved:.1%}"),
    Row("never-seen words: return", "{never_seen_return:.3f}"),
    Row("  perfect filtering there", "{filter_return:.3f}"),
    Row(
        "  difference",
        "{never_seen_vs_filter:+.3f} (95 %: {never_seen_vs_filter_low:+.3f} to {never_seen_vs_filter_high:+.3f})",
    ),
    Row("  offline games' players there", "{data_policy_return:.3f}"),
    Row("  entropy search there", "{entropy_search_return:.3f}"),
    Row(
        "  difference",
        "{never_seen_vs_entropy_search:+.3f} (95 %: {never_seen_vs_entropy_search_low:+.3f} to "
        "{never_seen_vs_entropy_search_high:+.3f})",
    ),
    Row("never-seen words solved", "{never_seen_solved:.1%}"),
    Row("trained words: return", "{seen_return:.3f}"),
    Row("trained words solved", "{seen_solved:.1%}"),
    Row(
        "evaluation return",
        "{evaluation_return:.2f} (95 %: {evaluation_return_low:.2f} to {evaluation_return_high:.2f})",
    ),
    Row("evaluation episodes", "{evaluation_episodes:,}"),
    Row("games", "{games}"),
    Row("human-normalised", "{games_human_normalised}"),
    Row("no reference scores", "{games_without_reference}"),
    Row(
        "human-normalised",
        "{human_normalised:.3f} (95 %: {human_normalised_low:.3f} to {human_normalised_high:.3f})",
    ),
    Row(
        "  IQM over runs",
        "{human_normalised_iqm:.3f} (95 %: {human_normalised_iqm_low:.3f} to {human_normalised_iqm_high:.3f})",
    ),
    Row(
        "  mean",
        "{human_normalised_mean:.3f} (95 %: {human_normalised_mean_low:.3f} to {human_normalised_mean_high:.3f})",
    ),
    Row(
        "  median",
        "{human_normalised_median:.3f} (95 %: {human_normalised_median_low:.3f} to {human_normalised_median_high:.3f})",
    ),
    Row("updates of each run", "{checkpoint_updates}"),
    Row("updates", "{updates:,}"),
    Row("model versions", "{model_versions:,}"),
    Row("clients' updates", "{updates_applied:,} applied, {updates_dropped:,} dropped"),
    Row("local steps", "{local_steps:,}"),
    Row("staleness", "{mean_staleness:.2f} versions, mean"),
    Row("clients worked", "{utilisation:.1%} of the time"),
    Row("environment steps", "{env_steps:,}"),
    Row("values range, found", "{found_range}"),
    Row("targets clipped", "{targets_clipped:.1%}"),
    Row("training", "{train_seconds:.1f} s"),
    Row("federating", "{federation_seconds:.1f} s"),
    Row("in all", "{total_seconds:.1f} s"),
    Row("evaluating", "{evaluate_seconds:.1f} s"),
    Row("seeds", "{seeds}"),
    Row("callbacks left out", "{callbacks_left_out}"),
    Row("run directory", "{run_dir}"),
    Row("runs", "{runs}"),
)


def summary_table(summary: Mapping[str, Any]) -> Table:
    """What a person wants to know of ``summary.json``; folds on narrow terminals."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    for row in ROWS:
        if (text := row.text(summary)) is not None:
            table.add_row(row.label, text)
    return table
