"""Where run directories are made that nobody named, and what a Ray job may not have."""

from pathlib import Path

import pytest

from isogon.system.runs.errors import RunDirectoryFleeting
from isogon.system.runs.places import about_place, check_outlasts_job, in_ray_job, place_of_new_runs

from .command_line import Isogon, make_run


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("HOME", str(tmp_path))


def test_at_home_runs_are_where_one_works() -> None:
    assert not in_ray_job()
    assert place_of_new_runs() == Path("runs")
    check_outlasts_job(Path("runs/x"))
    assert about_place(Path("runs/x")) == ""


def test_runs_of_a_job_outlast_it(job: None, tmp_path: Path) -> None:
    assert in_ray_job()
    assert place_of_new_runs() == tmp_path / "isogon-runs"
    check_outlasts_job(tmp_path / "run")
    with pytest.raises(RunDirectoryFleeting, match=r"run directory runs/x is relative, .*: name an absolute path"):
        check_outlasts_job(Path("runs/x"))
    assert f"in {tmp_path}/isogon-runs/x: with --run-dir" in about_place(tmp_path / "isogon-runs" / "x")


def test_resuming_in_a_job_wants_an_absolute_path_too(folder: Path, isogon: Isogon, job: None) -> None:
    make_run(folder)
    assert "run directory run is relative" in isogon("train", "--resume", "--run-dir", "run").line(10)
    assert isogon("train", "--resume", "--run-dir", str(folder / "run")).code == 0
