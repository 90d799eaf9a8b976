"""Videos of episodes: what is drawn is what was played and thought."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isogon import load_config, train
from isogon.learners.policy import build_policy
from isogon.system.api import evaluate, report
from isogon.system.builder import build_spec
from isogon.system.config.run import RunConfig
from isogon.system.episode import Episode, Shot, play_to_show
from isogon.system.reports.video import axis_of, draw_shot, encode_video

EDGES = np.linspace(-2, 2, 9)


def shot(step: int, likely: int | None, value: float, colour: int = 200) -> Shot:
    probabilities = None
    if likely is not None:
        probabilities = np.full(8, 0.001)
        probabilities[likely] = 0.993
    return Shot(np.full((20, 10, 3), colour, np.uint8), probabilities, value, 1, 0.5, 0.5 * (step + 1), step)


def episode(*shots: Shot, edges: np.ndarray | None = EDGES) -> Episode:
    return Episode("a game", shots, 1, 0.1, edges, len(shots), shots[-1].total)


def bar_columns(picture: Image.Image) -> tuple[int, int]:
    """The columns at right that are full of the bars' blue just above the floor."""
    row = np.asarray(picture)[290, 280:]
    blue = np.flatnonzero((row == (110, 160, 230)).all(axis=1))
    return int(blue[0]), int(blue[-1])


def test_bars_stand_where_the_probability_is() -> None:
    told = episode(shot(0, 1, -1.25), shot(1, 6, 1.25))
    assert axis_of(told) == (-1.5, 1.5)
    first, second = (bar_columns(draw_shot(told, each)) for each in told.shots)
    # The second bin is the axis' first sixth, the seventh its last; the axis goes from column 16 to 344.
    assert first == pytest.approx((16, 16 + 328 / 6), abs=2)
    assert second == pytest.approx((16 + 328 * 5 / 6, 344), abs=2)


def test_the_screen_is_at_left_and_keeps_its_shape() -> None:
    picture = np.asarray(draw_shot(episode(shot(0, 1, 0.0)), shot(0, 1, 0.0)))
    lit = (picture[:, :280] == 200).all(axis=2)
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    assert (len(rows), len(columns)) == (336, 168)


def test_plain_numbers_have_a_line_and_no_bars() -> None:
    told = episode(shot(0, None, -1.0), shot(1, None, 3.0), edges=None)
    assert axis_of(told) == (-1.0, 3.0)
    picture = np.asarray(draw_shot(told, told.shots[0]))
    assert not (picture[:, 280:] == (110, 160, 230)).all(axis=2).any()
    assert (picture[200, 280 + 16] == (250, 180, 70)).all()


def test_a_file_has_every_shot_at_the_games_speed() -> None:
    with Image.open(io.BytesIO(encode_video(episode(*(shot(step, step, 0.0) for step in range(5)))))) as video:
        assert (video.format, getattr(video, "n_frames", 1), video.size) == ("WEBP", 5, (640, 336))
        video.load()
        assert video.info["duration"] in (100, 2000)


def small(preset: str, *overrides: str) -> RunConfig:
    return load_config(preset, ["network.hidden=16", *overrides])


def policy_of(config: RunConfig):  # type: ignore[no-untyped-def]
    return build_policy(config.network, config.value, build_spec(config), 64)


@pytest.mark.parametrize("preset", ["minatar", "atari"])
def test_an_episode_is_played_as_evaluations_are(preset: str) -> None:
    limit = "environment.max_episode_steps=30" if preset == "minatar" else "environment.max_episode_frames=120"
    config = small(preset, limit)
    told = play_to_show(config, policy_of(config))
    assert told.length <= 30
    assert [each.step for each in told.shots] == list(range(told.length))
    assert told.total == pytest.approx(sum(each.reward for each in told.shots))
    assert told.edges is not None
    for each in told.shots:
        assert each.probabilities is not None
        assert each.probabilities.sum() == pytest.approx(1, abs=1e-5)
        centres = (told.edges[1:] + told.edges[:-1]) / 2
        assert each.value == pytest.approx(float(each.probabilities @ centres), abs=1e-3)


def test_a_long_episode_is_thinned_out() -> None:
    config = small("minatar", "environment.game=freeway", "environment.max_episode_steps=300")
    told = play_to_show(config, policy_of(config), most=40)
    assert told.length == 300
    assert told.every == 8
    assert [each.step for each in told.shots] == [*range(0, 300, 8), 299]


def test_wordle_has_no_screen() -> None:
    config = load_config("cartpole", [])
    with pytest.raises(ValueError, match="an environment of kind gymnasium has no screen to show: Atari and MinAtar"):
        play_to_show(config, policy_of(config))


def test_a_run_is_evaluated_with_a_video_and_its_report_shows_it(tmp_path: Path) -> None:
    config = small(
        "minatar",
        "environment.max_episode_steps=20",
        "budget.env_steps=200",
        "replay.min_size=50",
        "evaluation={every_share: 1, episodes: 2}",
    )
    run = train(config, run_dir=tmp_path / "run").run_dir
    evaluate([run], video=True)
    with Image.open(run / "video.webp") as video:
        assert getattr(video, "n_frames", 1) >= 2
    page = report([run]).read_text("utf-8")
    assert 'src="data:image/webp;base64,' in page
    assert "An episode of run" in page
