"""Configs from files and ``--set``: what is read, what is written, what is refused and in which words."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from isogon.actors.environments import AtariConfig, MinAtarConfig
from isogon.learners.networks.config import ImpalaConfig, MinAtarNetworkConfig, MLPConfig, NatureConfig
from isogon.system.config.files import (
    ConfigError,
    ResumeRefused,
    check_resume,
    describe,
    load_config,
    preset_names,
    preset_title,
    resume_changes,
)
from isogon.system.config.keys import all_keys
from isogon.system.config.run import RunConfig
from isogon.system.config.yaml_text import YamlError, read_yaml, write_entry, write_yaml

CARTPOLE = """
name: pole
environment: {kind: gymnasium, id: CartPole-v1}
value: {kind: hl_gauss, bins: 51, vmin: 0, vmax: 100}
budget: {env_steps: 2e5}
"""
WORDLE = """
name: words
environment: {kind: wordle}
network: {kind: letter_tied, hidden: 64}
value: {kind: hl_gauss, form: tilt, bins: 31, vmin: -6, vmax: 0}
budget: {seconds: 60}
"""
KEYS = sorted(all_keys(RunConfig))

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write_file


def refusal(source: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


# The YAML dialect.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E-3", 1e-3),
        ("-2.5e+4", -25_000),
        ("2e5", 200_000),
        ("100_000", 100_000),
        ("0x10", 16),
        ("1.0", 1.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("true", True),
        ("null", None),
        ("", None),
        ("~", None),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("007", "007"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("'1e-3'", "1e-3"),
        ("[1, 2e0]", [1, 2]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_yaml_reads(text: str, value: Any) -> None:
    result = read_yaml(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: key 'a' stands there twice"),
        ("x: {a: 1, a: 2}", "key 'a' stands there twice"),
        ("a: [1", "line 1"),
        ("a: !!python/object/apply:os.system ['true']", "has no place in a config"),
        ("a: !!set {b}", "has no place in a config"),
        ("[1, 2]: 3", "a key must be a word"),
        ("a: 1\n---\nb: 2", "single document"),
        ("a: *nowhere", "nowhere"),
        ("\x00", "special characters"),
    ],
)
def test_yaml_refuses(text: str, words: str) -> None:
    with pytest.raises(YamlError, match=re.escape(words)) as caught:
        read_yaml(text)
    assert "\n" not in str(caught.value)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
    | st.sampled_from(["1e-3", "no", "null", "1_0", "0x1", "2024-01-01", "<<", "~", "-", "1:30", ".5"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(PLAIN)
def test_what_is_written_reads_back_the_same(value: Any) -> None:
    assert read_yaml(write_yaml(value)) == value
    assert read_yaml(write_entry("key", value)) == {"key": value}
    assert "\n" not in write_entry("key", value)


# Files and presets.


def test_a_file_is_read_with_the_defaults_of_what_it_leaves_out(write: Write) -> None:
    config = load_config(write(CARTPOLE))
    assert config.budget.env_steps == 200_000
    assert config.replay == RunConfig.model_fields["replay"].default


def test_describe_is_a_file_that_gives_the_same_config(write: Write) -> None:
    config = load_config(write(CARTPOLE), ["environment.kwargs={limit: '1e3', sizes: [1, 2]}"])
    assert load_config(write(describe(config))) == config
    explained = describe(config, explain=True)
    assert load_config(write(explained)) == config
    assert all("  # " in line for line in explained.splitlines() if not re.match(r"\s*kind: ", line))


def test_presets_have_a_title() -> None:
    assert preset_names() == sorted(preset_names())
    assert all(preset_title(name) for name in preset_names())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1\n", "holds [1]: a config is a mapping"),
        ("", "holds null: a config is a mapping"),
        ("name: a\nname: b\n", "line 2, column 1: key 'name' stands there twice"),
        (CARTPOLE + "seed: x\n", 'seed is "x" in '),
        (CARTPOLE + "sed: 1\n", "unknown key sed in "),
        (CARTPOLE + "replay: {n_steps: 3}\n", "did you mean replay.n_step?"),
        (CARTPOLE.replace("name: pole", ""), "name is missing in "),
        (CARTPOLE.replace("kind: gymnasium, ", ""), "environment.kind is missing in "),
        (
            CARTPOLE.replace("kind: gymnasium", "kind: gymnasum"),
            "expected one of wordle, gymnasium, atari, minatar, custom; did you mean gymna",
        ),
        (CARTPOLE + "network: {kind: mlp, channels: 3}\n", "it belongs to network.kind letter_tied"),
        (CARTPOLE + "offline: {steps: 3}\n", "there is a data policy for Wordle only"),
        ("a: &a [*a]\n", "holds itself"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(write: Write, text: str, words: str) -> None:
    source = write(text)
    message = refusal(source)
    assert words in message
    assert source in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(str(tmp_path / "none.yaml"))
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    assert "is not UTF-8 text: byte 6" in refusal(str(tmp_path / "latin.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    assert "cannot be read: Is a directory" in refusal(str(tmp_path / "folder.yaml"))


def test_an_unknown_preset_offers_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isogon.system.config.files.preset_names", lambda package=None: ["atari", "wordle"])
    assert "unknown preset wordel: did you mean wordle?" in refusal("wordel")
    assert "unknown preset zzz: there are atari, wordle" in refusal("zzz")


def test_several_problems_have_a_line_each_but_not_too_many(write: Write) -> None:
    wrong = [
        "replay.n_step=x",
        "seed=x",
        "device=x",
        "value.bins=1",
        "budget.seconds=-1",
        "torch_threads=0",
        "name=A B",
    ]
    with pytest.raises(ConfigError) as caught:
        load_config(write(CARTPOLE), wrong)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert lines[-1] == "and 2 more of this kind"


# --set.


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("learner.learning_rate.start=1e-4", "learner.learning_rate.start", 1e-4),
        ("network.hidden=[32, 16]", "network.hidden", (32, 16)),
        ("learner.double_q=false", "learner.double_q", False),
        ("budget.updates=1e3", "budget.updates", 1000),
        ("environment.kwargs.render=human", "environment.kwargs", {"render": "human"}),
        ("environment.id='CartPole-v0'", "environment.id", "CartPole-v0"),
        (" seed = 3 ", "seed", 3),
        ("actors.epsilon={start: 0.5}", "actors.epsilon.start", 0.5),
        ("checkpoints.every_seconds=", "checkpoints.every_seconds", None),
    ],
)
def test_set_replaces_one_value(write: Write, override: str, key: str, value: Any) -> None:
    before = load_config(write(CARTPOLE)).model_dump()
    after = load_config(write(CARTPOLE), [override]).model_dump()
    *sections, name = key.split(".")
    for section in sections:
        before, after = before[section], after[section]
    assert after.pop(name) == value
    before.pop(name)
    # Of a section that is given whole the rest may change; of any other nothing does.
    assert override.startswith("actors.epsilon") or before == after


def test_set_keeps_the_rest_of_a_default_section(write: Write) -> None:
    rate = load_config(write(CARTPOLE), ["learner.learning_rate.start=2e-3"]).learner.learning_rate
    assert (rate.kind, rate.start, rate.end) == ("cosine", 2e-3, 3e-5)


def test_the_last_set_of_a_key_counts(write: Write) -> None:
    assert load_config(write(CARTPOLE), ["seed=1", "seed=2"]).seed == 2


def test_set_switches_a_section_on(write: Write) -> None:
    offline = load_config(write(WORDLE), ["offline.steps=10"]).offline
    assert offline is not None
    assert (offline.steps, offline.smart_share) == (10, 0.5)
    assert load_config(write(WORDLE), ["offline.steps=10", "offline=null"]).offline is None


@pytest.mark.parametrize("order", [1, -1])
def test_a_changed_kind_starts_its_section_anew(write: Write, order: int) -> None:
    source = write(WORDLE)
    assert load_config(source, ["network.kind=mlp"]).network.model_dump() == {"kind": "mlp", "hidden": (128, 128)}
    config = load_config(source, ["network.kind=mlp", "network.hidden=[8]"][::order])
    assert config.network.model_dump() == {"kind": "mlp", "hidden": (8,)}


def test_the_same_kind_changes_nothing(write: Write) -> None:
    source = write(WORDLE)
    assert load_config(source, ["network.kind=letter_tied"]) == load_config(source)


def test_a_kind_that_has_no_keys_of_its_own_keeps_the_section(write: Write) -> None:
    value = load_config(write(CARTPOLE), ["value.kind=two_hot"]).value
    assert (value.kind, value.bins) == ("two_hot", 51)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", "--set seed: expected key=value"),
        ("=1", "--set =1: expected key=value"),
        ("a..b=1", "--set a..b=1: expected key=value"),
        ("seed=[1", "--set seed=[1: the value is no YAML: line 1"),
        ("seed=x", 'seed is "x" in --set seed=x: expected a valid integer'),
        ("seed=true", "seed is true in --set seed=true: expected a valid integer"),
        ("seed=1.5", "seed is 1.5 in --set seed=1.5: expected a valid integer"),
        ("seed='1'", "seed is \"1\" in --set seed='1': expected a valid integer"),
        ("seed=-1", "expected a value greater than or equal to 0"),
        ("seed.x=1", "--set seed.x=1: seed is 0, a plain value without keys"),
        ("value.vmin=.nan", "expected a finite number"),
        ("learner.double_q=1", "learner.double_q is 1 in --set learner.double_q=1: expected a valid boolean"),
        ("device=cudda", "expected 'cpu' or 'cuda'; did you mean cuda?"),
        ("network.hidden=[1, x]", 'network.hidden[1] is "x" in --set network.hidden=[1, x]'),
        ("network.hidden=[]", "expected at least 1 of them"),
        ("budget=null", "budget is null in --set budget=null: expected a section"),
        ("enviroment.id=x", "unknown key enviroment in --set enviroment.id=x: did you mean environment?"),
        ("learner.learning_rate.strat=1", "did you mean learner.learning_rate.start?"),
        ("learning_rate=1", "did you mean learner.learning_rate?"),
        ("network.dense_channels=1", "it belongs to network.kind letter_tied, and network.kind is mlp"),
        ("environment.kind=wordel", 'environment.kind is "wordel" in --set environment.kind=wordel: expected one of'),
        ("name=No Good", 'name is "No Good" in --set name=No Good: expected a word that matches'),
        ("deterministic=true", "with --set deterministic=true: deterministic is true and actors.pool is ray"),
        ("replay.zzzzzz=1", "unknown key replay.zzzzzz in --set replay.zzzzzz=1: valid here: capacity, batch_size"),
    ],
)
def test_a_bad_set_is_refused_in_one_line(write: Write, override: str, words: str) -> None:
    assert words in refusal(write(CARTPOLE), override)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_typo_of_a_key_suggests_it(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    section, _, name = data.draw(st.sampled_from([key for key in KEYS if len(key.split(".")[-1]) >= 5])).rpartition(".")
    at = data.draw(st.integers(0, len(name) - 2))
    kind = data.draw(st.sampled_from(["swap", "drop", "double", "replace"]))
    typo = {
        "swap": name[:at] + name[at + 1] + name[at] + name[at + 2 :],
        "drop": name[:at] + name[at + 1 :],
        "double": name[:at] + name[at] + name[at:],
        "replace": name[:at] + "z" + name[at + 1 :],
    }[kind]
    prefix = f"{section}." if section else ""
    assume(f"{prefix}{typo}" not in KEYS)
    path = tmp_path_factory.getbasetemp() / "typo.yaml"
    wordle = (section == "network" and name in ("channels", "dense_channels")) or section == "environment"
    path.write_text(WORDLE if wordle else CARTPOLE, encoding="utf-8")
    kinds = ["environment.kind=gymnasium", "environment.id=x"] if name in ("kwargs", "max_episode_steps") else []
    for games, game in ((AtariConfig, "pong"), (MinAtarConfig, "asterix")):
        if section == "environment" and name in games.model_fields and name != "kind" and not kinds:
            kinds = [f"environment.kind={games.model_fields['kind'].default}", f"environment.game={game}"]
    for network in (NatureConfig, ImpalaConfig, MinAtarNetworkConfig):
        if section == "network" and name in network.model_fields.keys() - MLPConfig.model_fields.keys():
            kinds = [f"network.kind={network.model_fields['kind'].default}"]
    if name == "class" or section == "encoding" or (section, name) == ("network", "kwargs"):
        kinds = [f"{section}.class=a:B", *([f"{section}.kind=custom"] if section != "encoding" else [])]
    switch_on = ["environment.kind=wordle"] if section == "offline" else []
    assert f"did you mean {prefix}{name}?" in refusal(str(path), *kinds, *switch_on, f"{prefix}{typo}=1")


# Resuming.


def test_resume_changes_names_what_may_not_change(write: Write) -> None:
    old = load_config(write(CARTPOLE))
    allowed = ["budget.env_steps=3e5", "checkpoints.keep=1", "actors.workers=2", "torch_threads=2"]
    assert resume_changes(old, load_config(write(CARTPOLE), allowed)) == []
    new = load_config(
        write(CARTPOLE), ["seed=1", "learner.learning_rate.start=1e-4", "network.hidden=[8]", "value.kind=mse"]
    )
    assert resume_changes(old, new) == [
        "seed: 0 -> 1",
        "network.hidden: [128, 128] -> [8]",
        'value.kind: "hl_gauss" -> "mse"',
        "learner.learning_rate.start: 0.001 -> 0.0001",
    ]
    with pytest.raises(ResumeRefused, match=r"seed: 0 -> 1; network\.hidden") as caught:
        check_resume(old, new)
    assert "\n" not in str(caught.value)
    check_resume(old, old)


def test_resume_changes_sees_sections_come_and_go(write: Write) -> None:
    old = load_config(write(WORDLE))
    new = load_config(write(WORDLE), ["offline.steps=10", "network.kind=mlp"])
    changed = resume_changes(old, new)
    assert [line.partition(":")[0] for line in changed] == ["network", "offline"]
