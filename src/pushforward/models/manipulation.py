"""Functions on the latents of a trained model: temperature, interpolation, attributes, and inpainting."""

from __future__ import annotations

import itertools
import math
from numbers import Real

import torch
from torch import Size, Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.models.base import Model
from pushforward.models.validation import check_data, check_model_context
from pushforward.numerics import RowNoise
from pushforward.numerics.checks import check_integer, check_positive, check_seed
from pushforward.transforms import UniformDequantize, VariationalDequantize

__all__ = ["attribute_direction", "inpaint", "interpolate", "manipulate", "sample_at_temperature"]


def _check_latents(model: Model) -> None:
    """Refuse a model whose base is a distribution of integers: its latents are the data."""
    if model.base.measure.name == "Counting":
        raise ConfigError(
            f"{type(model).__name__} has no latents: it is a distribution of the data themselves. Use a flow, such as "
            f"{'Glow' if len(model.shape) == 3 else 'NSF'}."
        )


@torch.no_grad()
def sample_at_temperature(
    model: Model,
    count: int,
    temperature: float,
    context: Tensor | None = None,
    *,
    seed: int = 0,
) -> Tensor:
    """Samples from base noise that is multiplied by a temperature, ``(count, *context_batch, *shape)``.

    Every factored-out scale of an image model is part of the base, so the factor applies to all scales. For
    volume-preserving flows (additive couplings) over a normal base these are samples of a density proportional to
    p(x)^(1 / T^2) (Kingma and Dhariwal 2018, sec. 6, where the exponent is printed as T^2). For other flows this is a
    heuristic.

    Args:
        model: a model whose base is centered at 0, such as a standard normal or logistic.
        count: number of samples.
        temperature: T, at least 0; 1 is ordinary sampling.
        context: ``(*context_batch, context)`` for a model that reads one.
        seed: seed of the noise, which is the same for all temperatures.

    Raises:
        ConfigError: for a temperature that is negative or not finite, a count below 1, a base that depends on the context, or a model
            without latents.

    Example:
        >>> import pushforward as pf
        >>> from pushforward.models.manipulation import sample_at_temperature
        >>> model = pf.models.Flow(pf.transforms.Affine(2, shift=-3.0), pf.distributions.Normal(2))
        >>> sample_at_temperature(model, 2, temperature=0.0)          # the mode of the base, decoded
        tensor([[3., 3.],
                [3., 3.]])
    """
    _check_latents(model)
    check_positive("temperature", temperature, zero=True)
    check_integer("count", count)
    check_model_context(context, model.context_features, type(model).__name__, training=model.training)
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    generator = torch.Generator(device).manual_seed(check_seed(seed))
    batch = Size((count, *(() if context is None else context.shape[:-1])))
    if model.base.context:
        raise ConfigError(
            f"the base {type(model.base).__name__} depends on the context, so its noise is not centered at 0: use a "
            "model whose base reads no context."
        )
    noise = model.base.sample(batch, generator=generator)
    return model.sample(noise=temperature * noise, context=context, generator=generator)


@torch.no_grad()
def interpolate(
    model: Model, start: Tensor, end: Tensor, steps: int = 8, context: Tensor | None = None, *, spherical: bool = False
) -> Tensor:
    """Data between two rows, decoded from a path between their latents: ``(steps, *batch, *shape)``, with both ends.

    Args:
        model: a bijection, or a bijection after dequantization.
        start: ``(*batch, *shape)``.
        end: ``(*batch, *shape)``.
        steps: number of points of the path, at least 2.
        context: ``(*batch, context)`` for a model that reads one, the same for all points.
        spherical: use the path z = z0 cos phi + z1 sin phi for phi from 0 to pi / 2 (Dinh et al. 2016, sec. 4.2), on
            which independent normal latents keep their length; False for the straight line.

    Raises:
        ConfigError: for fewer than 2 steps, or a model without latents.
        InputError: for data of the wrong shape, or of shapes that do not broadcast.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.models.manipulation import interpolate
        >>> model = pf.models.Flow(pf.transforms.Affine(2, shift=-3.0), pf.distributions.Normal(2))
        >>> interpolate(model, torch.zeros(2), torch.ones(2), steps=3)
        tensor([[0.0000, 0.0000],
                [0.5000, 0.5000],
                [1.0000, 1.0000]])
    """
    _check_latents(model)
    check_integer("steps", steps, 2)
    a, b = model.encode(start, context), model.encode(end, context)
    try:
        a, b = torch.broadcast_tensors(a, b)
    except RuntimeError:
        raise InputError(
            f"interpolate reads two data sets of one shape; got {tuple(start.shape)} and {tuple(end.shape)}."
        ) from None
    t = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device).reshape(-1, *(1,) * a.dim())
    if spherical:
        return model.decode(torch.cos(t * (torch.pi / 2)) * a + torch.sin(t * (torch.pi / 2)) * b, context)
    return model.decode((1 - t) * a + t * b, context)


@torch.no_grad()
def attribute_direction(
    model: Model, x: Tensor, labels: Tensor, context: Tensor | None = None, *, seed: int = 0, batch_size: int = 250
) -> Tensor:
    """Mean latent of the rows with an attribute minus the mean latent of the rows without it.

    See Kingma and Dhariwal 2018, sec. 6.

    The labels are needed here and not in training. z has the latents of every scale of an image model.

    Args:
        model: a bijection, or a bijection after dequantization.
        x: ``(n, *shape)``.
        labels: ``(n,)``: True (or 1) for rows with the attribute, False (or 0) for rows without it.
        context: ``(n, context)`` for a model that reads one, or one context for all rows.
        seed: seed of the noise of dequantization.
        batch_size: number of rows that are encoded together.

    Returns:
        The direction, ``(*base.shape)``, for :func:`manipulate`.

    Raises:
        InputError: for data of the wrong shape, labels that are not one True or False for each row, or if all rows have
            the same label.
        ConfigError: for a model without latents, or a batch size below 1.

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
    _check_latents(model)
    check_integer("batch_size", batch_size)
    check_data(x, model.shape, type(model).__name__)
    rows = len(x) if x.dim() == len(model.shape) + 1 else -1
    if not isinstance(labels, Tensor) or labels.shape != (rows,) or not ((labels == 0) | (labels == 1)).all():
        raise InputError(
            f"labels must be 0 or 1 for each row of data of shape (n, {', '.join(map(str, model.shape))}); got data of "
            f"shape {tuple(x.shape)} and labels of {tuple(labels.shape) if isinstance(labels, Tensor) else labels!r}."
        )
    positive = labels.to(device=x.device, dtype=torch.bool)
    if positive.all() or not positive.any():
        raise InputError("labels must have rows with the attribute and rows without it; all labels are equal.")
    model.prepare_context(context, Size((len(x),)))  # refuses one that does not fit
    if context is not None:
        context = context.expand(len(x), context.shape[-1])
    means = []
    for rows in (positive, ~positive):
        contexts = itertools.repeat(None) if context is None else context[rows].split(batch_size)
        parts = zip(x[rows].split(batch_size), contexts, strict=False)
        total = sum(model.encode(part, part_context, seed=seed).double().sum(0) for part, part_context in parts)
        means.append(total / rows.sum())
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
    """Data moved along a direction of the latents, for example of an attribute: decode(encode(x) + amount * direction).

    Args:
        model: a bijection, or a bijection after dequantization.
        x: ``(*batch, *shape)``.
        direction: ``(*base.shape)``.
        amounts: multiples of the direction; the figures of the Glow paper have up to 1.6.
        context: ``(*batch, context)`` for a model that reads one.
        seed: seed of the noise of dequantization.

    Returns:
        ``(len(amounts), *batch, *shape)``.

    Raises:
        InputError: for data or a direction of the wrong shape.
        ConfigError: for amounts that are not finite, or a model without latents.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.models.manipulation import manipulate
        >>> model = pf.models.NICE(features=2)
        >>> manipulate(model, torch.zeros(3, 2), torch.tensor([1.0, 0.0]), amounts=(0.0, 1.0)).shape
        torch.Size([2, 3, 2])
    """
    _check_latents(model)
    check_data(direction, model.base.shape, "the direction of a " + type(model).__name__)
    if direction.shape != model.base.shape:
        raise InputError(f"direction must have the shape {tuple(model.base.shape)}; got {tuple(direction.shape)}.")
    amounts = tuple(amounts) if isinstance(amounts, (tuple, list)) else (amounts,)
    if not all(isinstance(amount, Real) and math.isfinite(amount) for amount in amounts):
        raise ConfigError(f"amounts must be finite numbers; got {amounts!r:.80}.")
    z = model.encode(x, context, seed=seed)
    steps = torch.tensor([float(amount) for amount in amounts], dtype=z.dtype, device=z.device).reshape(
        -1, *(1,) * z.dim()
    )
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
    max_gradient: float | None = None,
    seed: int = 0,
) -> Tensor:
    """Fill in hidden coordinates by gradient ascent on the log-density (NICE, Dinh et al. 2014, sec. 5.2).

    x_H <- x_H + a_i (d log p / d x_H + e) with a_i = rate / (delay + i) and e normal. Hidden pixels start as uniform
    noise, hidden real values at 0, and known ones do not change. The ascent is on continuous values: dequantized pixels
    in [0, 1], clamped to that interval after each step, which the dequantizer rounds to integers at the end. Where the
    density is steep (a pixel that is nearly always black), steps can be too long and the log-density falls. Use a
    smaller rate, or bound the gradient of each coordinate by ``max_gradient``. With a NICE of MNIST the defaults, those of the
    paper, hardly move the images, and ``steps=2000, rate=1.0, max_gradient=10.0`` fills in halves of digits.

    Args:
        model: a model with a density, after a first transform that may be a dequantization.
        x: ``(*batch, *shape)``; hidden entries may have any finite value.
        known: True where x is observed; broadcasts to x.
        steps: number of steps of the ascent.
        context: ``(*batch, context)`` for a model that reads one.
        rate: numerator of the step size a_i.
        delay: constant in the denominator of the step size a_i.
        noise: standard deviation of e; 0 for plain ascent.
        max_gradient: the gradient of each coordinate is clamped to this absolute value; None for no bound, as in the
            paper.
        seed: seed of the start and of e.

    Returns:
        x with the hidden entries filled in, in the type of the weights.

    Raises:
        InputError: for data of the wrong shape, or a mask that does not fit.
        ConfigError: for fewer than 0 steps, a rate, delay, noise or bound that is out of range, or a model without latents.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.models.manipulation import inpaint
        >>> model = pf.models.Flow(pf.transforms.Affine(2, shift=-3.0), pf.distributions.Normal(2))       # mean 3
        >>> inpaint(model, torch.zeros(2), torch.tensor([True, False]), noise=0.0)
        tensor([0.0000, 3.0000])
    """
    _check_latents(model)
    check_data(x, model.shape, type(model).__name__)
    if not isinstance(known, Tensor) or known.dtype != torch.bool:
        raise InputError("known must be a boolean tensor, True where x is observed.")
    try:
        hidden = ~known.expand(x.shape)
    except RuntimeError:
        raise InputError(
            f"known of shape {tuple(known.shape)} does not broadcast to data of shape {tuple(x.shape)}."
        ) from None
    check_integer("steps", steps, 0)
    check_positive("rate", rate)
    check_positive("delay", delay)
    check_positive("noise", noise, zero=True)
    check_positive("max_gradient", max_gradient, optional=True)
    with torch.inference_mode(False):  # where the caller is in inference mode: it climbs along gradients
        given = context.clone() if isinstance(context, Tensor) else context
        return _climb(
            model, x.clone(), hidden.clone(), given, steps, rate, delay, noise, max_gradient, check_seed(seed)
        )


def _climb(
    model: Model, x: Tensor, hidden: Tensor, context: Tensor | None, steps: int, rate: float, delay: float, noise: float,
    max_gradient: float | None, seed: int,
) -> Tensor:  # fmt: skip
    """The ascent of :func:`inpaint`."""
    first = model.chain[0]
    pixels = first if isinstance(first, (UniformDequantize, VariationalDequantize)) else None
    rest = model.chain if pixels is None else model.chain[1:]
    generator = torch.Generator(x.device).manual_seed(seed)
    x = torch.where(hidden, 0.0, x.to(model.dtype))
    given = model.prepare_context(context, x.shape[: x.dim() - len(model.shape)])
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
        gradient = gradient if max_gradient is None else gradient.clamp(-max_gradient, max_gradient)
        e = noise * torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        value = value.detach() + torch.where(hidden, rate / (delay + i) * (gradient + e), 0.0)
        value = value if pixels is None else value.clamp(0.0, 1.0)
    with torch.no_grad():
        return torch.where(hidden, value if pixels is None else pixels.decode(value), x)
