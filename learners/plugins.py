"""Own code that a config names as ``module:Class``: found, made, and told apart from Isogon's where it fails."""

from __future__ import annotations

import difflib
import inspect
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, field_validator

from .settings import Settings

if TYPE_CHECKING:
    from .encodings.spec import ArraySpec


_FLOORS = ("schedulers", "kernels", "learners", "actors", "system")


class PluginError(ValueError):
    """Own code that a config names cannot be used.

    The message is one line: where the config names it, what it gave or lacks, what is expected. Where the code raised,
    its exception is the cause, and the line names its file and line.
    """


class PluginConfig(Settings):
    """Own code, and what it is constructed with."""

    model_config = ConfigDict(validate_by_name=True)

    class_: str = Field(
        alias="class", description="module:Class; found in the working folder, on PYTHONPATH, installed"
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="passed to it by name")

    @field_validator("class_")
    @classmethod
    def _check(cls, name: str) -> str:
        module, _, path = name.partition(":")
        if not all(part.isidentifier() for part in [*module.split("."), *path.split(".")]):
            raise ValueError(f"{name!r} names no class: expected module:Class, as in my_code:MyClass")
        return name


@dataclass(frozen=True)
class Plugin:
    """Own code by its name.

    Attributes:
        key: where the config names it, such as ``environment``.
        name: ``module:Class``.
    """

    key: str
    name: str

    def __str__(self) -> str:
        return f"{self.key}.class {self.name}"

    def load(self) -> Callable[..., Any]:
        """Import the module and take the class or function out of it.

        Raises:
            PluginError: it does not import, has no such name, or that name cannot be called.
        """
        module_name, _, path = self.name.partition(":")
        with self.running("its import"):
            try:
                module = import_module(module_name)
            except ModuleNotFoundError as error:
                if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                    raise
                raise self.error(
                    f"there is no module {error.name} in the working folder {Path.cwd()}, on PYTHONPATH or installed"
                ) from None
        try:
            found = reduce(getattr, path.split("."), module)
        except AttributeError:
            names = [name for name, value in vars(module).items() if callable(value)]
            near = difflib.get_close_matches(path, names, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            file = f" ({_short(module.__file__)})" if module.__file__ else ""
            raise self.error(f"module {module_name}{file} has no {path}{hint}") from None
        if not callable(found):
            raise self.error(f"it is {_shown(found)}, expected a class")
        return found

    def make(self, *arguments: Any, **keywords: Any) -> Any:
        """Load it, and call it with these arguments. Raises PluginError also where it raises."""
        made = self.load()
        try:
            signature = inspect.signature(made)
        except (TypeError, ValueError):
            # Classes written in C may not tell.
            signature = None
        if signature is not None:
            try:
                signature.bind(*arguments, **keywords)
            except TypeError as error:
                given = ", ".join(
                    [*(_shown(argument) for argument in arguments), *(f"{name}=..." for name in keywords)]
                )
                raise self.error(
                    f"it is called with ({given}) and takes {_without_types(signature)}: {error}"
                ) from None
        with self.running("its construction"):
            return made(*arguments, **keywords)

    def require(self, found: Any, methods: tuple[str, ...]) -> None:
        """Raises PluginError where a class or an instance lacks one of these methods."""
        for method in methods:
            if not callable(getattr(found, method, None)):
                raise self.error(f"it lacks the method {method}: expected {', '.join(methods)}")

    def error(self, text: str) -> PluginError:
        """A `PluginError` about it."""
        return PluginError(f"{self}: {text}")

    @contextmanager
    def running(self, what: str) -> Iterator[None]:
        """Within it own code runs; whatever that raises becomes a PluginError."""
        try:
            yield
        except PluginError:
            raise
        except (Exception, SystemExit) as error:
            if type(error) is not SystemExit and isinstance(error, SystemExit):
                # A signal's, that came while own code ran.
                raise
            said = " ".join(str(error).split())
            where = where_raised(error)
            raise self.error(
                f"{what} raised {type(error).__name__}{f': {said}' if said else ''}{f' ({where})' if where else ''}"
            ) from error

    def check_arrays(self, what: str, given: Any, expected: Mapping[str, ArraySpec], size: int) -> None:
        """Check a mapping of numpy arrays, or of torch tensors, with a leading dimension of ``size``.

        Raises:
            PluginError: other fields, shapes or dtypes than expected, or no arrays.
        """
        if not isinstance(given, Mapping):
            raise self.error(f"{what} gave {_shown(given)}, expected a mapping with {_fields(expected)}")
        if given.keys() != expected.keys():
            raise self.error(f"{what} gave {_fields(given)}, expected {_fields(expected)}")
        for name, array in expected.items():
            self.check_array(f"{what} gave {name!r} as", given[name], (size, *array.shape), array.dtype)

    def check_array(self, what: str, given: Any, shape: tuple[int, ...], dtype: str) -> None:
        """Check one numpy array or torch tensor; ``what`` begins the sentence. Raises PluginError."""
        if tuple(getattr(given, "shape", ())) != shape or _dtype(given) != dtype:
            raise self.error(f"{what} {_shown(given)}, expected {dtype}{list(shape)}")


def where_raised(error: BaseException) -> str:
    """``file:line`` of the innermost own code that an exception went through; empty where it went through none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)]
    return f"{_short(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def _is_own(filename: str) -> bool:
    path = Path(filename)
    if not path.is_file():
        return False
    path = path.resolve()
    ours = [Path(__file__).resolve().parent.parent / floor for floor in _FLOORS]
    foreign = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    return not any(path.is_relative_to(folder.resolve()) for folder in (*ours, *foreign))


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def _without_types(signature: inspect.Signature) -> str:
    names = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(names))


def _dtype(given: Any) -> str:
    return str(getattr(given, "dtype", "")).removeprefix("torch.")


def _fields(named: Mapping[str, Any]) -> str:
    names = ", ".join(map(repr, named))
    return f"the field{'' if len(named) == 1 else 's'} {names or 'none'}"


def _shown(given: Any) -> str:
    """What was given, in a message: arrays by dtype and shape, anything else by its type."""
    if hasattr(given, "shape") and hasattr(given, "dtype"):
        return f"{_dtype(given)}{list(given.shape)}"
    return f"a {type(given).__name__}"
