"""The YAML that configs are written in: YAML 1.2's core schema, with duplicate keys refused.

PyYAML follows YAML 1.1, in which ``1e-3`` is a string, ``no`` is a boolean, ``1:30`` is the number 90 and ``010`` is
8. Here numbers are what they are in Python, ``10_000`` included; a whole number with an exponent, such as ``2e5``, is
an integer; only ``true`` and ``false`` are booleans. Reading and writing use the same rules, so that what is written
reads back the same.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, ClassVar

import yaml

_EXACT_INTEGERS = 2**53
"""Up to here every float that is a whole number is also that integer."""

_RESOLVERS = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*\.[0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)


class YamlError(ValueError):
    """The text is not YAML of this kind. The message is one line and says where."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML declares it, and its type
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} stands there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML declares it, and its type

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node).replace("_", ""), 0)


def _number(loader: _Loader, node: yaml.ScalarNode) -> float | int:
    text = loader.construct_scalar(node).replace("_", "").lower()
    if "e" in text:
        exact = Decimal(text)
        if abs(exact) < _EXACT_INTEGERS and exact == exact.to_integral_value():
            return int(exact)
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _refused(loader: _Loader, node: yaml.Node) -> Any:
    raise yaml.MarkedYAMLError(problem=f"tag {node.tag!r} has no place in a config", problem_mark=node.start_mark)


for _tag, _pattern, _first in _RESOLVERS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), [*_first.replace("\0", ""), ""])
for _kind in ("null", "bool", "str", "seq", "map"):
    _tag = f"tag:yaml.org,2002:{_kind}"
    _Loader.add_constructor(_tag, yaml.SafeLoader.yaml_constructors[_tag])
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_constructor(None, _refused)


def read_yaml(text: str) -> Any:
    """The value that one YAML document stands for: None, bool, int, float, str, lists and mappings of these.

    Raises:
        YamlError: broken syntax, a key given twice, a tag, an alias within itself.
    """
    try:
        # _Loader is a SafeLoader with fewer constructors.
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlError(f"{where}{', '.join(filter(None, (error.context, error.problem)))}") from error
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from error


def write_yaml(value: Any) -> str:
    """One YAML document that `read_yaml` turns into ``value``; lists and mappings of plain values stand on one line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def write_entry(key: str, value: Any) -> str:
    """``key: value`` on one line, without a line's end."""
    alone = yaml.dump([value], Dumper=_Dumper, allow_unicode=True, default_flow_style=True, width=float("inf"))
    return f"{key}: {alone.strip()[1:-1]}"
