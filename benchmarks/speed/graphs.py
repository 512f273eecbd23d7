"""A call as a CUDA graph: recorded once, and then started as a whole, without what Python and each launch cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Generator, Tensor

from benchmarks.speed.libraries import NotOffered

__all__ = ["captured"]

WARM_CALLS = 3


def captured(call: Callable[[], Tensor], generators: Iterable[Generator] = ()) -> Callable[[], Tensor]:
    """The call as a graph; what it reads must stay in its place, and its result is overwritten by the next call.

    Args:
        call: to record. It runs a few times before, on a stream of its own, as libraries set themselves up in first calls.
        generators: that it draws from, besides torch's own.

    Raises:
        NotOffered: if it cannot be recorded, with the reason.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_CALLS):
            call()
    torch.cuda.current_stream().wait_stream(aside)
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
