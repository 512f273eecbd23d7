"""Modules as plain descriptions and tensors, and models as files."""

from __future__ import annotations

import json
import threading
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from pushforward import (  # models imports distributions and transforms, so all that a file may name is registered
    models,
    registry,
)
from pushforward.errors import ConfigError, KindWarning, StorageError
from pushforward.io.container import Path, read, write

__all__ = ["load", "pack", "save", "unpack"]

_INTEGERS = 65_536
_VALUES = ("add_", "copy_", "div_", "fill_", "mul_", "normal_", "sub_", "uniform_", "zero_")


def save(model: models.Model, path: Path) -> None:
    """Write a model to one safetensors file: weights, architecture and preprocessing, no code.

    The file is whole or not there: a crash at any moment leaves what stood at ``path`` before.

    Args:
        model: any model of pushforward, or a :class:`~pushforward.models.Flow` of registered parts.
        path: where; by custom ``name.safetensors``.

    Raises:
        ConfigError: if the model has a part that a file cannot name.
        StorageError: if the file cannot be written.

    Example:
        >>> import tempfile, pathlib, torch, pushforward as pf
        >>> model = pf.models.NICE(features=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pf.save(model, pathlib.Path(folder, "m.safetensors"))
        ...     again = pf.load(pathlib.Path(folder, "m.safetensors"))
        >>> torch.equal(model.log_prob(torch.ones(1, 2)), again.log_prob(torch.ones(1, 2)))
        True
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if not isinstance(model, models.Model):
        raise ConfigError(f"pf.save stores models; got {type(model).__name__}. Guards and densities have .save(path).")
    description, tensors = pack(model)
    write(path, {"kind": "model", "model": description}, tensors)


def load(path: Path, device: str | torch.device = "cpu") -> models.Model:
    """The model that :func:`save` wrote, in evaluation mode, with weights of the type they had.

    Nothing is executed and nothing imported: a file that was damaged or made to harm gives an error, and no more. A
    model with parts of your own loads once the module that registers them has been imported.

    Args:
        path: the file.
        device: where the weights go.

    Raises:
        FormatVersionError: if a newer version of pushforward wrote the file, or an early version 0.1.
        StorageError: if there is no such file, or it is damaged, or does not hold a model.
        ConfigError: if the device is not there.
    """
    header, tensors = read(path, "model")
    try:
        model = unpack(header.get("model"), tensors)
        if not isinstance(model, models.Model):
            raise StorageError(f"its description is of {type(model).__name__}, which is not a model.")
    except StorageError as error:
        raise StorageError(f"{path} does not hold a model that can be built: {error}") from error
    try:
        return model.to(device)
    except Exception as error:  # torch raises what each device likes
        raise ConfigError(f"cannot bring the model to the device {device!r}: {str(error)[:200]}") from error


def pack(module: nn.Module, prefix: str = "") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description (plain JSON types) and state of a registered module, so that :func:`unpack` can make it again.

    That it can is tried here, so that no file is written which would not load.

    Args:
        module: of a registered class.
        prefix: goes before every tensor's name, to keep several modules in one file.

    Returns:
        The description, and the live tensors (not copies) by name.

    Raises:
        ConfigError: if a part is not registered, or holds state that its ``state_dict`` lacks.
    """
    description = registry.describe(module)
    try:
        description = json.loads(json.dumps(description, allow_nan=False))  # as the file will give it
    except ValueError:
        raise ConfigError(f"{type(module).__name__} has an argument that is infinite or NaN: not storable.") from None
    state = module.state_dict()
    kept = {name for name, _ in (*module.named_parameters(), *module.named_buffers())} - set(state)
    kept |= {name for name, value in state.items() if not isinstance(value, Tensor)}
    loose = [
        f"{name}.{key}" for name, part in module.named_modules() for key, value in vars(part).items()
        if isinstance(value, Tensor)
    ]  # fmt: skip
    if kept or loose:
        raise ConfigError(
            f"{type(module).__name__} keeps state that a file would lose: {_few([*kept, *loose])}; make it "
            "a persistent buffer (register_buffer)."
        )
    try:
        _skeleton(description, state, None)
    except StorageError as error:
        raise ConfigError(f"a {type(module).__name__} that is saved could not be loaded again: {error}") from error
    return description, {prefix + name: tensor for name, tensor in state.items()}


def unpack(description: Any, tensors: Mapping[str, Tensor], prefix: str = "", limit: int | None = None) -> nn.Module:
    """The module that :func:`pack` took apart, in evaluation mode, holding the given tensors themselves.

    Args:
        description: from a file, so not trusted: it can name registered classes only, and is first built without
            memory (on the meta device), within bounds that follow from the tensors.
        tensors: what the file holds.
        prefix: which of them are this module's.
        limit: largest integer that the description may hold; by default what the tensors make plausible.

    Raises:
        StorageError: if the description cannot be built, or tensors are missing, left over, or of another shape.
    """
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    module = _skeleton(description, state, limit)
    groups = defaultdict(list)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        groups[parameter].append(name)
    for parameter, tied in groups.items():
        shared = nn.Parameter(state[tied[0]], requires_grad=parameter.requires_grad)
        state.update(dict.fromkeys(tied, shared))
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval()


def _skeleton(description: Any, state: Mapping[str, Tensor], limit: int | None) -> nn.Module:
    """The module without memory, once its tensors' names, shapes and types are known to be those of ``state``."""
    if limit is None:
        limit = max([_INTEGERS, *(4 * size for t in state.values() if t.numel() for size in t.shape)])
    with ExitStack() as stack:
        stack.enter_context(_budget(2 * len(state) + 64, 32 * (len(state) + _nodes(description)) + 256))
        stack.enter_context(torch.device("meta"))
        stack.enter_context(_Blank())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", KindWarning)  # said when the model was first made
        module = registry.build(description, largest=limit)
    if not isinstance(module, nn.Module):
        raise StorageError(f"the file describes a {type(module).__name__}, which holds no weights.")
    wanted = module.state_dict()
    for problem, names in (("lacks", wanted.keys() - state.keys()), ("has left over", state.keys() - wanted.keys())):
        if names:
            raise StorageError(f"the file {problem} {_few(names)} of the tensors of {type(module).__name__}.")
    for name, want in wanted.items():
        got = state[name]
        owner, _, leaf = name.rpartition(".")
        learned = leaf in getattr(module.get_submodule(owner), "_declared", ())  # sized by what fitting found
        if got.shape != want.shape and not (learned and got.dim() == want.dim()):
            raise StorageError(f"the tensor {name!r} has shape {tuple(got.shape)} and needs {tuple(want.shape)}.")
        if got.dtype is not want.dtype and not (got.is_floating_point() and want.is_floating_point()):
            raise StorageError(f"the tensor {name!r} is {got.dtype} and needs to be {want.dtype}.")
    return module


class _Blank(TorchFunctionMode):
    """Skip what only changes values: a skeleton has none, and torch's first such step on meta imports for a second."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _VALUES and args and isinstance(args[0], Tensor):
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def _budget(tensors: int, modules: int) -> Iterator[None]:
    """Stop a constructor that makes more tensors or modules than the file has weights for.

    Bounds on integers alone do not do it: ``layers=60000`` of ``hidden=[9, 9, ...]`` keeps each of them.
    """
    left = {"tensors": tensors, "modules": modules}
    thread = threading.get_ident()

    def count(what: str) -> None:
        if threading.get_ident() == thread:
            left[what] -= 1
            if left[what] < 0:
                raise StorageError(f"its description asks for more {what} than the file has weights for.")

    with ExitStack() as stack:
        for register, what in (
            (hooks.register_module_parameter_registration_hook, "tensors"),
            (hooks.register_module_buffer_registration_hook, "tensors"),
            (hooks.register_module_module_registration_hook, "modules"),
        ):
            stack.callback(register(lambda *_, what=what: count(what)).remove)
        yield


def _nodes(description: Any) -> int:
    """How many objects a description names."""
    count, waiting = 0, [description]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            count += "class" in item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return count


def _few(names: Collection[str]) -> str:
    shown = ", ".join(repr(name[:80]) for name in sorted(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
