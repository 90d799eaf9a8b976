"""`isogon config`."""

from pathlib import Path

from isogon.system.config.files import FEDERATIONS, load_config, preset_names

from .command_line import Isogon


def test_config_show_is_a_config(isogon: Isogon) -> None:
    Path("shown.yaml").write_text(isogon("config", "show", "pole.yaml", "--set", "seed=3").out)
    assert load_config("shown.yaml") == load_config("pole.yaml", ["seed=3"])
    assert "# units of each ReLU layer" in isogon("config", "show", "pole.yaml", "--explain").out


def test_config_list(isogon: Isogon) -> None:
    names: dict[str, list[str]] = {}
    for line in isogon("config", "list").out.splitlines():
        if line.startswith("isogon "):
            names[line] = []
        else:
            names[list(names)[-1]].append(line.split()[0])
    assert names == {"isogon train:": preset_names(), "isogon federate:": preset_names(FEDERATIONS)}
