"""What is wrong with a config, in one line: the key, its value, where it came from, what is expected."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails, to_jsonable_python

from ...learners.settings import Settings
from .keys import KIND, Model, Place, fields_of, kind_of, locate, nearest, sections_of, suggest

_WIDEST_VALUE = 60


@dataclass(frozen=True)
class Origin:
    """Where a config's values came from.

    Attributes:
        source: the preset or file.
        overrides: ``key=value`` by dotted key, as given with ``--set``.
    """

    source: str
    overrides: dict[str, str]

    def of(self, key: str, *, missing: bool = False) -> str:
        """Who gave this key its value; for a missing one, who made it needed. An empty key means the whole config."""
        if not key:
            return " with --set ".join([self.source, *self.overrides.values()])
        section = key.rpartition(".")[0] if missing else key
        for path, text in reversed(self.overrides.items()):
            if path == key or key.startswith((f"{path}.", f"{path}[")) or (section and path.startswith(f"{section}.")):
                return f"--set {text}"
        return self.source


def shown(value: Any) -> str:
    """A value in a message: on one line, as YAML reads it, not too wide."""
    text = json.dumps(to_jsonable_python(value, fallback=str), ensure_ascii=False)
    return text if len(text) <= _WIDEST_VALUE else f"{text[: _WIDEST_VALUE - 4]} ..."


def meaning(model: Model, name: str) -> str:
    """What a key is for: its description; a section's is the first sentence about it, where it has one kind."""
    if about := fields_of(model)[name].description:
        return about
    sections = sections_of(model, name)
    return about_section(sections[0]) if len(sections) == 1 else ""


def about_section(model: Model) -> str:
    """The first sentence of a section's docstring."""
    return (model.__doc__ or "").split(". ")[0].strip().removesuffix(".")


def one_line(root: type[Settings], problem: ErrorDetails, origin: Origin) -> str:
    """A problem that Pydantic found, for the person who wrote the config."""
    place = locate(root, problem["loc"])
    where = origin.of(place.key, missing=problem["type"] in ("missing", "union_tag_not_found"))
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key {place.key} in {where}: {suggest(root, place)}"
        case "missing":
            about = meaning(place.parent, place.name) if place.parent else ""
            return f"{place.key} is missing in {where}{f': {about}' if about else ''}"
        case "union_tag_not_found":
            return f"{place.key}.{KIND} is missing in {where}: expected one of {', '.join(_kinds(place))}"
        case "union_tag_invalid":
            kind, kinds = problem["ctx"]["tag"], _kinds(place)
            meant = nearest(str(kind), kinds)
            hint = f"; did you mean {meant}?" if meant else ""
            return f"{place.key}.{KIND} is {shown(kind)} in {where}: expected one of {', '.join(kinds)}{hint}"
        case "value_error":
            reason = problem["msg"].removeprefix("Value error, ")
            return f"{place.key} in {where}: {reason}" if place.key else f"{where}: {reason}"
        case "model_type" | "model_attributes_type" if place.parent and (
            models := sections_of(place.parent, place.name)
        ):
            fields = fields_of(models[0])
            key = next((name for name, info in fields.items() if info.is_required()), next(iter(fields)))
            kept = f"expected a section of keys ({', '.join(fields)}), as in {place.key}.{key}=..."
            return f"{place.key} is {shown(problem['input'])} in {where}: {kept}"
    return f"{place.key} is {shown(problem['input'])} in {where}: {_expected(problem)}"


def _expected(problem: ErrorDetails) -> str:
    context, message = problem.get("ctx", {}), problem["msg"]
    match problem["type"]:
        case "literal_error":
            words = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            meant = nearest(str(problem["input"]), words)
            return f"expected {context['expected']}{f'; did you mean {meant}?' if meant else ''}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "expected a section of keys and values"
        case "too_short":
            return f"expected at least {context['min_length']} of them"
        case "string_pattern_mismatch":
            return f"expected a word that matches {context['pattern']}"
        case _:
            return message.replace("Input should be ", "expected ").replace(
                "expected greater", "expected a value greater"
            )


def _kinds(place: Place) -> list[str]:
    return [kind_of(model) for model in sections_of(place.parent, place.name)] if place.parent else []
