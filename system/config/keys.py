"""The keys that a config may have, where each stands, and which one a mistyped key was meant to be.

A section is a `Settings` model inside another. A section of several kinds, such as ``environment``, is one of several
models, told apart by its key ``kind``; Pydantic puts the kind into the location of an error, people do not.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ...learners.settings import Settings

Model: TypeAlias = type[Settings]
KIND = "kind"


@dataclass(frozen=True)
class Place:
    """Where an error is.

    Attributes:
        key: dotted, as a user writes it; empty for the whole config.
        name: its last part.
        parent: the model it belongs to, or None inside a free mapping.
        siblings: all models that the parent's section may be, more than one where it has kinds.
    """

    key: str
    name: str
    parent: Model | None
    siblings: tuple[Model, ...]


def fields_of(model: Model) -> dict[str, FieldInfo]:
    """A model's fields by the key that a user writes, which for ``class`` and its like is an alias of the name."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def models_of(annotation: Any) -> tuple[Model, ...]:
    """The models that a value of this annotation may be; empty unless it is a section."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return (annotation,)
    if get_origin(annotation) is Annotated:
        return models_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(model for argument in get_args(annotation) for model in models_of(argument))
    return ()


def sections_of(model: Model, name: str) -> tuple[Model, ...]:
    """The models that the key ``name`` of ``model`` may be; empty for a plain value and for a key that is not there."""
    return models_of(fields_of(model)[name].annotation) if name in fields_of(model) else ()


def kind_of(model: Model) -> str:
    """The word that chooses this model among a section's kinds."""
    return str(model.model_fields[KIND].default)


def of_kind(models: Sequence[Model], section: Any) -> Model | None:
    """The model that a section's data ask for, or None where they do not say, or say wrongly."""
    if len(models) == 1:
        return models[0]
    kind = section.get(KIND) if isinstance(section, Mapping) else None
    return next((model for model in models if kind_of(model) == kind), None)


def all_keys(model: Model, prefix: str = "") -> Iterator[str]:
    """Every dotted key that a config of this model may have, sections and all kinds included."""
    seen = set()
    for name in fields_of(model):
        yield (key := f"{prefix}{name}")
        for section in sections_of(model, name):
            for inner in all_keys(section, f"{key}."):
                if inner not in seen:
                    seen.add(inner)
                    yield inner


def locate(root: Model, location: Sequence[str | int]) -> Place:
    """The place that a Pydantic error's ``loc`` means."""
    section: Model | None = root
    kinds: tuple[Model, ...] = (root,)
    place = Place("", "", None, ())
    for part in location:
        if section is None and len(kinds) > 1:
            section = next((model for model in kinds if kind_of(model) == part), None)
            continue
        step = f"[{part}]" if isinstance(part, int) else f".{part}" if place.key else str(part)
        place = Place(place.key + step, str(part), section, kinds)
        kinds = sections_of(section, str(part)) if section else ()
        section = kinds[0] if len(kinds) == 1 else None
    return place


def nearest(word: str, words: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The most similar word, if any is similar enough. A hyphen counts as an underscore, and case does not count."""
    known = list(words)
    found = difflib.get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=cutoff)
    return found[0] if found else None


def suggest(root: Model, place: Place) -> str:
    """What to do about an unknown key: the nearest valid one, or those that there are. The last half of a sentence."""
    if place.parent is None:
        return "there is no such key"
    prefix = place.key[: len(place.key) - len(place.name)]
    for model in place.siblings:
        if place.name in fields_of(model) and place.parent is not model:
            return f"it belongs to {prefix}{KIND} {kind_of(model)}, and {prefix}{KIND} is {kind_of(place.parent)}"
    fields = fields_of(place.parent)
    elsewhere = {key.rpartition(".")[2]: key for key in all_keys(root) if key.rpartition(".")[0] + "." != prefix}
    meant = nearest(place.name, fields, 0.7)
    if meant is None and (far := nearest(place.name, elsewhere, 0.85)):
        return f"did you mean {elsewhere[far]}?"
    meant = meant or nearest(place.name, fields)
    return f"did you mean {prefix}{meant}?" if meant else f"valid here: {', '.join(fields)}"
