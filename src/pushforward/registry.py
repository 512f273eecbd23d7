"""Classes that a model file may name, and the plain description of an object built from them.

A constructor stores every argument under the argument's own name, so an object's description can be read back from
its signature (scikit-learn's rule). Only registered classes are ever built from a description: nothing is imported.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from pushforward.errors import ConfigError, StorageError

__all__ = ["build", "describe", "names", "register", "registered"]

T = TypeVar("T", bound=type)
_CLASSES: dict[str, type] = {}
_DEEPEST = 12
_LONGEST = 100_000
_SEEDS = 2**64
_TYPES = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,), "None": (type(None),)}


def register(room: str) -> Callable[[T], T]:
    """Class decorator: let files and the contract tests know this class, as ``room.ClassName``."""

    def add(cls: T) -> T:
        name = f"{room}.{cls.__name__}"
        if name in _CLASSES and _CLASSES[name] is not cls:
            raise ConfigError(f"two classes are registered as {name!r}; choose another name.")
        _CLASSES[name] = cls
        return cls

    return add


def names(room: str = "") -> list[str]:
    """Registered names, of one room or of all."""
    return sorted(name for name in _CLASSES if name.startswith(room))


def registered(name: str) -> type:
    """The class of a registered name.

    Raises:
        StorageError: if no such class is registered; nothing is imported to look for it.
    """
    try:
        return _CLASSES[name]
    except (KeyError, TypeError):
        raise StorageError(
            f"the file names the class {str(name)[:80]!r}, which is not one of pushforward's; if it is your own, "
            "import the module that registers it before loading."
        ) from None


def describe(thing: Any) -> dict[str, Any]:
    """Plain description (JSON types only) of a registered object, read from its constructor's arguments."""
    cls = type(thing)
    name = next((key for key, value in _CLASSES.items() if value is cls), None)
    if name is None:
        raise ConfigError(
            f"{cls.__module__}.{cls.__qualname__} is not registered, so a file could not name it: decorate it with "
            "@pushforward.registry.register('transforms') (or distributions, models)."
        )
    arguments = {}
    for key, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            arguments[key] = [_plain(item, f"{name}.{key}") for item in getattr(thing, key)]
        elif parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            arguments[key] = _plain(getattr(thing, key), f"{name}.{key}")
    return {"class": name, "arguments": arguments}


def build(description: Any, *, largest: int = 10_000_000, _depth: int = 0) -> Any:
    """The object that :func:`describe` described.

    Args:
        description: what ``describe`` returned; may come from an untrusted file.
        largest: bound on every integer in it, so that a hostile file cannot ask for a huge model.

    Raises:
        StorageError: if it names an unregistered class, or its arguments do not fit that class.
    """
    if not isinstance(description, Mapping) or set(description) != {"class", "arguments"}:
        raise StorageError("the file's description of the model is not one that pushforward writes.")
    if _depth > _DEEPEST:
        raise StorageError("the file's description of the model is nested too deeply to be one of pushforward's.")
    cls = registered(description["class"])
    arguments = description["arguments"]
    if not isinstance(arguments, Mapping):
        raise StorageError(f"the file describes {description['class']} without its arguments.")
    parameters = inspect.signature(cls).parameters
    unknown = set(arguments) - set(parameters)
    if unknown:
        raise StorageError(f"the file gives {description['class']} unknown arguments: {str(sorted(unknown))[:200]}.")
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for key, value in arguments.items():
        parameter = parameters[key]
        annotation = str(getattr(parameter.annotation, "__name__", parameter.annotation))
        harmless = key == "seed" or annotation in ("float", "float | None")  # no size, whatever its value
        restored = _restore(value, _SEEDS if harmless else largest, _depth)
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL and isinstance(restored, tuple):
            positional.extend(restored)
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL and _fits(restored, annotation):
            named[key] = restored
        else:
            raise StorageError(f"the file gives {description['class']} the argument {key}={str(value)[:80]}.")
    try:
        return cls(*positional, **named)
    except StorageError:
        raise
    except Exception as error:  # a hostile file can hold any argument; every failure means the same to the caller
        raise StorageError(f"the file's arguments do not fit {description['class']}: {str(error)[:300]}") from error


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value has the type that a constructor's parameter states; True for all but the plain types."""
    types = [_TYPES.get(part.strip()) for part in annotation.split("|")]
    return None in types or type(value) in {kind for kinds in types if kinds for kind in kinds}


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, numbers.Real):  # of numpy
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if isinstance(value, (list, tuple, nn.ModuleList)) or (
        isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    ):
        return [_plain(item, where) for item in value]
    if type(value) in _CLASSES.values():
        return describe(value)
    raise ConfigError(f"{where} holds a {type(value).__name__}, which a model file cannot hold.")


def _restore(value: Any, largest: int, depth: int) -> Any:
    if isinstance(value, Mapping):
        return build(value, largest=largest, _depth=depth + 1)
    if isinstance(value, list):
        if len(value) > _LONGEST:
            raise StorageError(f"the file's description holds a list of {len(value)} items, too many for a model.")
        return tuple(_restore(item, largest, depth) for item in value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > largest:
        raise StorageError(f"the file's description asks for a size of {value}, more than the file itself could hold.")
    return value
