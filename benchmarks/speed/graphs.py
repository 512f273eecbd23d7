"""A call as a CUDA graph: recorded once, and then launched as a whole, without the cost of Python and of each launch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Generator, Tensor

from benchmarks.speed.libraries import NotOffered

__all__ = ["captured"]

WARM_CALLS = 3


def captured(call: Callable[[], Tensor], generators: Iterable[Generator] = ()) -> Callable[[], Tensor]:
    """Record a call as a graph. Its inputs must keep their memory, and the next call overwrites its result.

    Args:
        call: call to record. It first runs a few times on another stream, because libraries initialize in first calls.
        generators: random generators of the call besides torch's default.

    Raises:
        NotOffered: if it cannot be recorded, with the reason.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_CALLS):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    try:
        with torch.cuda.graph(graph):
            result = call()
    except RuntimeError as error:
        raise NotOffered(f"no CUDA graph: {' '.join(str(error).split())[:160]}") from error

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
