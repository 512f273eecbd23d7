"""The classes that a model file may name, and the description of an object by its class and its constructor's arguments.

A constructor stores every argument in an attribute of the same name, as in scikit-learn, so that :func:`describe` finds the
arguments again. :func:`build` creates registered classes only and imports nothing.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from pushforward.errors import ConfigError, StorageError, in_words

__all__ = ["build", "describe", "names", "register", "registered"]

T = TypeVar("T", bound=type)
_CLASSES: dict[str, type] = {}
_DEEPEST = 12
_LONGEST = 100_000
_SEEDS = 2**64
_BASES = {
    "pushforward.transforms.base.Transform": "transforms",
    "pushforward.transforms.transformers.base.Transformer": "transformers",
    "pushforward.transforms.stochastic.likelihoods.Likelihood": "likelihoods",
    "pushforward.distributions.base.Distribution": "distributions",
    "pushforward.models.base.Model": "models",
    "pushforward.detection.scores.base.Statistic": "scores",
}
"""The packages of classes that are derived from these; the names, since the modules of the bases import this one."""
_TYPES = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,), "None": (type(None),)}


class UnregisteredError(StorageError):
    """A file names a class that is not registered."""


def register(package: str) -> Callable[[T], T]:
    """Class decorator: the class may appear in files, as ``package.ClassName``, and the contract tests cover it.

    Args:
        package: of pushforward: "transforms", "transformers", "likelihoods", "distributions", "models" or "scores"; "networks"
            for their parts. It is the first half of the name in a file, and nothing else depends on it.

    Raises:
        ConfigError: if another class has this name.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.registry import register
        >>> @register("transforms")
        ... class Double(pf.transforms.Affine):
        ...     pass
        >>> pf.registry.registered("transforms.Double") is Double
        True
    """

    def add(cls: T) -> T:
        name = f"{package}.{cls.__name__}"
        if name in _CLASSES and _CLASSES[name] is not cls:
            raise ConfigError(f"two classes are registered as {name!r}; choose another name.")
        _CLASSES[name] = cls
        return cls

    return add


def names(prefix: str = "") -> list[str]:
    """The registered names that start with a prefix, such as "transforms."; all of them by default.

    Example:
        >>> import pushforward as pf
        >>> "transforms.SoftTail" in pf.registry.names("transforms.")
        True
    """
    return sorted(name for name in _CLASSES if name.startswith(prefix))


def registered(name: str) -> type:
    """The class of a registered name.

    Raises:
        StorageError: if no class is registered under it.

    Example:
        >>> import pushforward as pf
        >>> pf.registry.registered("transforms.SoftTail").__name__
        'SoftTail'
    """
    try:
        return _CLASSES[name]
    except (KeyError, TypeError):
        raise UnregisteredError(
            f"the file names the class {str(name)[:80]!r}, which is not one of pushforward's; if it is your own, "
            "import the module that registers it before loading, in Python: the commands import no modules of yours."
        ) from None


def describe(thing: Any) -> dict[str, Any]:
    """The class and the constructor's arguments of a registered object, in JSON types.

    Raises:
        ConfigError: if the object's class, or that of an argument, is not registered, or if it does not keep an argument.

    Example:
        >>> import pushforward as pf
        >>> pf.registry.describe(pf.transforms.SoftTail(2, width=3.0))
        {'class': 'transforms.SoftTail', 'arguments': {'features': 2, 'width': 3.0}}
    """
    cls = type(thing)
    name = next((key for key, value in _CLASSES.items() if value is cls), None)
    if name is None:
        raise ConfigError(
            f"{cls.__module__}.{cls.__qualname__} is not registered, so a file cannot name it: {_instead(cls)}."
        )
    arguments = {}
    for key, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            arguments[key] = [_plain(item, f"{name}.{key}") for item in _argument(thing, name, key)]
        elif parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            value = _argument(thing, name, key)
            # 0, 1 and numpy's truth values work as well as False and True, and a file allows only these for a bool.
            truth = parameter.annotation in (bool, "bool") and value in (0, 1)
            arguments[key] = bool(value) if truth else _plain(value, f"{name}.{key}")
    return {"class": name, "arguments": arguments}


def build(description: Any, *, largest: int = 10_000_000, _depth: int = 0) -> Any:
    """The object that :func:`describe` described.

    Args:
        description: what :func:`describe` returned; it may come from an untrusted file.
        largest: bound on every integer in it, so that a malicious file cannot request a huge model.

    Raises:
        StorageError: if it names an unregistered class, or its arguments do not fit that class.

    Example:
        >>> import pushforward as pf
        >>> description = pf.registry.describe(pf.transforms.SoftTail(2, width=3.0))
        >>> pf.registry.build(description).width
        3.0
    """
    if not isinstance(description, Mapping) or set(description) != {"class", "arguments"}:
        raise StorageError(
            "the file does not describe its model by a class and its arguments, as files of pushforward do."
        )
    if _depth > _DEEPEST:
        raise StorageError(
            f"the file's description of the model is nested more than {_DEEPEST} levels deep, which no model needs."
        )
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
        no_size = key == "seed" or annotation in ("float", "float | None")
        restored = _restore(value, _SEEDS if no_size else largest, _depth)
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
    except Exception as error:  # a malicious file may hold any arguments, and so cause any error
        what = str(error)[:300] if isinstance(error, ValueError) else in_words(error)
        raise StorageError(f"the file's arguments do not fit {description['class']}: {what}") from error


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value has the type that a constructor's parameter states. Types that JSON does not have always fit."""
    types = [_TYPES.get(part.strip()) for part in annotation.split("|")]
    return None in types or type(value) in {allowed for some in types if some for allowed in some}


def _argument(thing: Any, name: str, key: str) -> Any:
    try:
        return getattr(thing, key)
    except AttributeError:
        raise ConfigError(
            f"{name} does not keep the argument {key} of its constructor, which a file needs: set self.{key} = {key} there."
        ) from None


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, numbers.Real):  # a scalar of numpy
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if isinstance(value, (list, tuple, nn.ModuleList)) or (
        isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    ):
        return [_plain(item, where) for item in value]
    if type(value) in _CLASSES.values():
        return describe(value)
    if isinstance(value, nn.Module) or _package(type(value)) != "networks":
        raise ConfigError(
            f"{where} is a {type(value).__name__}, and this class is not registered, so a file cannot name it: "
            f"{_instead(type(value))}."
        )
    raise ConfigError(
        f"{where} is a {type(value).__name__}, which a model file cannot store: give numbers, text, lists of these, or objects of "
        "registered classes."
    )


def _instead(cls: type) -> str:
    """What to do about a class that is not registered."""
    if cls.__module__.startswith("pushforward."):  # it holds objects of other libraries, which no file describes
        return "write a registered class that does the same"
    return f"decorate it with @pushforward.registry.register({_package(cls)!r})"


def _package(cls: type) -> str:
    """The package under which to register a class; "networks" for one that is derived from none of pushforward's bases."""
    bases = (f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__)
    return next((_BASES[base] for base in bases if base in _BASES), "networks")


def _restore(value: Any, largest: int, depth: int) -> Any:
    if isinstance(value, Mapping):
        return build(value, largest=largest, _depth=depth + 1)
    if isinstance(value, list):
        if len(value) > _LONGEST:
            raise StorageError(f"the file describes a model with a list of {len(value)} items; the most is {_LONGEST}.")
        return tuple(_restore(item, largest, depth) for item in value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > largest:
        raise StorageError(f"the file describes a model with a size of {value}, which is more than its weights allow.")
    return value
