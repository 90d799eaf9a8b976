"""Playing with a trained policy: board, entries and advice against the environment and slow readings of the network."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from isogon.actors.environments.wordle import WordleEnvironment, build_vocabulary, load_words
from isogon.actors.environments.wordle.patterns import score
from isogon.actors.evaluation import play_episodes
from isogon.learners.randomness import stream
from isogon.system.builder import build_learner, build_spec
from isogon.system.cli.app import main
from isogon.system.cli.play_dialogue import advise_on_game, guess_word, guess_words
from isogon.system.cli.play_screen import Screen, split_cells
from isogon.system.config.files import load_config
from isogon.system.config.run import RunConfig
from isogon.system.errors import ExitCode, explain
from isogon.system.play import Advice, Board, Entry, EntryRefused, Guess, WordleAdviser, check_word, parse_entry
from isogon.system.runs.directory import RunDirectory
from isogon.system.runs.errors import RunDirectoryDamaged, RunDirectoryMissing
from isogon.system.saved_run import SavedRun
from isogon.system.training.attempt import ENVIRONMENT

WORDS = load_words()[::20]
SMALL = ["network.hidden=16", "network.channels=2"]
SEEN = frozenset(WORDS[:10])


def make_run(folder: Path, preset: str, *overrides: str) -> Path:
    """A run whose newest checkpoint holds first weights."""
    config = load_config(preset, overrides)
    directory = RunDirectory.create(folder / "run")
    directory.write_config(config.model_dump(mode="json"))
    with directory.hold():
        attempt = directory.claim_attempt(None)
        spec = build_spec(config)
        learner = build_learner(config, spec).state_dict()
        directory.save_checkpoint(attempt, 0, {"learner": learner}, {ENVIRONMENT: spec.fingerprint()})
    return directory.path


@pytest.fixture(scope="module")
def wordle_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wordle")
    (folder / "words.txt").write_text("\n".join(WORDS) + "\n")
    return make_run(folder, "wordle", *SMALL, f"environment.word_list={folder / 'words.txt'}")


def adviser_of(run: Path) -> WordleAdviser:
    return WordleAdviser(SavedRun.open(run).load_policy(pytest.fail).policy, WORDS)


@pytest.fixture(scope="module")
def adviser(wordle_run: Path) -> WordleAdviser:
    torch.set_num_threads(1)
    return adviser_of(wordle_run)


class Script:
    """A person whose lines are known beforehand."""

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)
        self.prompts: list[str] = []

    def read(self, prompt: str) -> str | None:
        self.prompts.append(prompt)
        return self._lines.pop(0) if self._lines else None


def plain_screen(width: int = 40) -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    return Screen(Console(file=out, width=width, color_system=None, highlight=False)), out


def board_of(answer: str, words: Iterable[str]) -> Board:
    board = Board()
    for word in words:
        board = board.play(Guess(word, score(word, answer)))
    return board


# The board.


@settings(max_examples=30, deadline=None)
@given(
    answer=st.integers(0, len(WORDS) - 1),
    guesses=st.lists(st.integers(0, len(WORDS) - 1), min_size=1, max_size=6, unique=True),
)
def test_a_board_looks_as_the_environment_shows_it(answer: int, guesses: list[int]) -> None:
    environment = WordleEnvironment(build_vocabulary(WORDS), np.array([answer]))
    observation = environment.reset(stream(0, "test"))
    board = Board()
    for guess in guesses:
        assert all((board.observation()[name] == part).all() for name, part in observation.items())
        step = environment.step(np.array([guess]))
        observation = step.observation
        board = board.play(Guess(WORDS[guess], score(WORDS[guess], WORDS[answer])))
        assert (board.solved or board.full) == bool(step.terminated[0])
        if board.solved:
            break
    assert board.misfit(WORDS) is None
    assert board.take_back().guesses == board.guesses[:-1]


def test_a_board_that_is_over_takes_no_guess() -> None:
    over = board_of("crane", ["crane"])
    with pytest.raises(ValueError, match="take one back first"):
        over.play(Guess("slate", (0, 0, 0, 0, 0)))
    assert Board().take_back() == Board()


def test_a_misfit_is_told_by_what_does_not_fit() -> None:
    words = ("crane", "slate", "trace")
    assert Board().misfit(words) is None
    assert Board((Guess("crane", (2, 2, 2, 2, 1)),)).misfit(words) == "no word of the list gives crane these colours"
    both = board_of("crane", ["slate"]).play(Guess("trace", score("trace", "slate")))
    assert both.misfit(words) == "no word of the list fits the colours of all guesses so far"


# What is typed.


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("crane bygbb", Guess("crane", (0, 1, 2, 0, 0))),
        ("  CRANE  .YG.B ", Guess("crane", (0, 1, 2, 0, 0))),
        ("ggggg", Guess("slate", (2, 2, 2, 2, 2))),
        ("⬛🟨🟩⬜⬛", Guess("slate", (0, 1, 2, 0, 0))),
        ("⬛️🟨🟩⬜️⬛️", Guess("slate", (0, 1, 2, 0, 0))),
        ("u", Entry.TAKE_BACK),
        ("Undo", Entry.TAKE_BACK),
        ("q", Entry.QUIT),
        ("", Entry.HELP),
        ("?", Entry.HELP),
    ],
)
def test_entries(text: str, entry: Guess | Entry) -> None:
    assert parse_entry(text, ("crane", "slate"), "slate") == entry


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("crane", "crane lacks its colours"),
        ("crame", "crame is not in the list of 3 words: the nearest are crane, crank"),
        ("crame bygbb", "the nearest are crane, crank"),
        ("fuzzy bbbbb", "nothing in it is like it"),
        ("crane bygb", "'bygb' is no row of colours"),
        ("crane bygbx", "'bygbx' is no row of colours"),
        ("crane by gbb", "has 3 parts"),
        ("cranes bygbb", "'cranes' is no word of five letters a to z"),
        ("crâne bygbb", "is no word of five letters a to z"),
        ("\x1b[31m", "'\\x1b[31m' is no row of colours"),
        ("z" * 5000, "'zzzzzzzzzzzzzzzzzzzz...' is no row of colours"),
    ],
)
def test_entries_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(EntryRefused) as refused:
        parse_entry(text, ("crane", "crank", "slate"), "slate")
    assert words in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 150
    assert explain(refused.value).code == ExitCode.CONFIG


# Advice.


def test_advice_is_what_the_head_says(adviser: WordleAdviser, wordle_run: Path) -> None:
    board = board_of(WORDS[3], [WORDS[7], WORDS[50]])
    module = SavedRun.open(wordle_run).load_policy(pytest.fail).policy.module
    hidden = module.torso({name: torch.from_numpy(part) for name, part in board.observation().items()})
    values = module.head.values(hidden)[0].detach()
    values[[7, 50]] = -torch.inf
    order = values.argsort(descending=True)[:5].tolist()
    advice = adviser.advise(board)
    assert [one.word for one in advice] == [WORDS[index] for index in order]
    for one, index in zip(advice, order, strict=True):
        assert one.value == pytest.approx(float(values[index]), abs=1e-5)
        assert one.guesses_after == -one.value
        assert one.shares is not None
        expected = [0.0] * 7
        probabilities = module.head.distribution(hidden, torch.tensor([index]))[0].tolist()
        # The preset's bins: 31 of equal width from -6 to 0.
        for k, probability in enumerate(probabilities):
            expected[round(6 - (k + 0.5) * 6 / 31)] += probability
        assert one.shares == pytest.approx(expected, abs=1e-5)
        assert sum(one.shares) == pytest.approx(1)


def test_no_advice_where_there_is_none(adviser: WordleAdviser, wordle_run: Path) -> None:
    with pytest.raises(ValueError, match="the game is over"):
        adviser.advise(board_of(WORDS[3], [WORDS[3]]))
    policy = SavedRun.open(wordle_run).load_policy(pytest.fail).policy
    with pytest.raises(ValueError, match=f"words has 2 entries and the policy {len(WORDS)} actions"):
        WordleAdviser(policy, WORDS[:2])


@pytest.mark.parametrize("kind", ["mse", "mse_softmax", "two_hot", "c51"])
def test_every_kind_of_head_advises(kind: str, wordle_run: Path, tmp_path: Path) -> None:
    words = wordle_run.parent / "words.txt"
    sets = [f"environment.word_list={words}", f"value.kind={kind}"]
    if kind == "mse":
        sets += ["value.bins=null", "value.vmin=null", "value.vmax=null"]
    advice = adviser_of(make_run(tmp_path, "wordle", *SMALL, *sets)).advise(Board())
    assert len({one.word for one in advice}) == 5
    assert all((one.shares is None) == (kind == "mse") for one in advice)
    screen, out = plain_screen()
    screen.show_advice(advice, 1)
    assert ("how likely" in out.getvalue()) == (kind != "mse")


# Bars and boards.


@given(st.lists(st.floats(0.001, 1), min_size=7, max_size=7), st.integers(1, 60))
def test_bars_are_filled_in_proportion(parts: list[float], width: int) -> None:
    shares = [part / sum(parts) for part in parts]
    cells = split_cells(shares, width)
    assert sum(cells) == width
    assert all(abs(cell - share * width) < 1 + 1e-9 for cell, share in zip(cells, shares, strict=True))


ADVICE = [
    Advice("crane", -1.5, (0.25, 0.25, 0.25, 0.25, 0.0, 0.0, 0.0)),
    Advice("slate", -2.0, (0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0)),
]
PLAYED = Board((Guess("crane", (0, 1, 2, 0, 0)),))


def test_without_colours_signs_tell_them() -> None:
    screen, out = plain_screen(40)
    screen.show_advice(ADVICE, 2)
    screen.show_board(PLAYED)
    assert out.getvalue().splitlines() == [
        "guess 2  after  how likely",
        "1 crane   1.50  000000111111222222333333",
        "2 slate   2.00  222222222222222222222222",
        "   c (r)[A] n  e",
    ]


@pytest.mark.parametrize("width", [40, 100])
def test_in_colour_digits_stand_once(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system="truecolor", record=True)
    screen = Screen(console)
    screen.show_advice(ADVICE, 2)
    screen.show_board(PLAYED)
    assert "\x1b[" in out.getvalue()
    lines = console.export_text().splitlines()
    assert all(len(line) <= width for line in lines)
    assert lines[1].split() == ["1", "crane", "1.50", "0", "1", "2", "3"]
    assert lines[3].split() == ["C", "R", "A", "N", "E"]


@pytest.mark.parametrize("without", [{"no_color": True}, {"_environ": {"TERM": "dumb"}}, {"color_system": None}])
def test_terminals_without_colour(without: dict[str, object]) -> None:
    out = io.StringIO()
    arguments: dict[str, object] = {"file": out, "width": 40, "force_terminal": True, **without}
    Screen(Console(**arguments)).show_board(PLAYED)  # type: ignore[arg-type]
    assert "(r)[A]" in out.getvalue()


# Games.


def test_it_plays_a_word_as_the_evaluation_does(adviser: WordleAdviser, wordle_run: Path) -> None:
    policy = SavedRun.open(wordle_run).load_policy(pytest.fail).policy
    environment = WordleEnvironment(build_vocabulary(WORDS), np.arange(len(WORDS)))
    returns = play_episodes(environment, policy.act, len(WORDS), stream(0, "test"))["return"]
    for index in (0, 9, 40, len(WORDS) - 1):
        screen, out = plain_screen()
        board = guess_word(adviser, WORDS[index].upper(), SEEN, screen)
        assert (1 - len(board.guesses) if board.solved else -6) == returns[index]
        text = out.getvalue()
        assert text.endswith("guess\n" if board.solved else f"not solved: the word was {WORDS[index]}\n")
        assert f"training {'saw' if WORDS[index] in SEEN else 'never saw'} this word" in " ".join(text.split())
        assert max(map(len, text.splitlines())) <= 40


def test_it_asks_for_words_until_there_are_none(adviser: WordleAdviser) -> None:
    screen, out = plain_screen()
    guess_words(adviser, Script("xyzzy", WORDS[2], ""), SEEN, screen)
    assert "xyzzy is not in the list of" in out.getvalue()
    assert f"{WORDS[2]}: training saw this word" in out.getvalue()


def test_advice_solves_a_game_with_the_true_colours(adviser: WordleAdviser) -> None:
    answer = adviser.advise(Board())[3].word

    class Honest:
        def read(self, prompt: str) -> str:
            colours = score(prompt.split("[")[1][:5], answer)
            return "".join("byg"[colour] for colour in colours)

    class Telling(Script):
        def read(self, prompt: str) -> str | None:
            return "q" if prompt == "> " else Honest().read(prompt)

    screen, out = plain_screen()
    board = advise_on_game(adviser, Telling(), screen)
    assert len({guess.word for guess in board.guesses}) == len(board.guesses)
    assert board.solved or board.full
    assert "no word" not in out.getvalue()
    screen, out = plain_screen()
    assert advise_on_game(adviser, Script(f"{answer} ggggg"), screen).solved
    assert out.getvalue().endswith("solved with the 1st guess\n")


def test_colours_that_no_word_fits_are_told_and_taken_back(adviser: WordleAdviser) -> None:
    screen, out = plain_screen(200)
    word = WORDS[5]
    person = Script("u", "rubbish", f"{word} ggggy", "u", "?", f"{word} bbbbb", f"{word} ggggg", "", "u", "u")
    assert advise_on_game(adviser, person, screen) == Board()
    text = out.getvalue()
    assert "there is nothing to take back" in text
    assert "rubbish' is no row of colours" in text
    assert f"no word of the list gives {word} these colours. If a colour is mistyped, u takes" in text
    assert "no word of the list fits the colours of all guesses so far. If a colour" in text
    assert "solved with the 2nd guess: u takes the last guess back, q ends" in text
    assert text.count(f"{word} is taken back") == 3
    assert person.prompts.count("> ") == 2


def test_six_guesses_end_a_game(adviser: WordleAdviser) -> None:
    answer, *others = WORDS[:7]
    lines = [f"{word} {''.join('byg'[colour] for colour in score(word, answer))}" for word in others]
    screen, out = plain_screen(200)
    board = advise_on_game(adviser, Script(*lines, "ggggg", "q"), screen)
    assert [guess.word for guess in board.guesses] == others
    assert "not solved: u takes the last guess back, q ends" in out.getvalue()
    assert "the game is over: u takes the last guess back" in out.getvalue()


# The command.


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            main(arguments)
    finally:
        signal.signal(signal.SIGTERM, before)
    out, err = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, out, err


def test_the_command_plays_a_word(
    wordle_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    code, out, err = ended(capsys, "play", "wordle", str(wordle_run), "--word", WORDS[0])
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{wordle_run}, checkpoint 1-0, {len(WORDS)} words"
    assert max(map(len, out.splitlines()[1:])) <= 40
    assert "\x1b" not in out


def test_the_command_reads_words_or_colours_from_a_pipe(
    wordle_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"\xff\n{WORDS[1]}\n".encode("latin-1"))))
    code, out, _ = ended(capsys, "play", "wordle", str(wordle_run))
    assert code == 0
    assert f"word to guess: {WORDS[1]}\n" in out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"bbbbb\n")))
    code, out, _ = ended(capsys, "play", "wordle", str(wordle_run), "--advise")
    assert code == 0
    assert "guess 2" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["RUN", "--word", "xyzzy"], 2, "xyzzy is not in the list of"),
        (["RUN", "--word", "crane", "--advise"], 2, "cannot be given together with --word"),
        (["none"], 10, "run directory none is not there"),
        ([], 2, "Missing argument 'RUN'"),
    ],
)
def test_the_command_refuses(
    wordle_run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    given = [str(wordle_run) if argument == "RUN" else argument for argument in arguments]
    ending, _, err = ended(capsys, "play", "wordle", *given)
    assert ending == code
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_run_of_another_environment_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, "cartpole")
    code, out, err = ended(capsys, "play", "wordle", str(run))
    assert (code, out) == (10, "")
    assert f"{run} is of a run on gymnasium, which is not Wordle" in err


def test_a_saved_run_that_cannot_serve(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    config = load_config("cartpole")
    directory.write_config(config.model_dump(mode="json"))
    with pytest.raises(RunDirectoryMissing, match="no whole checkpoint yet"):
        SavedRun.open(directory.path).load_policy(pytest.fail)
    directory.write_config(config.model_dump(mode="json") | {"sed": 1})
    with pytest.raises(RunDirectoryDamaged, match=r"unknown key sed in .*config\.yaml: did you mean seed"):
        SavedRun.open(directory.path)
    with pytest.raises(RunDirectoryMissing):
        SavedRun.open(tmp_path / "none")
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


def test_a_terminal_is_advised_in_colour_until_control_c(wordle_run: Path) -> None:
    leader, follower = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "isogon", "play", "wordle", str(wordle_run)],
        env=env | {"TERM": "xterm-256color", "COLUMNS": "60"}, stdin=follower, stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)

    def read_until(what: bytes) -> bytes:
        written = b""
        end = time.monotonic() + 60
        while what not in written and select.select([leader], [], [], max(0.0, end - time.monotonic()))[0]:
            written += os.read(leader, 65536)
        assert what in written, written
        return written

    assert b"\x1b[" in read_until(b"]: ")
    os.write(leader, b"bbbbb\n")
    read_until(b"]: ")
    # Python sees a signal that comes between the prompt and the reading only after the reading.
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    read_until(b"isogon: interrupted")
    assert process.wait(30) == 130
    os.close(leader)


def test_words_are_checked() -> None:
    assert check_word(" Crane ", ("crane",)) == "crane"
