"""Configs from presets, files and ``--set``; what they say, and what of them may change when a run is resumed.

How values are put together:

* A file's section that is left out, or a key of it, takes the default of `RunConfig`.
* ``--set a.b=value`` replaces that one value of the config as it would be without it; the value is YAML. A section
  that is off (null) is switched on with its defaults.
* A section of several kinds whose ``kind`` is set to another one starts anew with that kind's defaults, before any
  other ``--set`` is applied, in whatever order they were given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from ...learners.settings import Settings
from .keys import KIND, Model, fields_of, nearest, of_kind, sections_of
from .problems import Origin, about_section, meaning, one_line, shown
from .run import RunConfig
from .yaml_text import YamlError, read_yaml, write_entry, write_yaml

SettingsT = TypeVar("SettingsT", bound=Settings)

_MOST_PROBLEMS = 5
PRESETS = f"{__package__.rpartition('.')[0]}.presets"
"""Where the presets of training runs are."""
FEDERATIONS = f"{PRESETS}.federations"
"""Where the presets of federations are."""
_SUFFIXES = (".yaml", ".yml")


class ConfigError(ValueError):
    """A config that cannot be used. The message has one line for each problem."""


class ResumeRefused(ValueError):
    """A run cannot be resumed with this config. The message has one line."""


@dataclass(frozen=True)
class _Override:
    text: str
    path: tuple[str, ...]
    value: Any


def preset_names(package: str = PRESETS) -> list[str]:
    """The presets that come with Isogon, sorted: of training runs, or of ``FEDERATIONS``."""
    files = resources.files(package).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def preset_title(name: str, package: str = PRESETS) -> str:
    """A preset's first line, which is a comment and says what it is for; empty where it has none."""
    first = (resources.files(package) / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def load_config(source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """A preset by its name, or a YAML file by its path, with ``a.b=value`` overrides.

    Raises:
        ConfigError: no such preset or file, text that is no YAML, an unknown key, a wrong value. The message names the
            dotted key, the value, where it came from and what is expected.
    """
    return load_settings(RunConfig, source, overrides)


def load_settings(
    model: type[SettingsT], source: str, overrides: Sequence[str] = (), package: str = PRESETS
) -> SettingsT:
    """As `load_config`, for another kind of config, whose presets are in another package."""
    where, text = _read(source, package)
    try:
        data = read_yaml(text)
    except YamlError as error:
        raise ConfigError(f"{where}: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{where} holds {shown(data)}: a config is a mapping of keys to values")
    changes = [_parse(text) for text in overrides]
    # Kinds first: they decide which other keys there are.
    changes.sort(key=lambda change: change.path[-1] != KIND)
    origin = Origin(where, {".".join(change.path): change.text for change in changes})
    if changes:
        data = _complete(model, data)
    for change in changes:
        _apply(model, data, change)
    return _validated(model, data, origin)


def describe(config: Settings, *, explain: bool = False) -> str:
    """The whole config as YAML that `load_config` reads back. ``explain`` adds each key's meaning as a comment."""
    if not explain:
        return write_yaml(config.model_dump(mode="json"))
    return "".join(f"{line}\n" for line in _explained(config, ""))


def resume_changes(old: Settings, new: Settings, prefix: str = "") -> list[str]:
    """What differs where a resumed run must not: ``key: old value -> new value``, one a line."""
    changed = []
    for name, info in type(old).model_fields.items():
        before, after = getattr(old, name), getattr(new, name)
        extra = info.json_schema_extra
        if before == after or (isinstance(extra, dict) and extra.get("may_change_on_resume")):
            continue
        if isinstance(before, Settings) and type(before) is type(after):
            changed += resume_changes(before, after, f"{prefix}{name}.")
        else:
            changed.append(f"{prefix}{info.alias or name}: {shown(before)} -> {shown(after)}")
    return changed


def check_resume(old: Settings, new: Settings) -> None:
    """Raises ResumeRefused where `resume_changes` finds anything."""
    if changed := resume_changes(old, new):
        raise ResumeRefused(
            f"a resumed run must keep its config, and {'; '.join(changed)}: leave that as it was, or begin a new run"
        )


def _read(source: str, package: str) -> tuple[str, str]:
    names = preset_names(package)
    if source in names:
        file = resources.files(package) / f"{source}.yaml"
        return f"preset {source}", file.read_text(encoding="utf-8")
    path = Path(source)
    if path.suffix not in _SUFFIXES and not path.is_file():
        meant = nearest(source, names)
        hint = f"did you mean {meant}?" if meant else f"there are {', '.join(names) or 'none'}"
        if package == PRESETS and source in preset_names(FEDERATIONS):
            hint = f"it is a federation's: isogon federate run --preset {source}"
        elif package == FEDERATIONS and source in preset_names(PRESETS):
            hint = f"it is a training run's: isogon train {source}"
        raise ConfigError(f"unknown preset {source}: {hint} (a config of your own is a path that ends in .yaml)")
    try:
        return source, path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"config file {source} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file {source} is not UTF-8 text: byte {error.start}") from error


def _parse(text: str) -> _Override:
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise ConfigError(f"--set {text}: expected key=value, as in --set learner.double_q=false")
    try:
        return _Override(text, path, read_yaml(value))
    except YamlError as error:
        raise ConfigError(f"--set {text}: the value is no YAML: {error}") from error


def _complete(model: Model, data: Mapping[str, Any]) -> dict[str, Any]:
    """The data with the defaults of everything left out, so that one value of them can be replaced."""
    full = dict(data)
    for name, info in fields_of(model).items():
        if name not in full:
            if not info.is_required():
                full[name] = to_jsonable_python(info.get_default(call_default_factory=True))
        elif isinstance(full[name], Mapping) and (section := of_kind(sections_of(model, name), full[name])):
            full[name] = _complete(section, full[name])
    return full


def _apply(model: Model, data: dict[str, Any], change: _Override) -> None:
    models: tuple[Model, ...] = (model,)
    place: dict[str, Any] = data
    for depth, part in enumerate(change.path[:-1]):
        section = of_kind(models, place)
        models = sections_of(section, part) if section else ()
        inner = place.get(part)
        if inner is None:
            inner = place[part] = _complete(models[0], {}) if len(models) == 1 else {}
        if not isinstance(inner, dict):
            key = ".".join(change.path[: depth + 1])
            raise ConfigError(f"--set {change.text}: {key} is {shown(inner)}, a plain value without keys of its own")
        place = inner
    name = change.path[-1]
    if name == KIND and len(models) > 1 and place.get(KIND) != change.value:
        place.clear()
        place[KIND] = change.value
        if section := of_kind(models, place):
            place.update(_complete(section, place))
    place[name] = change.value


def _validated(model: type[SettingsT], data: dict[str, Any], origin: Origin) -> SettingsT:
    try:
        # As JSON, strict mode takes lists for tuples and whole numbers for floats, and nothing else for something else.
        return model.model_validate_json(json.dumps(data), strict=True)
    except (RecursionError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise ConfigError(f"{origin.source}: a value holds itself") from error
        lines = [one_line(model, problem, origin) for problem in error.errors(include_url=False)]
        more = len(lines) - _MOST_PROBLEMS
        rest = [f"and {more} more of this kind"] if more > 0 else []
        raise ConfigError("\n".join(lines[:_MOST_PROBLEMS] + rest)) from error


def _explained(section: Settings, indent: str) -> Iterator[str]:
    for field, info in type(section).model_fields.items():
        name, value = info.alias or field, getattr(section, field)
        about = meaning(type(section), name)
        if isinstance(value, Settings):
            yield f"{indent}{name}:  # {about or about_section(type(value))}"
            yield from _explained(value, f"{indent}  ")
        else:
            yield f"{indent}{write_entry(name, to_jsonable_python(value))}{f'  # {about}' if about else ''}"
