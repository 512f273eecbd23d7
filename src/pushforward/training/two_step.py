"""`fit_two_step`: the manifold first, then the density on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch

from pushforward.errors import ConfigError, InputError
from pushforward.models.manifold.two_step import Injectivity, TwoStep
from pushforward.numerics.checks import check_number
from pushforward.training.fit import fit
from pushforward.training.result import FitResult

__all__ = ["TwoStepResult", "fit_two_step"]


class TwoStepResult(NamedTuple):
    """What :func:`fit_two_step` did.

    Attributes:
        first: the training of the autoencoder; None if it was left as it was.
        second: the training of the density of its codes.
        injectivity: of the decoder over the held-out rows, or over the training rows if there are none.
    """

    first: FitResult | None
    second: FitResult
    injectivity: Injectivity


def fit_two_step(
    model: TwoStep,
    data: Any,
    *,
    validation: Any = 0.1,
    first: Mapping[str, Any] | Literal[False] | None = None,
    second: Mapping[str, Any] | None = None,
    seed: int = 0,
    **options: Any,
) -> TwoStepResult:
    """Train the autoencoder; compile_scorer and whiten its codes; train their density; test that the decoder is injective.

    Both steps hold out the same rows. :func:`pushforward.data.intrinsic_dimension` helps to choose the width of the codes before.

    Args:
        model: to train, in place.
        data: training rows ``(n, *shape)``, an array or a tensor.
        validation: fraction of the rows to hold out, or held-out rows, or None.
        first: options of :func:`pushforward.fit` for the autoencoder; False leaves it as it is.
        second: options for the density.
        seed: of the split and of both trainings.
        options: for both. ``checkpoint`` and ``log`` are files of one training: give them to ``first`` or ``second``.

    Raises:
        ConfigError: for a model that is no :class:`~pushforward.models.TwoStep`, an impossible fraction, or one file for both steps.
        InputError: for rows that the model cannot read, or that span fewer dimensions than the code has.

    Example:
        >>> import torch, pushforward as pf
        >>> t = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
        >>> x = torch.cat((t, t.sin()), 1)                                # a curve in the plane
        >>> model = pf.models.TwoStep(pf.models.AutoEncoder(2, latent=1, hidden=(16,)))
        >>> done = pf.training.fit_two_step(model, x, max_steps=30, progress="silent")
        >>> done.first.steps, done.second.steps
        (30, 30)
    """
    if not isinstance(model, TwoStep):
        raise ConfigError(f"fit_two_step trains a TwoStep model; got {model!r:.80}.")
    if shared := {"checkpoint", "log"} & set(options):
        raise ConfigError(f"each step wants a {shared.pop()} of its own: give it in first={{...}} or second={{...}}.")
    if options.get("device") is not None:
        model.to(options["device"])
    rows = torch.as_tensor(data)
    if rows.dim() != 1 + len(model.shape) or len(rows) < 2:
        raise InputError(f"fit_two_step reads at least two rows of shape {model.shape}; got {tuple(rows.shape)}.")
    if isinstance(validation, float):
        check_number("validation", validation, 0, 1)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        count = min(max(1, round(validation * len(rows))), len(rows) - 1)
        rows, held = rows[order[count:]], rows[order[:count]]
    else:
        held = None if validation is None else torch.as_tensor(validation)
    _check_span(rows, model.autoencoder.latent)
    model.embed.injective.fill_(False)
    trained = None
    if first is not False:
        trained = fit(model.autoencoder, rows, validation=held, seed=seed, **{**options, **(first or {})})
    model.eval()
    place = model.whiten.mean.device
    with torch.no_grad():
        codes = torch.cat([model.autoencoder.code(part.to(place, model.dtype)) for part in rows.split(1024)])
    model.whiten.initialized.fill_(False)
    codes = model.whiten.initialize(codes)
    held_codes = None if held is None else model.codes(held.to(place))
    density = fit(model.density, codes, validation=held_codes, seed=seed, **{**options, **(second or {})})
    model.eval()
    return TwoStepResult(trained, density, model.check_injectivity((rows if held is None else held).to(place)))


def _check_span(rows: torch.Tensor, width: int) -> None:
    """Refuse rows that vary in fewer directions than the code has numbers: on them its density would have no bound.

    Raises:
        InputError: naming both numbers.
    """
    few, span = 4 * width + 256, 0
    for count in (few, 50 * few):  # more rows only where a few do not span enough
        flat = rows[:: max(1, len(rows) // count)].flatten(1).double()
        if not torch.isfinite(flat).all():
            return  # the training says where
        flat = flat[:, flat.amax(0) > flat.amin(0)]
        if flat.numel():
            values = torch.linalg.svdvals((flat - flat.mean(0)) / flat.std(0, correction=0))
            span = int((values > 1e-5 * values[0]).sum())
        if span >= width:
            return
    raise InputError(
        f"the rows vary in {span} directions, so a code of {width} numbers has no density: use latent={max(span, 1)} or fewer "
        "(pushforward.data.intrinsic_dimension estimates how many)."
    )
