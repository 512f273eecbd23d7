"""The blocks of z and the terms of log p, by scale of a multi-scale flow."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor

from pushforward.distributions import Distribution, Normal
from pushforward.models import Model
from pushforward.numerics import RowNoise, sum_event
from pushforward.transforms import FactorOut, Flatten, Transform, Variational
from pushforward.transforms.base import Shape, outside

__all__ = ["Stage", "latent_blocks", "path", "path_names", "scale_count", "stages"]

Stage = tuple[str, list[Transform]] | FactorOut
"""The name of a column (for a latent variable, the suffix of its columns) and its transforms, or a transform that factors out."""


def latent_blocks(chain: Iterable[Transform], shape: Shape) -> list[Shape]:
    """Shapes of the blocks that are concatenated in z: one for each scale of a multi-scale flow, the coarsest first.

    A flattened image keeps its image shape until a transform changes the number of coordinates.

    Args:
        chain: transforms in the order from data to noise.
        shape: shape of the data.
    """
    blocks = [shape]
    for part in chain:
        if isinstance(part, FactorOut):
            factored_out = (part.in_shape[0] - part.kept, *part.in_shape[1:])
            blocks = [*latent_blocks(_inner(part), part.inner.in_shape), factored_out]
        elif not isinstance(part, Flatten) and part.out_shape not in (part.in_shape, (sum(map(prod, blocks)),)):
            blocks = [part.out_shape]
    return blocks


def stages(model: Model) -> list[Stage]:
    """The transforms of a model, grouped by column: the elementwise ones at its start, the scales, and the latent variables.

    Scales are counted from 0, the finest. Only a chain whose last transform factors out channels has more than one scale.
    """
    parts, scales = list(model.chain), [0]
    first = list(itertools.takewhile(lambda part: part.autoregressive_order == "any", parts))
    runs: list[tuple[int, list[Transform] | FactorOut]] = []
    parts = parts[len(first) :]
    while parts and isinstance(parts[-1], FactorOut):
        runs += [(scales[-1], parts[:-1]), (scales[-1], parts[-1])]
        parts = _inner(parts[-1])
        scales.append(scales[-1] + 1)
    runs.append((scales[-1], parts))
    result: list[Stage] = [("elementwise", first)] if first else []
    drawn = 0
    for scale, run in runs:
        if isinstance(run, FactorOut):
            result.append(run)
            continue
        for latent, group in itertools.groupby(run, lambda part: isinstance(part, Variational)):
            if not latent:
                result.append((f"volume {scale}" if len(scales) > 1 else "volume", list(group)))
                continue
            for part in group:
                result.append((f" {drawn}" if drawn else "", [part]))
                drawn += 1
    return result


def scale_count(model: Model) -> int:
    """Number of scales; 1 if no channels are factored out."""
    return 1 + sum(isinstance(stage, FactorOut) for stage in stages(model))


def path_names(model: Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the columns of :func:`path`: the terms that add up to log p, and the other columns."""
    terms, others = dict[str, None](), dict[str, None]()
    for stage in stages(model):
        if isinstance(stage, FactorOut):
            continue
        name, transforms = stage
        if isinstance(transforms[0], Variational):
            terms |= dict.fromkeys(("reconstruction" + name, "posterior" + name))
            others |= dict.fromkeys(("error" + name, "latent mean" + name, "latent scale" + name))
        else:
            terms[name] = None
    count = scale_count(model)
    ends = [f" {scale}" for scale in range(count)] if count > 1 else [""]
    terms |= dict.fromkeys("base" + end for end in (ends if _splits(model.base) else [""]))
    if model.measure.name == "Manifold":
        others["residual"] = None
    if _has_norms(model.base):
        others |= dict.fromkeys("square" + end for end in ends)
    return tuple(terms), tuple(others)


def path(model: Model, x: Tensor, noise: RowNoise) -> dict[str, Tensor]:
    """The terms of log p in nats, and squared norms, of rows with finite values; each float64, ``(n,)``.

    Args:
        model: model without a context.
        x: finite rows, ``(n, *shape)``, of the model's dtype.
        noise: noise of stochastic transforms.
    """
    columns: dict[str, Tensor] = {}
    if model.measure.name == "Manifold":
        columns["residual"] = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    factored_out: list[Tensor] = []  # finest first
    z = x

    def add(name: str, value: Tensor) -> None:
        columns[name] = columns[name] + value.double() if name in columns else value.double()

    for stage in stages(model):
        if isinstance(stage, FactorOut):
            factored_out.append(z[:, stage.kept :].flatten(1))
            z = z[:, : stage.kept]
            continue
        name, transforms = stage
        for part in transforms:
            if isinstance(part, Variational):
                drawn = part.draw(z, noise)
                add("reconstruction" + name, drawn.log_p + outside(z, part.domain, len(part.in_shape)))
                add("posterior" + name, -drawn.log_q)
                add("error" + name, _square(z - part.decode(drawn.z, noise=noise)))
                add("latent mean" + name, _square(drawn.mean))
                add("latent scale" + name, _square(drawn.log_scale.exp()))
                z = drawn.z
            else:
                step = part.encode(z, noise=noise)
                z = step.z
                add(name, step.contribution)
                if step.residual is not None:
                    add("residual", step.residual)
    blocks = [*factored_out, z.flatten(1)]  # finest first, in the order of the scales
    ends = [f" {scale}" for scale in range(len(blocks))] if factored_out else [""]
    if factored_out:
        z = torch.cat(blocks[::-1], 1)
    if factored_out and _splits(model.base):
        sizes = [block.shape[1] for block in blocks[::-1]]
        for end, terms in zip(ends[::-1], model.base.log_prob_terms(z).split(sizes, 1), strict=True):
            add("base" + end, sum_event(terms, 1))
    else:
        add("base", model.base.log_prob(z))
    if _has_norms(model.base):
        for end, block in zip(ends, blocks, strict=True):
            add("square" + end, _square(block))
    return columns


def _inner(part: FactorOut) -> list[Transform]:
    return list(part.inner) if isinstance(part.inner, Iterable) else [part.inner]


def _splits(base: Distribution) -> bool:
    """Whether the base's log-density is a sum over coordinates."""
    return type(base).log_prob_terms is not Distribution.log_prob_terms and base.autoregressive_order == "any"


def _has_norms(base: Distribution) -> bool:
    """Whether squared norms of z have information that the base's log-density does not have."""
    return base.measure.name == "Lebesgue" and not (isinstance(base, Normal) and not base.trainable)


def _square(x: Tensor) -> Tensor:
    return x.flatten(1).double().square().sum(1)
