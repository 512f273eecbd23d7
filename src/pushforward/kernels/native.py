"""The native kernels: a shared library that is built when the package is installed (``setup.py``), never at run time.

It contains every function once for each floating type and each level of the instruction set: x86-64-v2, x86-64-v3
(AVX2) and x86-64-v4 (AVX-512) on x86-64, one level "baseline" elsewhere. The best level that the processor supports is
used. Where the library is missing, :func:`library` returns None and callers use plain PyTorch operations.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pushforward.errors import ConfigError

__all__ = ["description", "kernels", "library", "usable", "use_kernels"]

_LEVELS = ("x86-64-v4", "x86-64-v3", "x86-64-v2", "baseline")
"""The best one first."""
_MODES = ("auto", "native", "plain", *_LEVELS)
_TYPES = {torch.float32: "float32", torch.float64: "float64"}
_FUNCTIONS = {
    "spline": ("forward", "backward"),
    "conv": ("forward", "backward"),
    "made": ("invert",),
    "program": ("run",),
    "neighbors": ("nearest", "local"),
}
"""The exported functions of each C source."""
_FILE = Path(__file__).with_name("libkernels.so")
_mode: str | None = None


def kernels() -> str:
    """The mode that applies: "auto", "native", "plain", or a level of the instruction set (see :func:`use_kernels`).

    Raises:
        ConfigError: if the environment variable ``PUSHFORWARD_KERNELS`` is not a mode.

    Example:
        >>> from pushforward.kernels import kernels, use_kernels
        >>> with use_kernels("plain"):
        ...     print(kernels())
        plain
    """
    mode = _mode or os.environ.get("PUSHFORWARD_KERNELS", "auto")
    if mode not in _MODES:
        raise ConfigError(f"PUSHFORWARD_KERNELS must be one of {', '.join(_MODES)}; got {mode!r}.")
    return mode


@contextmanager
def use_kernels(mode: str) -> Iterator[None]:
    """Choose how splines, convolutions and samples of autoregressive flows are computed on a CPU in a ``with`` block.

    The native kernels are built when the package is installed with a C compiler (GCC or Clang). ``pushforward info
    --system`` prints which kernels are in use.

    Args:
        mode: "auto" uses the native kernels if they are installed, else plain PyTorch operations; "native" requires
            them; "plain" never uses them. "x86-64-v2", "x86-64-v3", "x86-64-v4" or "baseline" requires the native
            kernels of this level of the instruction set. The environment variable ``PUSHFORWARD_KERNELS`` sets the mode
            of a process.

    Raises:
        ConfigError: for an unknown mode, or if the native kernels of this mode are not installed or not supported by
            the processor.

    Example:
        >>> import torch, pushforward as pf
        >>> model = pf.models.NSF(2)
        >>> with pf.use_kernels("plain"):
        ...     plain = model.log_prob(torch.zeros(1, 2))
        >>> torch.allclose(plain, model.log_prob(torch.zeros(1, 2)))
        True
    """
    global _mode
    if mode not in _MODES:
        raise ConfigError(f"kernels must be one of {', '.join(_MODES)}; got {mode!r}.")
    _level(mode)
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def description() -> dict[str, Any]:
    """Which kernels are in use in this process, and why.

    Returns:
        ``mode`` (see :func:`use_kernels`), ``level`` of the instruction set in use (None where plain operations are
        used), ``reason`` for plain operations (else empty), ``installed`` (whether the native kernels are), ``levels``
        that were built, ``openmp`` (whether they can use several threads), and ``threads`` of PyTorch.

    Raises:
        ConfigError: if the kernels that ``PUSHFORWARD_KERNELS`` requires are missing.

    Example:
        >>> facts = description()
        >>> facts["level"] is not None or bool(facts["reason"])
        True
    """
    mode, found = kernels(), _load()
    level = _level(mode)
    reason = "" if level else found if isinstance(found, str) else "plain operations were asked for"
    installed = None if isinstance(found, str) else found
    return {
        "mode": mode,
        "level": level,
        "reason": reason,
        "installed": installed is not None,
        "levels": [] if installed is None else list(reversed(installed.built)),
        "openmp": installed is not None and bool(installed.functions.kernels_use_openmp()),
        "threads": torch.get_num_threads(),
    }


def library(source: str, dtype: torch.dtype) -> SimpleNamespace | None:
    """The functions of a C source for a floating type, or None where plain operations are to be used.

    Args:
        source: "spline", "conv", "made", "program" or "neighbors".
        dtype: None is returned for all but float32 and float64.

    Raises:
        ConfigError: if the mode requires kernels that are missing.
    """
    level = _level(kernels())
    return None if level is None or dtype not in _TYPES else _functions(source, dtype, level)


def usable(*tensors: Tensor) -> bool:
    """Whether native kernels can read the memory of these tensors: plain tensors on the CPU, all float32 or all float64.

    False under ``torch.compile``, export, tracing, function transforms and forward-mode differentiation, and where
    plain operations are to be used.

    Example:
        >>> import torch
        >>> from pushforward.kernels import usable
        >>> usable(torch.zeros(2, requires_grad=True).half())
        False
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    dtype = tensors[0].dtype
    return (
        all(t.device.type == "cpu" and t.dtype == dtype and type(t) in (Tensor, torch.nn.Parameter) for t in tensors)
        and not any(t.is_neg() for t in tensors)  # imaginary parts of conjugates have their sign elsewhere
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and dtype in _TYPES
        and _level(kernels()) is not None
    )


class _Installed(NamedTuple):
    """The shared library, the levels that were built, and those that the processor supports, the best one first."""

    functions: ctypes.CDLL
    built: tuple[str, ...]
    supported: tuple[str, ...]


@functools.cache
def _load() -> _Installed | str:
    """The native kernels, or why there are none."""
    if not _FILE.exists():
        return "the native kernels are not installed; they are built by `pip install` where it finds GCC or Clang"
    try:
        functions = ctypes.CDLL(str(_FILE))
    except OSError as error:
        return f"the native kernels cannot be loaded: {error}"
    built = tuple(level for level in _LEVELS if hasattr(functions, _name("spline", "forward", torch.float32, level)))
    supported = tuple(level for level in built if functions.kernels_support(level.encode()))
    if not supported:
        return f"the native kernels were built for {' and '.join(built)}, which this processor does not support"
    return _Installed(functions, built, supported)


@functools.cache
def _level(mode: str) -> str | None:
    """The level of the instruction set that a mode uses, or None for plain operations.

    Raises:
        ConfigError: if the mode requires kernels that are missing.
    """
    if mode == "plain":
        return None
    found = _load()
    if isinstance(found, str):
        if mode == "auto":
            return None
        raise ConfigError(f"kernels {mode!r} cannot be used: {found}. Use 'auto' or 'plain'.")
    if mode in ("auto", "native"):
        return found.supported[0]
    if mode not in found.supported:
        why = "this processor does not support them" if mode in found.built else "they were not built"
        raise ConfigError(f"kernels {mode!r} cannot be used: {why}. Available are {', '.join(found.supported)}.")
    return mode


@functools.cache
def _functions(source: str, dtype: torch.dtype, level: str) -> SimpleNamespace | None:
    """None for a source that was not there when the library was built."""
    found = _load()
    assert not isinstance(found, str)
    exported = {name: getattr(found.functions, _name(source, name, dtype, level), None) for name in _FUNCTIONS[source]}
    return None if None in exported.values() else SimpleNamespace(**exported)


def _name(source: str, function: str, dtype: torch.dtype, level: str) -> str:
    return f"{source}_{function}_{_TYPES[dtype]}_{level.replace('-', '_')}"
