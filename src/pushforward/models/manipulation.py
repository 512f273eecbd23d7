"""Working with a trained model's latents: temperature, interpolation, attributes, and filling in hidden pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.maps import UniformDequantize, VariationalDequantize
from pushforward.models.core import Model, check_data
from pushforward.numerics import RowNoise

__all__ = ["inpaint", "interpolate", "sample_at_temperature"]


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
        model: whose base is centred at 0, as a standard normal or logistic.
        count: how many.
        temperature: T, at least 0; 1 is ordinary sampling.
        context: ``(*context_batch, context)`` for a model that reads one.
        seed: of the noise, which is the same for all temperatures.

    Raises:
        ConfigError: for a temperature that is negative or not finite.

    Example:
        >>> import pushforward as pf
        >>> from pushforward.models.manipulation import sample_at_temperature
        >>> model = pf.models.Flow(pf.maps.Affine(2, shift=-3.0), pf.bases.Normal(2))
        >>> sample_at_temperature(model, 2, temperature=0.0)          # the mode of the base, decoded
        tensor([[3., 3.],
                [3., 3.]])
    """
    if not 0 <= temperature < float("inf"):
        raise ConfigError(f"a temperature is a finite number of at least 0; got {temperature!r}.")
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    generator = torch.Generator(device).manual_seed(seed)
    batch = torch.Size((count, *(() if context is None else context.shape[:-1])))
    if model.base.context:
        raise ConfigError(f"{type(model.base).__name__} depends on the context, so its noise has no common centre.")
    noise = model.base.sample(batch, generator=generator)
    return model.sample(noise=temperature * noise, context=context, generator=generator)


@torch.no_grad()
def interpolate(
    model: Model, start: Tensor, end: Tensor, steps: int = 8, context: Tensor | None = None, *, spherical: bool = False
) -> Tensor:
    """Data on the way from one row to another, by latents: ``(steps, *batch, *shape)``, with both ends.

    Args:
        model: a bijection, or one but for dequantisation.
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
        >>> model = pf.models.Flow(pf.maps.Affine(2, shift=-3.0), pf.bases.Normal(2))
        >>> interpolate(model, torch.zeros(2), torch.ones(2), steps=3)
        tensor([[0.0000, 0.0000],
                [0.5000, 0.5000],
                [1.0000, 1.0000]])
    """
    if not isinstance(steps, int) or steps < 2:
        raise ConfigError(f"an interpolation has at least 2 steps, its two ends; got {steps!r}.")
    a, b = model.encode(start, context), model.encode(end, context)
    part = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device).reshape(-1, *(1,) * a.dim())
    if spherical:
        first, second = torch.cos(part * (torch.pi / 2)), torch.sin(part * (torch.pi / 2))
    else:
        first, second = 1 - part, part
    return model.decode(first * a + second * b, context)


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
    seed: int = 0,
) -> Tensor:
    """Fill in hidden coordinates by gradient ascent on the log-density (NICE, Dinh et al. 2014, sec. 5.2).

    x_H <- x_H + a_i (d log p / d x_H + e) with a_i = rate / (delay + i) and e normal; hidden pixels start as
    uniform noise (of real data: at 0) and known ones stay. The ascent is on the continuous values: dequantised pixels in
    [0, 1], to which they are clamped after each step, and which the dequantiser turns into integers at the end. Where the
    density is steep, take a smaller rate.

    Args:
        model: whose first map may be a dequantisation, and which has a density after it.
        x: ``(*batch, *shape)``; hidden entries may hold anything finite.
        known: True where x is observed; broadcasts to x.
        steps: of the ascent.
        context: ``(*batch, context)`` for a model that reads one.
        rate: of the step size.
        delay: of the step size.
        noise: standard deviation of e; 0 for plain ascent.
        seed: of the start and of e.

    Returns:
        x with its hidden entries filled, in the type of the weights.

    Raises:
        InputError: for data of the wrong shape, or a mask that does not fit.
        ConfigError: for fewer than 0 steps or sizes that are not positive.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.models.manipulation import inpaint
        >>> model = pf.models.Flow(pf.maps.Affine(2, shift=-3.0), pf.bases.Normal(2))       # mean 3
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
    if steps < 0 or not rate > 0 or not delay > 0 or not noise >= 0:
        raise ConfigError("inpainting takes steps >= 0, rate > 0, delay > 0 and noise >= 0.")
    parts = list(model.chain)
    pixels = parts[0] if isinstance(parts[0], (UniformDequantize, VariationalDequantize)) else None
    rest = parts if pixels is None else parts[1:]
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
            z, total = value, 0.0
            for part in rest:
                step = part.encode(z, given)
                z, total = step.z, total + step.contribution.sum()
            total = total + model.base.log_prob(z, given).sum()
            (gradient,) = torch.autograd.grad(total, value)
        jolt = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        value = value.detach() + torch.where(hidden, rate / (delay + i) * (gradient + noise * jolt), 0.0)
        value = value if pixels is None else value.clamp(0.0, 1.0)
    with torch.no_grad():
        return torch.where(hidden, value if pixels is None else pixels.decode(value), x)
