"""What a report is made of, each part against a slow reading: curves, charts, groups, games, results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.actors.environments.wordle import build_vocabulary, load_words, split_words
from isogon.actors.environments.wordle.misses import misses_of_return
from isogon.actors.environments.wordle.patterns import COLOURS
from isogon.learners.learner import GREEDY
from isogon.learners.policy import QPolicy, build_policy
from isogon.learners.randomness import stream
from isogon.system.builder import build_spec
from isogon.system.config.files import load_config
from isogon.system.config.run import RunConfig
from isogon.system.reports.curves import Curve, Spread, curve_of, held_at, number, spread_of
from isogon.system.reports.games import Belief, Game, Node, Turn, choose_answers, guess_tree, play_games
from isogon.system.reports.groups import by_task, flatten, group_runs
from isogon.system.reports.picture import draw_curves
from isogon.system.reports.results import Result, sentence, tables
from isogon.system.reports.run_data import RunData
from isogon.system.reports.svg import Series, line_chart, share_bar, ticks
from isogon.system.reports.thoughts import solving_guess, thoughts_of

WORDS = load_words()[::20]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    file = tmp_path / "words.txt"
    file.write_text("\n".join(WORDS) + "\n")
    return load_config("wordle", [f"environment.word_list={file}", "network.hidden=16", "network.channels=2"])


def policy_of(config: RunConfig) -> QPolicy:
    return build_policy(config.network, config.value, build_spec(config), 8)


def run_data(config: RunConfig, name: str = "run", summary: Mapping[str, Any] | None = None) -> RunData:
    state: Any = "done" if summary is not None else "stopped"
    return RunData(Path(name), config.model_dump(mode="json"), config, [], summary, state, [])


# Curves.


def test_a_curve_has_the_rows_that_have_it() -> None:
    rows: list[dict[str, Any]] = [
        {"seconds": 1},
        {"seconds": 2, "x": 5},
        {"x": 6},
        {"seconds": 4, "x": None},
        {"seconds": 5, "x": 7.5},
    ]
    curve = curve_of(rows, "x")
    assert curve is not None
    assert curve.seconds.tolist() == [2, 5]
    assert curve.value.tolist() == [5, 7.5]
    assert curve_of(rows, "y") is None


@pytest.mark.parametrize("value", [None, "3", True, math.nan, math.inf, [1]])
def test_what_is_no_number_is_none(value: Any) -> None:
    assert number({"x": value}, "x") is None
    assert number({}, "x") is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-5, 5)), min_size=1, max_size=8), st.lists(st.floats(-1, 120)))
def test_the_newest_value_holds(points: list[tuple[float, float]], times: list[float]) -> None:
    points.sort(key=lambda point: point[0])
    curve = Curve(*np.array(points, np.float64).T)
    for time, value in zip(times, held_at(curve, np.array(times, np.float64)), strict=True):
        before = [v for t, v in points if t <= time]
        if not before or time > points[-1][0]:
            assert math.isnan(value)
        else:
            assert value == before[-1]


def test_the_spread_over_runs() -> None:
    one = Curve(np.array([0.0, 5.0, 10.0]), np.array([1.0, 2.0, 2.0]))
    other = Curve(np.array([0.0, 10.0]), np.array([3.0, 6.0]))
    spread = spread_of([one, other], points=11)
    assert spread is not None
    assert spread.seconds.tolist() == list(range(11))
    assert spread.mean.tolist() == [2.0] * 5 + [2.5] * 5 + [4.0]
    assert spread.low.tolist() == [1.0] * 5 + [2.0] * 6
    assert spread.high.tolist() == [3.0] * 10 + [6.0]
    assert spread_of([]) is None


def test_a_short_run_does_not_cut_the_long_one() -> None:
    long = Curve(np.array([0.0, 100.0]), np.array([1.0, 1.0]))
    short = Curve(np.array([0.0, 10.0]), np.array([3.0, 3.0]))
    spread = spread_of([long, short], points=101)
    assert spread is not None
    assert spread.seconds[-1] == 100
    assert spread.mean.tolist() == [2.0] * 11 + [1.0] * 90
    alike = spread_of([long, Curve(np.array([0.0, 96.0]), np.array([3.0, 3.0]))])
    assert alike is not None
    assert (alike.seconds[-1], set(alike.mean)) == (96, {2.0})


# Charts.


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_within(low: float, width: float) -> None:
    high = low + width
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 7
    steps = np.diff(marks)
    assert np.allclose(steps, steps[0])
    digits = f"{steps[0]:.0e}"[0]
    assert digits in "125"
    assert low - 1e-6 * width <= marks[0] <= marks[-1] <= high + 1e-6 * width


def points_of(chart: str, kind: str) -> list[list[tuple[float, float]]]:
    elements = [element for element in ElementTree.fromstring(chart).iter() if element.tag == kind]
    return [[tuple(map(float, pair.split(","))) for pair in e.attrib["points"].split()] for e in elements]  # type: ignore[misc]


def test_a_line_chart_draws_the_numbers() -> None:
    seconds, mean = np.array([0.0, 50.0, 100.0]), np.array([-4.0, -3.0, -2.0])
    spread = Spread(seconds, mean, mean - 0.5, mean + 0.5, 3)
    chart = line_chart([Series("<a>", spread, 0)], title="T & t", x_label="seconds", mark=(50.0, "here"))
    ((first, middle, last),) = points_of(chart, "polyline")
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2), abs=0.02)
    assert first[1] > last[1], "larger values must stand higher"
    (band,) = points_of(chart, "polygon")
    assert len(band) == 6
    texts = [element.text for element in ElementTree.fromstring(chart).iter("text")]
    assert {"−4", "−3", "−2", "0", "20", "100", "seconds", "here"} <= {text for text in texts if text}
    assert ElementTree.fromstring(chart).attrib["aria-label"] == "T & t"


def test_a_flat_line_and_a_single_point_can_be_drawn() -> None:
    for seconds in (np.array([0.0]), np.array([0.0, 1.0])):
        flat = np.full(len(seconds), 500.0)
        chart = line_chart([Series("a", Spread(seconds, flat, flat, flat, 1), 0)], title="", x_label="")
        (line,) = points_of(chart, "polyline")
        assert len(line) == len(seconds)
        assert len({y for _, y in line}) == 1
        *_, width, height = map(float, ElementTree.fromstring(chart).attrib["viewBox"].split())
        assert all(0 < x < width and 0 < y < height for x, y in line)
        # The axis has room above and below the line.
        texts = [element.text or "" for element in ElementTree.fromstring(chart).iter("text")]
        assert len({text for text in texts if text.isdigit()}) >= 3


def test_a_bar_is_cut_by_share() -> None:
    bar = ElementTree.fromstring(share_bar([(0, "a", 0.25), (1, "b", 0.75)], title="t"))
    widths = [float(element.attrib["width"]) for element in bar.iter("rect")]
    assert widths == [90.0, 270.0]


# Groups.


def test_runs_that_differ_in_what_may_differ_are_one_group(config: RunConfig) -> None:
    one = run_data(config, "a")
    other = run_data(config.model_copy(update={"seed": 3, "torch_threads": 2}), "b")
    bins = run_data(config.model_copy(update={"value": config.value.model_copy(update={"bins": 7})}), "c")
    pole = run_data(load_config("cartpole"), "d")
    groups = group_runs([one, bins, other, pole])
    assert [[run.name for run in group.runs] for group in groups] == [["a", "b"], ["c"], ["d"]]
    assert [group.label for group in groups] == ["wordle, value.bins 31", "wordle, value.bins 7", "cartpole"]
    assert [[group.label for group in task] for task in by_task(groups)] == [
        ["wordle, value.bins 31", "wordle, value.bins 7"],
        ["cartpole"],
    ]
    assert [group.style for group in groups] == [0, 1, 0]


def test_a_config_of_another_version_is_a_group_of_its_own(config: RunConfig) -> None:
    known = run_data(config, "a")
    foreign = RunData(Path("b"), {"name": "wordle", "warp": {"factor": 9}}, None, [], None, "stopped", [])
    assert [group.label for group in group_runs([known])] == ["wordle"]
    assert len(group_runs([known, foreign])) == 2


def test_flatten_is_what_set_takes(config: RunConfig) -> None:
    flat = flatten(config.model_dump(mode="json"))
    assert flat["value.bins"] == 31
    assert flat["environment.word_list"] == config.environment.model_dump()["word_list"]


# Games.


def test_games_are_those_that_the_policy_plays(config: RunConfig) -> None:
    """Against a slow reading: one board at a time, asked as a worker asks it."""
    from isogon.actors.environments.wordle import WordleEnvironment

    assert config.environment.kind == "wordle"
    vocabulary = build_vocabulary(load_words(config.environment.word_list))
    policy = policy_of(config)
    answers = choose_answers(split_words(vocabulary.words, config.environment), config.environment, 5)
    assert set(answers) <= set(split_words(vocabulary.words, config.environment).never_seen)
    for answer, game in zip(answers, play_games(policy, vocabulary, answers), strict=True):
        environment = WordleEnvironment(vocabulary, np.array([answer]))
        observation = environment.reset(stream(0, "slow"))
        possible = list(range(len(vocabulary)))
        for turn in game.turns:
            legal = environment.legal()
            (action,) = policy.act(observation, legal, GREEDY, stream(0, "slow"))
            hidden = policy.module.torso({name: torch.from_numpy(part) for name, part in observation.items()})
            values = policy.module.head.values(hidden)[0].detach().numpy()
            assert turn.guess == vocabulary.words[action]
            assert turn.value == pytest.approx(float(values[action]), abs=1e-5)
            assert turn.possible == len(possible)
            assert turn.belief is not None
            assert turn.belief.probabilities.sum() == pytest.approx(1, abs=1e-5)
            centres = (turn.belief.edges[:-1] + turn.belief.edges[1:]) / 2
            assert turn.belief.probabilities @ centres == pytest.approx(turn.value, abs=1e-4)
            assert all(value <= turn.value + 1e-6 and word != turn.guess for word, value in turn.others)
            pattern = vocabulary.patterns[action, answer]
            assert turn.colours == tuple(COLOURS[pattern])
            possible = [word for word in possible if vocabulary.patterns[action, word] == pattern]
            step = environment.step(np.array([action], np.int64))
            observation = step.observation
        assert step.terminated.all()
        assert game.answer == vocabulary.words[answer]
        assert game.solved == (game.turns[-1].guess == game.answer)


def test_a_head_without_distributions_gives_none(config: RunConfig) -> None:
    file = config.environment.model_dump()["word_list"]
    plain = load_config("wordle", [f"environment.word_list={file}", "network.hidden=16", "value.kind=mse"])
    vocabulary = build_vocabulary(WORDS)
    game = play_games(policy_of(plain), vocabulary, np.array([3]))[0]
    assert all(turn.belief is None for turn in game.turns)
    assert all(moment.image is None for moment in thoughts_of(game, 1.0).moments)


def turn(guess: str, *colours: int) -> Turn:
    return Turn(guess, colours, -1.5, None, (), 10)


def test_games_share_a_branch_while_they_agree() -> None:
    games = [
        Game("relay", (turn("slant", 0, 1, 1, 0, 0), turn("relax", 2, 2, 2, 2, 0), turn("relay", 2, 2, 2, 2, 2))),
        Game("relax", (turn("slant", 0, 1, 1, 0, 0), turn("relax", 2, 2, 2, 2, 2))),
        Game("salty", (turn("slant", 2, 1, 1, 0, 1), turn("salty", 2, 2, 2, 2, 2))),
    ]
    tree = guess_tree(games)
    assert tree is not None

    def leaves(node: Node, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        found = []
        for branch in node.branches:
            if branch.then is None:
                found.append((branch.answers, (*path, node.guess)))
            else:
                found += leaves(branch.then, (*path, node.guess))
        return found

    assert len(tree.branches) == 2
    assert tree.branches[0].answers == ("relay", "relax")
    assert sorted(leaves(tree)) == sorted(((game.answer,), tuple(t.guess for t in game.turns)) for game in games)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(2, 60), st.randoms(use_true_random=False))
def test_a_belief_keeps_its_mass_on_the_axis(count: int, bins: int, random: Any) -> None:
    weights = np.array([random.random() + 1e-6 for _ in range(bins)])
    belief = Belief(np.linspace(-6, 0, bins + 1), weights / weights.sum())
    bars = solving_guess(belief, count, 1.0)
    assert sum(probability for *_, probability in bars) == pytest.approx(1)
    assert all(0.5 <= left <= right <= 7.5 for left, right, _ in bars)
    assert all(one[1] <= other[0] + 1e-9 for one, other in pairwise(bars))


def test_the_solving_guess_of_a_certain_belief() -> None:
    certain = np.zeros(12)
    certain[-3] = 1.0  # The bin from -1.5 to -1: one more guess before the solving one.
    ((left, right),) = [
        (left, right) for left, right, p in solving_guess(Belief(np.linspace(-6, 0, 13), certain), 2, 1.0) if p
    ]
    assert (left, right) == pytest.approx((4.0, 4.5))


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.9, 1.0])
def test_misses_of_a_discounted_return(discount: float) -> None:
    for misses in range(1 if discount == 0 else 6):
        value = -sum(discount**k for k in range(misses))
        assert misses_of_return(value, discount) == pytest.approx(misses)
    rising = misses_of_return(np.linspace(0.5, -20, 50), discount)
    assert np.isfinite(rising).all()
    assert (np.diff(rising) >= 0).all()


@pytest.mark.parametrize("discount", [0.5, 0.9, 1.0])
def test_the_axis_holds_under_any_discount(discount: float) -> None:
    """A belief that is sure of one more miss after two guesses: solved with the fourth, whatever a miss is worth."""
    value = -1.0
    edges = np.array([value - 0.01, value + 0.01, value + 0.02])
    belief = Belief(edges, np.array([1.0, 0.0]))
    (left, right, share), *_ = [bar for bar in solving_guess(belief, 2, discount) if bar[2]]
    assert share == 1
    assert left < 4 < right
    played = turn("crane", 0, 0, 0, 0, 0)
    game = Game("slate", (played, played, replace(played, value=value, belief=belief)))
    assert thoughts_of(game, discount).moments[2].expected == pytest.approx(4, abs=1e-3)


# Results.

WORDLE_SUMMARY = {
    "never_seen_return": -2.5,
    "never_seen_vs_filter": 0.1,
    "never_seen_vs_filter_low": -0.05,
    "never_seen_vs_filter_high": 0.25,
    "never_seen_solved": 0.98,
    "entropy_search_return": -2.4,
}


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.05, 0.25, "better than"), (-0.25, -0.05, "worse than"), (-0.05, 0.25, "no different, as far as can be told")],
)
def test_a_tie_is_called_a_tie(config: RunConfig, low: float, high: float, words: str) -> None:
    summary = WORDLE_SUMMARY | {"never_seen_vs_filter_low": low, "never_seen_vs_filter_high": high}
    (group,) = group_runs([run_data(config, summary=summary)])
    told = sentence([Result(group, summary)])
    assert words in told
    assert told.startswith("Solves 98.0% ")
    assert "−2.500" in told


def test_a_summary_that_lacks_figures_leaves_dashes(config: RunConfig) -> None:
    (group,) = group_runs([run_data(config, summary={"never_seen_return": "nonsense"})])
    (table,) = tables([Result(group, group.runs[0].summary)])
    assert [row.cells[1:] for row in table.rows] == [("–",) * 7]


# The curves as a picture.


def run_with(config: RunConfig, returns: list[float], name: str = "run") -> RunData:
    rows = [
        {"step": k, "seconds": 10.0 * k, "isogon_evaluation_return": value} for k, value in enumerate(returns, start=1)
    ]
    return RunData(Path(name), config.model_dump(mode="json"), config, rows, None, "stopped", [])


def test_the_picture_of_curves_has_runs_and_rivals(config: RunConfig) -> None:
    other = config.model_copy(update={"seed": 1})
    runs = [run_with(config, [-5.0, -4.0, -3.0]), run_with(other, [-5.0, -3.0, -2.0])]
    picture = ElementTree.fromstring(draw_curves(runs, {"<rival>": -2.5}))
    texts = ["".join(element.itertext()) for element in picture.iter() if element.tag.endswith("}text")]
    assert "wordle: mean of 2 seeds, and the range of them" in texts
    assert "<rival> −2.50" in texts
    (line,) = [element for element in picture.iter() if element.tag.endswith("}polyline")]
    places = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    (level,) = [e for e in picture.iter() if e.attrib.get("class") == "mark"]
    # Both end at the mean -2.5, which is the rival's return; a higher place is a smaller number.
    assert places[-1] == pytest.approx(float(level.attrib["y1"]), abs=0.01)
    assert places[0] > places[-1]
    assert not [e for e in picture.iter() if "href" in str(e.attrib)]
    assert "prefers-color-scheme: dark" in draw_curves(runs, {})


def test_curves_that_do_not_compare_are_refused(config: RunConfig) -> None:
    pole = load_config("cartpole")
    with pytest.raises(ValueError, match="play Wordle and CartPole-v1"):
        draw_curves([run_with(config, [-3.0]), run_with(pole, [9.0])], {})
    with pytest.raises(ValueError, match="no run has been evaluated"):
        draw_curves([run_with(config, [])], {})
