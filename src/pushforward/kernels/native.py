"""Small C sources compiled on the user's machine at first use, and kept in a cache folder for later processes.

Where there is no compiler, or anything goes wrong, :func:`library` is None and callers use plain PyTorch operations.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pushforward.errors import ConfigError

__all__ = ["kernels", "library", "usable", "use_kernels"]

_MODES = ("auto", "native", "plain")
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
_TYPES = {torch.float32: ("-DREAL=float", "-DSINGLE=1"), torch.float64: ("-DREAL=double", "-DSINGLE=0")}
_mode: str | None = None


def kernels() -> str:
    """The mode in force: "auto", "native" or "plain" (see :func:`use_kernels`)."""
    mode = _mode or os.environ.get("PUSHFORWARD_KERNELS", "auto")
    if mode not in _MODES:
        raise ConfigError(f"PUSHFORWARD_KERNELS must be one of {', '.join(_MODES)}; got {mode!r}.")
    return mode


@contextmanager
def use_kernels(mode: str) -> Iterator[None]:
    """Choose how splines, stacks of convolutions, samples of autoregressive transforms and scores of few rows are computed on a CPU.

    It holds inside ``with``.

    Args:
        mode: "auto" compiles a small C source once a machine where it finds a compiler and uses plain PyTorch
            operations where not; "native" insists on the compiled one; "plain" never uses it. The environment variable
            ``PUSHFORWARD_KERNELS`` sets the mode of a process.

    Raises:
        ConfigError: for another mode; with "native" where nothing could be compiled, with the compiler's words.

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
        raise ConfigError(f"kernels are one of {', '.join(_MODES)}; got {mode!r}.")
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def library(source: str, dtype: torch.dtype) -> ctypes.CDLL | None:
    """A source of this folder, compiled for a floating type; None where plain operations are to be used.

    Raises:
        ConfigError: in mode "native", if it cannot be compiled.
    """
    mode = kernels()
    if mode == "plain" or dtype not in _TYPES:
        return None
    found = _library(source, dtype)
    if isinstance(found, str):
        if mode == "native":
            raise ConfigError(f"no native kernel: {found}; use_kernels('auto') falls back to plain operations.")
        return None
    return found


def usable(source: str, *tensors: Tensor) -> bool:
    """Whether these are ordinary tensors of one type that a compiled function can read, and it is there.

    Not under ``torch.compile``, export, tracing, function transforms or forward-mode differentiation.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    dtype = tensors[0].dtype
    return (
        all(t.device.type == "cpu" and t.dtype == dtype and type(t) in (Tensor, torch.nn.Parameter) for t in tensors)
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and library(source, dtype) is not None
    )


@functools.cache
def _library(source: str, dtype: torch.dtype) -> ctypes.CDLL | str:
    """The library, or why there is none."""
    compiler = _compiler()
    if compiler is None:
        return "no C compiler (cc, gcc or clang) was found"
    code = Path(__file__).with_name(source)
    try:
        sources = "\0".join(path.read_text() for path in sorted(code.parent.glob("*.c")))  # they include each other
        key = hashlib.sha256(
            "\0".join([sources, compiler, *_FLAGS, *_TYPES[dtype], platform.machine(), _processor()]).encode()
        ).hexdigest()[:24]
        target = _folder() / f"{code.stem}-{key}.so"
        if target.exists():
            try:
                return ctypes.CDLL(str(target))
            except OSError:  # a damaged file: made again
                pass
        _compile(compiler, code, _TYPES[dtype], target)
        return ctypes.CDLL(str(target))
    except subprocess.CalledProcessError as error:
        return (error.stderr or str(error)).strip().splitlines()[0]
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)


def _compiler() -> str | None:
    if os.name != "posix":
        return None
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _compile(compiler: str, code: Path, options: tuple[str, ...], target: Path) -> None:
    """Compile under a temporary name, then rename: two processes may do it at the same time."""
    handle, name = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    try:
        command = [compiler, *_FLAGS, *options, str(code), "-o", name, "-lm"]
        try:
            _run([*command, "-fopenmp"])
        except subprocess.CalledProcessError:  # a compiler without OpenMP: one thread
            _run(command)
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def _processor() -> str:
    """What -march=native depends on: a home folder may be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(next((line for line in lines if line.startswith(start)), "") for start in ("model name", "flags"))


@functools.cache
def _folder() -> Path:
    """The cache folder, if nobody else can write to it (what lies there is executed); else one for this process."""
    base = os.environ.get("PUSHFORWARD_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "pushforward"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        private = status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if private and os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no home, or none that can be written to
        pass
    return Path(tempfile.mkdtemp(prefix="pushforward-"))
