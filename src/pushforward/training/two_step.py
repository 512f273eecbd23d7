"""`fit_two_step`: train the autoencoder of a `TwoStep` model, then the density of its codes."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal, NamedTuple, Unpack

import torch

from pushforward.data import as_tensor_data
from pushforward.errors import ConfigError, InputError
from pushforward.models.manifold.two_step import Injectivity, TwoStep
from pushforward.numerics.checks import check_seed
from pushforward.training.config import TrainingConfig, TrainingOptions, make_config, with_options
from pushforward.training.fit import fit, move_to_device
from pushforward.training.result import FitResult

__all__ = ["TwoStepResult", "fit_two_step"]


class TwoStepResult(NamedTuple):
    """Result of :func:`fit_two_step`.

    Attributes:
        autoencoder: result of training the autoencoder; None if it was not trained.
        density: result of training the density of the codes.
        injectivity: injectivity of the decoder on the held-out rows, or on the training rows if there are none.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> t = torch.rand(200, 1)
        >>> model = pf.models.TwoStep(pf.models.AutoEncoder(2, latent=1, hidden=(8,)), pf.distributions.Normal(1))
        >>> done = pf.training.fit_two_step(model, torch.cat((t, t), 1), max_steps=20, progress="silent")
        >>> done.autoencoder.steps
        20
    """

    autoencoder: FitResult | None
    density: FitResult
    injectivity: Injectivity


@with_options
def fit_two_step(
    model: TwoStep,
    data: Any,
    *,
    validation: Any = 0.1,
    autoencoder: TrainingOptions | Literal[False] | None = None,
    density: TrainingOptions | None = None,
    config: TrainingConfig | None = None,
    **options: Unpack[TrainingOptions],
) -> TwoStepResult:
    """Train the autoencoder, freeze and whiten its codes, train their density, and test that the decoder is injective.

    Both steps hold out the same rows. :func:`pushforward.data.intrinsic_dimension` helps to choose the number of code
    dimensions before.

    Args:
        model: model to train, in place.
        data: training rows ``(n, *shape)``, an array or a tensor.
        validation: fraction of the rows to hold out, or held-out rows, or None.
        autoencoder: options for the autoencoder only, a dictionary; False does not train it.
        density: options for the density only, a dictionary.
        config: options of both steps; the options below replace its values. ``checkpoint`` and ``log`` are files of one
            training, so they belong into ``autoencoder`` or ``density``.
        options: fields of :class:`TrainingConfig`.

    Raises:
        ConfigError: for a model that is not a :class:`~pushforward.models.TwoStep`, a fraction outside (0, 1), or one
            file for both steps.
        InputError: for rows that the model cannot read, or that span fewer dimensions than the code has.

    Example:
        >>> import torch, pushforward as pf
        >>> t = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
        >>> x = torch.cat((t, t.sin()), 1)                                # a curve in the plane
        >>> model = pf.models.TwoStep(pf.models.AutoEncoder(2, latent=1, hidden=(16,)))
        >>> result = pf.training.fit_two_step(model, x, max_steps=30, progress="silent")
        >>> result.autoencoder.steps, result.density.steps
        (30, 30)
    """
    if not isinstance(model, TwoStep):
        raise ConfigError(f"fit_two_step trains a TwoStep model; got {model!r:.80}.")
    config = make_config(config, options)
    for name in ("checkpoint", "log"):
        if getattr(config, name) is not None:
            raise ConfigError(f"each step needs its own {name}: pass it in autoencoder={{...}} or density={{...}}.")
    for name, given in (("autoencoder", autoencoder), ("density", density)):
        if not (given is None or isinstance(given, Mapping) or (given is False and name == "autoencoder")):
            raise ConfigError(f"{name} must be a dictionary of training options; got {given!r:.80}.")
    autoencoder_config = None if autoencoder is False else make_config(config, autoencoder or {})
    density_config = make_config(config, density or {})
    move_to_device(model, config.device)
    rows = as_tensor_data(data, what="the training data")[0]
    if rows.dim() != 1 + len(model.shape) or len(rows) < 2:
        raise InputError(f"fit_two_step reads at least two rows of shape {model.shape}; got {tuple(rows.shape)}.")
    if isinstance(validation, Real) and not isinstance(validation, bool) and validation == 0:
        validation = None
    if isinstance(validation, Real):
        validation = float(validation)
        if not 0 < validation < 1:
            raise ConfigError(f"validation must be a fraction in (0, 1), held-out rows, or None; got {validation!r}.")
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(check_seed(config.seed)))
        count = min(max(1, round(validation * len(rows))), len(rows) - 1)
        rows, held_out = rows[order[count:]], rows[order[:count]]
    else:
        held_out = None if validation is None else as_tensor_data(validation, what="the validation data")[0]
    _check_span(rows, model.autoencoder.latent)
    model.embed.injective.fill_(False)
    autoencoder_result = None
    if autoencoder_config is not None:
        autoencoder_result = fit(model.autoencoder, rows, validation=held_out, config=autoencoder_config)
    model.eval()
    device = model.whiten.mean.device
    with torch.no_grad():
        codes = torch.cat([model.autoencoder.code(part.to(device, model.dtype)) for part in rows.split(1024)])
    model.whiten.initialized.fill_(False)
    codes = model.whiten.initialize(codes)
    held_out_codes = None if held_out is None else model.codes(held_out.to(device))
    for name, buffer in model.density.named_buffers():
        if name.endswith("initialized"):  # what was set from the codes of another fit
            buffer.fill_(False)
    density_result = fit(model.density, codes, validation=held_out_codes, config=density_config)
    model.eval()
    injectivity = model.check_injectivity((rows if held_out is None else held_out).to(device))
    return TwoStepResult(autoencoder_result, density_result, injectivity)


def _check_span(rows: torch.Tensor, width: int) -> None:
    """Refuse rows that vary in fewer directions than the code has numbers: the density of such codes is unbounded.

    Raises:
        InputError: with both numbers.
    """
    few, span = 4 * width + 256, 0
    for count in (few, 50 * few):  # more rows only if the first ones do not span enough
        flat = rows[:: max(1, len(rows) // count)].flatten(1).double()
        if not torch.isfinite(flat).all():
            return  # training raises an error that says where
        flat = flat[:, flat.amax(0) > flat.amin(0)]
        if flat.numel():
            values = torch.linalg.svdvals((flat - flat.mean(0)) / flat.std(0, correction=0))
            span = int((values > 1e-5 * values[0]).sum())
        if span >= width:
            return
    raise InputError(
        f"the rows vary in {span} directions, so a code of {width} numbers has no density: use latent={max(span, 1)} "
        "or fewer (pushforward.data.intrinsic_dimension estimates how many)."
    )
