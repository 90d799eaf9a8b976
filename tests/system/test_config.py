"""The config models as a whole: every field says what it is, every default is one that the field accepts."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from isogon.actors.config import ActorsConfig
from isogon.learners.settings import Settings
from isogon.system.config.files import load_config, preset_names
from isogon.system.config.keys import sections_of
from isogon.system.config.run import RunConfig


def models(model: type[Settings]) -> Iterator[type[Settings]]:
    yield model
    for name in model.model_fields:
        for section in sections_of(model, name):
            yield from models(section)


MODELS = sorted(set(models(RunConfig)), key=lambda model: model.__name__)
FIELDS = [pytest.param(model, name, id=f"{model.__name__}.{name}") for model in MODELS for name in model.model_fields]


def test_models_are_found() -> None:
    assert {"RunConfig", "WordleConfig", "GymnasiumConfig", "LetterTiedConfig", "Schedule"} <= {
        model.__name__ for model in MODELS
    }


@pytest.mark.parametrize(("model", "name"), FIELDS)
def test_every_field_says_what_it_is(model: type[Settings], name: str) -> None:
    field = model.model_fields[name]
    # A section is described by its models, and a word that only tells a section's kinds apart by the kind's model.
    tells_kinds_apart = name == "kind" and len(get_args(field.annotation)) == 1
    sections = sections_of(model, name)
    assert field.description or tells_kinds_apart or (sections and all(section.__doc__ for section in sections))
    assert not (field.description or "").endswith(".")


@pytest.mark.parametrize(("model", "name"), FIELDS)
def test_every_default_is_valid(model: type[Settings], name: str) -> None:
    field = model.model_fields[name]
    if field.is_required():
        return
    default = field.get_default(call_default_factory=True)
    adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
    assert adapter.validate_json(to_json(default), strict=True) == default


@pytest.mark.parametrize("model", MODELS)
def test_models_are_frozen_and_closed(model: type[Settings]) -> None:
    assert model.model_config["frozen"]
    assert model.model_config["extra"] == "forbid"


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_and_carry_their_own_name(name: str) -> None:
    config = load_config(name)
    assert config.name == name
    with pytest.raises(ValidationError):
        config.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "condition"),
    [
        ("zone", "left"), ("zone", "!left"), ("zone", "in(left, right)"), ("zone", "!in(left,right)"),
        ("a.b/zone", "x"), ("zone", "a b"), ("zo ne", "left"), ("zone", "in()"), ("zone", "-left"), ("zone", "x" * 64),
    ],
)  # fmt: skip
def test_label_selectors_are_those_that_ray_takes(key: str, condition: str) -> None:
    import ray

    def ray_takes() -> bool:
        try:
            ray.remote(label_selector={key: condition})(type("Actor", (), {}))
        except ValueError:
            return False
        return True

    def isogon_takes() -> bool:
        try:
            ActorsConfig(label_selector={key: condition})
        except ValueError:
            return False
        return True

    assert isogon_takes() == ray_takes()
