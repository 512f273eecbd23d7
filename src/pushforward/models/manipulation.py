"""Working with a trained model's latents: temperature, interpolation, attributes, and filling in hidden pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.models.base import Model
from pushforward.models.validation import check_data
from pushforward.numerics import RowNoise
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.transforms import UniformDequantize, VariationalDequantize

__all__ = ["attribute_direction", "inpaint", "interpolate", "manipulate", "sample_at_temperature"]


@torch.no_grad()
def sample_at_temperature(
    model: Model,
    count: int,
    temperature: float,
    context: Tensor | None = None,
    *,
    seed: int = 0,
) -> Tensor:
    """Samples from base noise that is scaled by a temperature, ``(count, *context_batch, *shape)``.

    Every factored-out scale of an image model is part of the base, so one factor reaches all. For volume-preserving flows
    (additive couplings) over a normal base these are samples of a density proportional to p(x)^(1 / T^2) (Kingma and
    Dhariwal 2018, sec. 6, where the exponent is printed upside down); for others only a heuristic.

    Args:
        model: whose base is centerd at 0, as a standard normal or logistic.
        count: how many.
        temperature: T, at least 0; 1 is ordinary sampling.
        context: ``(*context_batch, context)`` for a model that reads one.
        seed: of the noise, which is the same for all temperatures.

    Raises:
        ConfigError: for a temperature that is negative or not finite.

    Example:
        >>> import pushforward as pf
        >>> from pushforward.models.manipulation import sample_at_temperature
        >>> model = pf.models.Flow(pf.transforms.Affine(2, shift=-3.0), pf.distributions.Normal(2))
        >>> sample_at_temperature(model, 2, temperature=0.0)          # the mode of the base, decoded
        tensor([[3., 3.],
                [3., 3.]])
    """
    check_positive("temperature", temperature, zero=True)
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    generator = torch.Generator(device).manual_seed(seed)
    batch = torch.Size((count, *(() if context is None else context.shape[:-1])))
    if model.base.context:
        raise ConfigError(f"{type(model.base).__name__} depends on the context, so its noise has no common center.")
    noise = model.base.sample(batch, generator=generator)
    return model.sample(noise=temperature * noise, context=context, generator=generator)


@torch.no_grad()
def interpolate(
    model: Model, start: Tensor, end: Tensor, steps: int = 8, context: Tensor | None = None, *, spherical: bool = False
) -> Tensor:
    """Data on the way from one row to another, by latents: ``(steps, *batch, *shape)``, with both ends.

    Args:
        model: a bijection, or one but for dequantization.
        start: ``(*batch, *shape)``.
        end: likewise.
        steps: at least 2.
        context: ``(*batch, context)`` for a model that reads one, the same all the way.
        spherical: z = z0 cos phi + z1 sin phi for phi from 0 to pi / 2 (Dinh et al. 2016, sec. 4.2), on which independent
            normal latents stay as long as they are; else the straight line.

    Raises:
        ConfigError: for fewer than 2 steps.
        InputError: for data of the wrong shape.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.models.manipulation import interpolate
        >>> model = pf.models.Flow(pf.transforms.Affine(2, shift=-3.0), pf.distributions.Normal(2))
        >>> interpolate(model, torch.zeros(2), torch.ones(2), steps=3)
        tensor([[0.0000, 0.0000],
                [0.5000, 0.5000],
                [1.0000, 1.0000]])
    """
    check_integer("steps", steps, 2)
    a, b = model.encode(start, context), model.encode(end, context)
    part = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device).reshape(-1, *(1,) * a.dim())
    if spherical:
        first, second = torch.cos(part * (torch.pi / 2)), torch.sin(part * (torch.pi / 2))
    else:
        first, second = 1 - part, part
    return model.decode(first * a + second * b, context)


@torch.no_grad()
def attribute_direction(
    model: Model, x: Tensor, labels: Tensor, context: Tensor | None = None, *, seed: int = 0, batch: int = 250
) -> Tensor:
    """Mean latent of the rows that have an attribute minus that of the rows without it (Kingma and Dhariwal 2018, sec. 6).

    The labels are needed for this alone, not for training. z has the latents of every scale of an image model.

    Args:
        model: a bijection, or one but for dequantization.
        x: ``(n, *shape)``.
        labels: ``(n,)``: True (or 1) where the attribute is there, False (or 0) where it is not.
        context: ``(n, context)`` for a model that reads one.
        seed: of the dequantization's noise.
        batch: rows that are encoded together.

    Returns:
        The direction, ``(*base.shape)``, to be used by :func:`manipulate`.

    Raises:
        InputError: for data of the wrong shape, labels that are not one yes or no a row, or rows of one kind only.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.models.manipulation import attribute_direction, manipulate
        >>> model = pf.models.Flow(pf.transforms.Affine(2, scale=0.5), pf.distributions.Normal(2))
        >>> x = torch.tensor([[0.0, 1.0], [0.0, 3.0], [4.0, 2.0]])
        >>> direction = attribute_direction(model, x, torch.tensor([0, 0, 1]))
        >>> direction
        tensor([2., 0.])
        >>> manipulate(model, x[:1], direction, (0.0, 0.5, 1.0))
        tensor([[[0., 1.]],
        <BLANKLINE>
                [[2., 1.]],
        <BLANKLINE>
                [[4., 1.]]])
    """
    check_data(x, model.shape, type(model).__name__)
    rows = len(x) if x.dim() == len(model.shape) + 1 else -1
    if not isinstance(labels, Tensor) or labels.shape != (rows,) or not ((labels == 0) | (labels == 1)).all():
        raise InputError(
            f"an attribute is one yes or no (1 or 0) for each row of (n, {', '.join(map(str, model.shape))}); got data of "
            f"shape {tuple(x.shape)} and labels of {tuple(labels.shape) if isinstance(labels, Tensor) else labels!r}."
        )
    chosen = labels.to(device=x.device, dtype=torch.bool)
    if chosen.all() or not chosen.any():
        raise InputError("an attribute needs rows that have it and rows that do not.")
    means = []
    for kind in (chosen, ~chosen):
        given = [None] * len(x) if context is None else context[kind].split(batch)
        parts = zip(x[kind].split(batch), given, strict=False)
        total = sum(model.encode(part, its, seed=seed).double().sum(0) for part, its in parts)
        means.append(total / kind.sum())
    return (means[0] - means[1]).to(model.latent_dtype)


@torch.no_grad()
def manipulate(
    model: Model,
    x: Tensor,
    direction: Tensor,
    amounts: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0),
    context: Tensor | None = None,
    *,
    seed: int = 0,
) -> Tensor:
    """Data moved along a direction of the latents, as that of an attribute: decode(encode(x) + amount * direction).

    Args:
        model: a bijection, or one but for dequantization.
        x: ``(*batch, *shape)``.
        direction: ``(*base.shape)``.
        amounts: how far; Glow's pictures go up to 1.6.
        context: ``(*batch, context)`` for a model that reads one.
        seed: of the dequantization's noise.

    Returns:
        ``(len(amounts), *batch, *shape)``.

    Raises:
        InputError: for data or a direction of the wrong shape.
        ConfigError: for amounts that are not finite.
    """
    check_data(direction, model.base.shape, "the direction of a " + type(model).__name__)
    if direction.shape != model.base.shape:
        raise InputError(f"a direction has the shape {tuple(model.base.shape)}; got {tuple(direction.shape)}.")
    if not all(math.isfinite(amount) for amount in amounts):
        raise ConfigError(f"amounts must be finite; got {amounts!r}.")
    z = model.encode(x, context, seed=seed)
    steps = torch.tensor(list(amounts), dtype=z.dtype, device=z.device).reshape(-1, *(1,) * z.dim())
    return model.decode(z + steps * direction.to(z), context, seed=seed)


def inpaint(
    model: Model,
    x: Tensor,
    known: Tensor,
    steps: int = 400,
    context: Tensor | None = None,
    *,
    rate: float = 10.0,
    delay: float = 100.0,
    noise: float = 1.0,
    limit: float | None = None,
    seed: int = 0,
) -> Tensor:
    """Fill in hidden coordinates by gradient ascent on the log-density (NICE, Dinh et al. 2014, sec. 5.2).

    x_H <- x_H + a_i (d log p / d x_H + e) with a_i = rate / (delay + i) and e normal; hidden pixels start as
    uniform noise (of real data: at 0) and known ones stay. The ascent is on the continuous values: dequantized pixels in
    [0, 1], to which they are clamped after each step, and which the dequantizer turns into integers at the end. Where the
    density is steep (a pixel that is nearly always black), the steps overshoot and the ascent climbs down: take a smaller
    rate, or bound each coordinate's gradient by ``limit``, so that it moves by at most a_i limit a step.

    Args:
        model: whose first transform may be a dequantization, and which has a density after it.
        x: ``(*batch, *shape)``; hidden entries may hold anything finite.
        known: True where x is observed; broadcasts to x.
        steps: of the ascent.
        context: ``(*batch, context)`` for a model that reads one.
        rate: of the step size.
        delay: of the step size.
        noise: standard deviation of e; 0 for plain ascent.
        limit: largest absolute value of a coordinate's gradient, which is cut to it; None for no bound, as in the paper.
        seed: of the start and of e.

    Returns:
        x with its hidden entries filled, in the type of the weights.

    Raises:
        InputError: for data of the wrong shape, or a mask that does not fit.
        ConfigError: for fewer than 0 steps or sizes that are not positive.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.models.manipulation import inpaint
        >>> model = pf.models.Flow(pf.transforms.Affine(2, shift=-3.0), pf.distributions.Normal(2))       # mean 3
        >>> inpaint(model, torch.zeros(2), torch.tensor([True, False]), noise=0.0)
        tensor([0.0000, 3.0000])
    """
    check_data(x, model.shape, type(model).__name__)
    if not isinstance(known, Tensor) or known.dtype != torch.bool:
        raise InputError("known must be a boolean tensor, True where x is observed.")
    try:
        hidden = ~known.expand(x.shape)
    except RuntimeError:
        raise InputError(f"a mask of shape {tuple(known.shape)} does not fit data of shape {tuple(x.shape)}.") from None
    check_integer("steps", steps, 0)
    check_positive("rate", rate)
    check_positive("delay", delay)
    check_positive("noise", noise, zero=True)
    check_positive("limit", limit, optional=True)
    first = model.chain[0]
    pixels = first if isinstance(first, (UniformDequantize, VariationalDequantize)) else None
    rest = model.chain if pixels is None else model.chain[1:]
    generator = torch.Generator(x.device).manual_seed(seed)
    x = torch.where(hidden, 0.0, x.to(model.dtype))
    given = model._broadcast(context, x.shape[: x.dim() - len(model.shape)])
    with torch.no_grad():
        start = x if pixels is None else pixels.encode(x, given, noise=RowNoise(seed)).z
        if pixels is not None:
            uniform = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)
            start = torch.where(hidden, uniform, start)
    value = start
    for i in range(steps):
        value = value.detach().requires_grad_()
        with torch.enable_grad():
            step = rest.encode(value, given)
            total = step.contribution.sum() + model.base.log_prob(step.z, given).sum()
            (gradient,) = torch.autograd.grad(total, value)
        gradient = gradient if limit is None else gradient.clamp(-limit, limit)
        jolt = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        value = value.detach() + torch.where(hidden, rate / (delay + i) * (gradient + noise * jolt), 0.0)
        value = value if pixels is None else value.clamp(0.0, 1.0)
    with torch.no_grad():
        return torch.where(hidden, value if pixels is None else pixels.decode(value), x)
