"""The devices on which calls run: how calls are timed there, and how their memory is measured.

:func:`device` makes one by name. Torch is imported only where it is needed, because one of the libraries does not use it.
"""

from __future__ import annotations

import ctypes
import gc
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.speed.libraries import NotOffered

__all__ = ["CPU", "BlockingCuda", "Cpu", "Cuda", "Device", "device"]

Call = Callable[[], Any]
MEBIBYTE = 1 << 20


class Device(ABC):
    """A device on which calls run.

    Attributes:
        name: name in torch, such as "cuda:1".
        refused: variants of libraries that do not run on this kind of device, with the reason.
    """

    name: str
    refused: ClassVar[dict[str, str]]

    @property
    @abstractmethod
    def title(self) -> str:
        """Name of the kind of device in records and tables."""

    @abstractmethod
    def check(self, clock: str) -> None:
        """Exit with a message if there is no such device, or if this clock cannot time it."""

    @abstractmethod
    def begin(self) -> None:
        """Prepare a process before anything runs on the device."""

    @abstractmethod
    def environment(self, given: dict[str, str]) -> dict[str, str]:
        """Environment variables of a process that uses this device, added to given ones."""

    @abstractmethod
    def choose_in_jax(self) -> None:
        """Make it JAX's default device.

        Raises:
            NotOffered: if JAX does not find it.
        """

    @abstractmethod
    def timed(self, call: Call) -> tuple[float, Any]:
        """Seconds until the result of one call is ready, and the result."""

    @abstractmethod
    def seconds(self, call: Call, calls: int) -> list[float]:
        """Seconds of each of many calls, one after the other."""

    @abstractmethod
    def memory(self, call: Call) -> dict[str, float]:
        """Growth of memory during one call (``above``) and its peak (``process``), MiB."""

    @abstractmethod
    def circumstances(self) -> dict[str, Any]:
        """Settings on which numbers depend besides the device."""

    @abstractmethod
    def activities(self) -> list[Any]:
        """Activities that torch's profiler records."""

    @abstractmethod
    def profiled(self, row: Any) -> float:
        """Microseconds of an operation without its children, in a row of the profiler's averages."""


class Cpu(Device):
    """The processor.

    Args:
        clock: "wall", or "cpu" for the processor time of all threads of the process.
    """

    name = title = "cpu"
    refused: ClassVar[dict[str, str]] = {"pushforward-graph": "CUDA graphs need a CUDA device"}

    def __init__(self, clock: str = "wall") -> None:
        self.clock = time.process_time if clock == "cpu" else time.perf_counter

    def check(self, clock: str) -> None:
        pass

    def begin(self) -> None:
        pass

    def environment(self, given: dict[str, str]) -> dict[str, str]:
        return {"JAX_PLATFORMS": "cpu"} | given

    def choose_in_jax(self) -> None:
        pass

    def timed(self, call: Call) -> tuple[float, Any]:
        start = self.clock()
        result = call()
        return self.clock() - start, result

    def seconds(self, call: Call, calls: int) -> list[float]:
        return [self.timed(call)[0] for _ in range(calls)]

    def memory(self, call: Call) -> dict[str, float]:
        gc.collect()
        trim_memory()
        before = kibibytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        call()
        peak = kibibytes("VmHWM")
        return {"above": max(0, peak - before) / 1024, "process": peak / 1024}

    def circumstances(self) -> dict[str, Any]:
        return {}

    def activities(self) -> list[Any]:
        from torch.profiler import ProfilerActivity

        return [ProfilerActivity.CPU]

    def profiled(self, row: Any) -> float:
        return row.self_cpu_time_total


class Cuda(Device):
    """A CUDA device, for libraries that run in torch.

    Args:
        index: index of the device.
    """

    refused: ClassVar[dict[str, str]] = dict.fromkeys(
        ("pushforward-compiled", "pushforward-plain"), "pf.compile_scorer and the compiled kernels are for the CPU"
    )

    def __init__(self, index: int = 0) -> None:
        self.index, self.name = index, f"cuda:{index}"

    @property
    def title(self) -> str:
        import torch

        return torch.cuda.get_device_name(self.index)

    def check(self, clock: str) -> None:
        import torch

        if clock == "cpu":
            raise SystemExit("--clock cpu does not measure the work of a GPU: leave it out.")
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.index >= found:
            raise SystemExit(
                f"torch {torch.__version__} finds {found or 'no'} CUDA devices, so there is no {self.name}: use --device cpu or another index."
            )

    def begin(self) -> None:
        import torch

        torch.cuda.set_device(self.index)

    def environment(self, given: dict[str, str]) -> dict[str, str]:
        # JAX would allocate most of the memory at once, but the libraries use the device together.
        return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | given

    def choose_in_jax(self) -> None:
        import jax

        try:
            jax.config.update("jax_default_device", jax.devices("cuda")[self.index])
        except (RuntimeError, IndexError):
            raise NotOffered(f"its jaxlib finds no {self.name} (pip install 'jax[cuda12]')") from None

    def timed(self, call: Call) -> tuple[float, Any]:
        import torch

        torch.cuda.synchronize(self.index)
        start = time.perf_counter()
        result = call()
        torch.cuda.synchronize(self.index)
        return time.perf_counter() - start, result

    def seconds(self, call: Call, calls: int) -> list[float]:
        """Time between two events around each call; the host waits once, at the end."""
        import torch

        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(calls)]
        for start, end in pairs:
            start.record()
            call()
            end.record()
        torch.cuda.synchronize(self.index)
        return [start.elapsed_time(end) / 1e3 for start, end in pairs]

    def memory(self, call: Call) -> dict[str, float]:
        """Memory of torch's tensors, without the reserve of its allocator."""
        import torch

        gc.collect()
        torch.cuda.synchronize(self.index)
        before = torch.cuda.memory_allocated(self.index)
        torch.cuda.reset_peak_memory_stats(self.index)
        call()
        torch.cuda.synchronize(self.index)
        peak = torch.cuda.max_memory_allocated(self.index)
        return {"above": max(0, peak - before) / MEBIBYTE, "process": peak / MEBIBYTE}

    def circumstances(self) -> dict[str, Any]:
        import torch

        tf32 = {
            "matrix products": torch.backends.cuda.matmul.allow_tf32,
            "convolutions": torch.backends.cudnn.allow_tf32,
        }
        return {"tf32": tf32, "cuda": torch.version.cuda}

    def activities(self) -> list[Any]:
        from torch.profiler import ProfilerActivity

        return [ProfilerActivity.CPU, ProfilerActivity.CUDA]

    def profiled(self, row: Any) -> float:
        from torch.autograd import DeviceType

        # Only rows of kernels: rows of operations count their kernels again, and graphs have no such rows.
        return row.self_device_time_total if row.device_type == DeviceType.CUDA else 0.0


class BlockingCuda(Cuda):
    """A CUDA device, for a library other than torch whose calls wait for their results."""

    def begin(self) -> None:
        pass

    timed, seconds = Cpu.timed, Cpu.seconds  # pyright: ignore
    clock = staticmethod(time.perf_counter)

    def memory(self, call: Call) -> dict[str, float]:
        raise NotOffered("the peak of JAX's memory cannot be reset")


CPU = Cpu()


def device(name: str, clock: str = "wall", library: str = "") -> Device:
    """A device by name.

    Args:
        name: "cpu", "cuda" (the first one) or "cuda:1".
        clock: see :class:`Cpu`.
        library: library that will run on it.

    Raises:
        ValueError: for another name.
    """
    if name == "cpu":
        return Cpu(clock)
    found = re.fullmatch(r"cuda(?::(\d+))?", name)
    if found is None:
        raise ValueError(f"there is no device {name!r}: use cpu, cuda or cuda:1")
    return (BlockingCuda if library == "flowjax" else Cuda)(int(found[1] or 0))


def trim_memory() -> None:
    """Return freed memory to the system (glibc only), so that it does not hide the peak of the next call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def kibibytes(field: str) -> int:
    """A field of /proc/self/status of this process (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1])
