"""Models as files, and modules as plain descriptions and tensors.

``file_format.py`` verifies the bytes of a file before anything here reads them.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from pushforward import (
    models,  # imports all transforms and distributions, which registers the classes that a file can name
    registry,
)
from pushforward.errors import ConfigError, KindWarning, StorageError, collected
from pushforward.io.file_format import Path, read, write
from pushforward.io.shapes import ShapesOnly
from pushforward.transforms.base import Transform

__all__ = ["load", "pack", "save", "unpack"]

_SMALLEST_LIMIT = 65_536


def save(model: models.Model, path: Path) -> None:
    """Write a model to one safetensors file: weights, architecture and preprocessing, no code.

    The write is atomic: after a crash the file is the new one or the one that was at ``path`` before.

    Args:
        model: any model of pushforward, or a :class:`~pushforward.models.Flow` of registered parts.
        path: the file, usually ``name.safetensors``.

    Raises:
        ConfigError: if the model has a part that is not registered, or state that a file would lose.
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
    model = getattr(model, "_orig_mod", model)  # the model that torch.compile wrapped
    if not isinstance(model, models.Model):
        if isinstance(getattr(model, "model", None), models.Model):
            raise ConfigError(
                f"pf.save stores models; got {type(model).__name__}: give its model, pf.save(fit.model, path)."
            )
        if isinstance(model, nn.Module):
            raise ConfigError(
                f"pf.save stores models of pushforward; got {type(model).__name__}: a score is stored with its guard, by "
                "Guard(score=...).fit(rows).save(path), and a network by torch.save(network.state_dict(), path)."
            )
        raise ConfigError(
            f"pf.save stores models; got {type(model).__name__}. Guards, densities and posteriors from simulations have a method "
            "save(path): call posterior.save(path)."
        )
    description, tensors = pack(model)
    write(path, {"kind": "model", "model": description}, tensors)


def load(path: Path, device: str | torch.device = "cpu", *, public_key: Path | None = None) -> models.Model:
    """Read the model that :func:`save` wrote, in evaluation mode, with the dtypes of its weights.

    Reading executes no code of the file and imports nothing, so a damaged or malicious file causes an error and nothing
    else. A model with parts of your own can be read after an import of the module that registers them.

    Args:
        path: the file.
        device: the device of the weights.
        public_key: file of the key with which the file must be signed, see :func:`~pushforward.io.sign`; None accepts any.

    Raises:
        FormatVersionError: if a newer version of pushforward wrote the file, or an early version 0.1.
        SignatureError: if a key is given, and the file is not signed with it or was changed since.
        StorageError: if there is no such file, it is damaged, or it does not contain a model.
        ConfigError: if the device is not available.

    Example:
        >>> import pathlib, tempfile, torch, pushforward as pf
        >>> path = pathlib.Path(tempfile.mkdtemp(), "model.safetensors")
        >>> model = pf.models.NICE(features=2)
        >>> pf.save(model, path)
        >>> again = pf.load(path)
        >>> torch.equal(again.log_prob(torch.zeros(1, 2)), model.log_prob(torch.zeros(1, 2)))
        True
    """
    header, tensors = read(path, "model", public_key=public_key)
    try:
        model = unpack(header.get("model"), tensors)
        if not isinstance(model, models.Model):
            raise StorageError(f"it describes a {type(model).__name__}, which is not a model.")
    except StorageError as error:
        raise StorageError(f"{path} does not contain a model that can be built: {error}") from error
    try:
        return model.to(device)
    except Exception as error:  # torch raises errors of different types for different devices
        raise ConfigError(f"cannot move the model to the device {device!r}: {str(error)[:200]}") from error


def pack(module: nn.Module, prefix: str = "") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description (plain JSON types) and the state of a registered module, from which :func:`unpack` rebuilds it.

    The module is rebuilt here once without weights, so that no file is written that could not be read.

    Args:
        module: a module of a registered class.
        prefix: text before the name of every tensor, so that one file can store several modules.

    Returns:
        The description, and the tensors of the module (not copies) by name.

    Raises:
        ConfigError: if a part is not registered, or has state that its ``state_dict`` lacks.

    Example:
        >>> import pushforward as pf
        >>> description, tensors = pf.io.pack(pf.transforms.Standardize(2))
        >>> description["class"], sorted(tensors)
        ('transforms.Standardize', ['initialized', 'mean', 'scale'])
    """
    description = registry.describe(module)
    try:
        description = json.loads(json.dumps(description, allow_nan=False))  # with the types that the file returns
    except ValueError:
        raise ConfigError(
            f"{type(module).__name__} has an argument that is infinite or NaN, which a file cannot store."
        ) from None
    state = module.state_dict()
    kept = {name for name, _ in (*module.named_parameters(), *module.named_buffers())} - set(state)
    kept |= {name for name, value in state.items() if not isinstance(value, Tensor)}
    loose = [
        f"{name}.{key}" for name, part in module.named_modules() for key, value in vars(part).items()
        if isinstance(value, Tensor)
    ]  # fmt: skip
    if kept or loose:
        raise ConfigError(
            f"{type(module).__name__} has state that a file would lose: {_first_names([*kept, *loose])}. Make it a persistent "
            "buffer with register_buffer."
        )
    try:
        _without_memory(description, state, None)
    except StorageError as error:
        raise ConfigError(f"{type(module).__name__} could not be loaded from a file: {error}") from error
    return description, {prefix + name: tensor for name, tensor in state.items()}


def unpack(description: Any, tensors: Mapping[str, Tensor], prefix: str = "", limit: int | None = None) -> nn.Module:
    """Rebuild the module that :func:`pack` described, in evaluation mode. Its parameters are the given tensors, not copies.

    Args:
        description: the description, which is not trusted because it comes from a file. It can name only registered
            classes. The module is built first without memory (on the meta device) and within bounds that depend on the
            number and the sizes of the tensors.
        tensors: the tensors of the file.
        prefix: text before the names of the tensors that belong to this module.
        limit: largest integer that the description may contain; by default one that the sizes of the tensors justify.

    Raises:
        StorageError: if the module cannot be built, or tensors are missing, unused, or of another shape.

    Example:
        >>> import pushforward as pf
        >>> description, tensors = pf.io.pack(pf.transforms.Standardize(2))
        >>> pf.io.unpack(description, tensors).in_shape
        (2,)
    """
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    module = _without_memory(description, state, limit)
    groups = defaultdict(list)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        groups[parameter].append(name)
    for parameter, tied in groups.items():
        shared = nn.Parameter(state[tied[0]], requires_grad=parameter.requires_grad)
        state.update(dict.fromkeys(tied, shared))
    module.load_state_dict(state, strict=True, assign=True)
    for name, part in module.named_modules():
        if isinstance(part, Transform) and part.index_buffers:
            _check_indices(name, part)
    return module.eval()


def _check_indices(name: str, part: Transform) -> None:
    """Refuse a transform whose stored order of coordinates is none, because it would read outside of its input."""
    stored = [getattr(part, leaf).detach().cpu() for leaf in part.index_buffers if hasattr(part, leaf)]
    if not stored:
        return
    order = torch.cat(stored)
    inverse = getattr(part, "inverse_order", None)
    restored = order.argsort()
    if not torch.equal(order[restored], torch.arange(len(order), device="cpu")) or not (
        inverse is None or torch.equal(inverse.detach().cpu(), restored)
    ):
        raise StorageError(
            f"the tensors {_first_names([f'{name}.{leaf}'.lstrip('.') for leaf in part.index_buffers])} of {type(part).__name__} do not hold each of "
            f"0, ..., {len(order) - 1} once, or not with their inverse: the file is damaged, so get it again."
        )


def _without_memory(description: Any, state: Mapping[str, Tensor], limit: int | None) -> nn.Module:
    """The module on the meta device, after a check that its tensors have the names, shapes and types of ``state``."""
    if limit is None:
        limit = max([_SMALLEST_LIMIT, *(4 * size for t in state.values() if t.numel() for size in t.shape)])
    with ExitStack() as stack:
        stack.enter_context(_budget(2 * len(state) + 64, 32 * (len(state) + _count_objects(description)) + 256))
        stack.enter_context(torch.device("meta"))
        stack.enter_context(ShapesOnly())
        stack.enter_context(collected(KindWarning))  # the constructor gave it when the model was first built
        module = registry.build(description, largest=limit)
    if not isinstance(module, nn.Module):
        raise StorageError(f"the file describes a {type(module).__name__}, which is not a module with weights.")
    wanted = module.state_dict()
    for problem, names in (("lacks", wanted.keys() - state.keys()), ("does not use", state.keys() - wanted.keys())):
        if names:
            subject = "the file" if problem == "lacks" else type(module).__name__
            raise StorageError(f"{subject} {problem} the tensors {_first_names(names)}.")
    for name, want in wanted.items():
        got = state[name]
        owner, _, leaf = name.rpartition(".")
        learned = leaf in getattr(module.get_submodule(owner), "_declared", ())  # its size is found by fitting
        if got.shape != want.shape and not (learned and got.dim() == want.dim()):
            raise StorageError(
                f"the tensor {name!r} has the shape {tuple(got.shape)} and must have {tuple(want.shape)}."
            )
        if got.dtype is not want.dtype and not (got.is_floating_point() and want.is_floating_point()):
            raise StorageError(f"the tensor {name!r} is {got.dtype} and must be {want.dtype}.")
    return module


@contextmanager
def _budget(tensors: int, modules: int) -> Iterator[None]:
    """Stop a constructor that makes more tensors or modules than the tensors of the file justify.

    Bounds on single integers are not enough: ``layers=60000`` with ``hidden=[9, 9, ...]`` satisfies each of them.
    """
    left = {"tensors": tensors, "modules": modules}
    thread = threading.get_ident()

    def count(what: str) -> None:
        if threading.get_ident() == thread:
            left[what] -= 1
            if left[what] < 0:
                raise StorageError(f"its description needs more {what} than the file has weights for.")

    with ExitStack() as stack:
        for register, what in (
            (hooks.register_module_parameter_registration_hook, "tensors"),
            (hooks.register_module_buffer_registration_hook, "tensors"),
            (hooks.register_module_module_registration_hook, "modules"),
        ):
            stack.callback(register(lambda *_, what=what: count(what)).remove)
        yield


def _count_objects(description: Any) -> int:
    """The number of objects that a description names."""
    count, waiting = 0, [description]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            count += "class" in item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return count


def _first_names(names: Collection[str]) -> str:
    shown = ", ".join(repr(name[:80]) for name in sorted(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
