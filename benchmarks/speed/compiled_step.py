"""Speed of `pf.fit(compile=True)`: CPU time of a training step with and without, interleaved, and of compiling.

python -m benchmarks.speed.compiled_step                # several minutes, because torch's cache is not used
python -m benchmarks.speed.compiled_step --flows 'MAF*' --rows 512
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from fnmatch import fnmatch

os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # in this process, whose time is measured
os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled_step")

import torch
from torch import Tensor

import pushforward as pf
from benchmarks.common.results import machine, markdown
from pushforward.models.base import Model
from pushforward.training.compiled_loss import CompiledLoss
from pushforward.training.gradients import gradients
from pushforward.training.optim import make_optimizer
from pushforward.training.sources import Batch

FLOWS: dict[str, tuple[Callable[[], Model], Sequence[int]]] = {
    "MAF, D 6, width 128": (lambda: pf.models.MAF(6, layers=5, hidden=(128, 128)), (64, 512)),
    "RealNVP, D 6, width 128": (lambda: pf.models.RealNVP(6, layers=8, hidden=(128, 128)), (64, 512)),
    "RealNVP, D 63, width 512": (lambda: pf.models.RealNVP(63, layers=8, hidden=(512, 512)), (512,)),
    "NSF, D 6": (lambda: pf.models.NSF(6), (64, 512)),
    "NSF, D 63": (lambda: pf.models.NSF(63), (512,)),
    "Glow, 28 x 28": (lambda: pf.models.Glow((1, 28, 28)), (32,)),
}

VISIT = 0.5


def seconds() -> float:
    """CPU time of this process and of its compiler processes."""
    return sum(
        u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measure(make: Callable[[], Model], rows: int, visits: int) -> tuple[float, float, float, int]:
    """Seconds of a step of ``model.loss``, of a compiled step, and of compiling; and the number of compiled transforms."""
    torch.manual_seed(0)
    model = make()
    image = len(model.shape) == 3
    x = torch.randint(0, 256, (rows, *model.shape)).float() if image else torch.randn(rows, *model.shape)
    noise = torch.Generator()
    model.initialize(x, generator=noise)
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer("adamw", weights, 1e-4, 0.0)

    def step(loss_function: Callable[..., Tensor]) -> float:
        start = seconds()
        gradients(model, weights, Batch(x, None, 0, 0), noise=noise, clip=5.0, amp=False, loss_function=loss_function)
        optimizer.step()
        return seconds() - start

    compiled = CompiledLoss(model)
    first = step(compiled)
    step(model.loss)
    found: dict[Callable[..., Tensor], list[float]] = {model.loss: [], compiled: []}
    for _ in range(visits):
        for loss_function, times in found.items():
            end = time.monotonic() + VISIT
            times.append(step(loss_function))
            while time.monotonic() < end:
                times.append(step(loss_function))
    eager, fast = (statistics.median(times) for times in found.values())
    return eager, fast, first - fast, len(model.chain) - model.chain.first_trainable()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.compiled_step", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--flows", nargs="+", default=["*"], metavar="PATTERN", help=f"of {'; '.join(FLOWS)}")
    parser.add_argument("--rows", type=int, nargs="+", help="rows of a batch, in place of the defaults of each flow")
    parser.add_argument("--visits", type=int, default=10, help="number of rounds, half a second each")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of torch's own compiler
    table = []
    for name, (make, usual) in FLOWS.items():
        for rows in (options.rows or usual) if any(fnmatch(name, p) for p in options.flows) else ():
            eager, fast, compiling, parts = measure(make, rows, options.visits)
            saved = eager - fast
            even = f"{compiling / saved:,.0f}" if saved > 0 else "never"
            table.append([name, f"{rows}", f"{1e3 * eager:.2f}", f"{1e3 * fast:.2f}", f"{eager / fast:.2f}",
                          f"{compiling:.0f}", f"{compiling / parts:.1f}", even])  # fmt: skip
            print(*table[-1], sep=" | ", flush=True)
    head = ["flow", "rows", "step, ms", "compiled, ms", "ratio", "compiling, s", "per transform, s", "steps until even"]
    print("\n" + markdown(head, table))
    print(f"\nCPU time, one thread, medians, torch {torch.__version__}, {machine()}.")


if __name__ == "__main__":
    main()
