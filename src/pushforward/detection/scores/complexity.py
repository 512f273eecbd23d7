"""Likelihood relative to the complexity of the image (Serra et al. 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.base import Score
from pushforward.detection.scores.code_length import check_codecs, code_lengths
from pushforward.detection.scores.model_outputs import check_model, finite_reference, log_likelihood
from pushforward.detection.scores.two_sided import two_sided
from pushforward.errors import KindError
from pushforward.models import Model
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.registry import register

__all__ = ["InputComplexity"]


@register("scores")
class InputComplexity(Score):
    """The model's code length of an image minus that of a compressor: ``-log p(x) - L(x) log 2``, nats.

    L is the length in bits of the shortest code of the given compressors (Serra et al. 2020, arXiv 1909.11480, sec. 3.1). The
    score is a likelihood ratio in which the compressor is the general model of all images. -log p must be the code length
    of the same 8-bit image, so the model's measure must be Counting.

    With ``form="fitted"`` the slope is fitted on the reference rows: the score is the residual of the least-squares line
    ``-log p = a + b L``. This corrects for headers, for weak compressors on small images, and for units.

    Args:
        model: model of 8-bit images; any kind of likelihood with the fitted form.
        codecs: names of compressors, see :class:`~pushforward.detection.scores.CodeLength`.
        form: "fixed" or "fitted".
        two_sided: whether the score is ``-log(2 min(p_low, p_high))`` of the difference's rank among the reference rows.
        samples: number of draws of the model's noise, for a stochastic model.

    Raises:
        ConfigError: for an unknown form or compressor.
        KindError: for the fixed form and a model whose measure is not Counting.
        InputError: when scoring, for anything but integers from 0 to 255 of shape (n, C, H, W).

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import InputComplexity
        >>> model, images = pf.models.ImageNICE((1, 4, 4)), torch.randint(256, (20, 1, 4, 4))
        >>> InputComplexity(model)(images).shape, InputComplexity(model, form="fitted").fit(images)(images).shape
        (torch.Size([20]), torch.Size([20]))
    """

    needs = frozenset({"forward", "compressor"})

    def __init__(
        self,
        model: Model,
        codecs: tuple[str, ...] = ("png",),
        *,
        form: str = "fixed",
        two_sided: bool = False,
        samples: int = 1,
    ) -> None:
        super().__init__()
        check_choice("form", form, ("fixed", "fitted"))
        check_model(model, "InputComplexity")
        check_integer("samples", samples)
        if form == "fixed" and model.measure.name != "Counting":
            raise KindError(
                f"a code length is comparable with a probability of 8-bit images, and this model is a density on "
                f"{model.measure}: put a dequantization transform first in its chain, or use form='fitted'."
            )
        self.model, self.codecs, self.form = model, check_codecs(codecs), form
        self.two_sided, self.samples = two_sided, samples
        if form == "fitted":
            self.declare(intercept=0, slope=0)
        if two_sided:
            self.declare(reference=1)

    intercept: Tensor
    slope: Tensor
    """Nats per bit."""
    reference: Tensor
    """The difference of each reference row, ascending."""

    def _pair(self, x: Tensor) -> Tensor:
        lengths = code_lengths(x, self.codecs).amin(1)  # first, because it rejects rows that are not 8-bit images
        return torch.stack((lengths, -log_likelihood(self.model, x, self.samples)), 1)

    def _excess(self, pair: Tensor) -> Tensor:
        lengths, surprise = pair.unbind(1)
        intercept, slope = (self.intercept, self.slope) if self.form == "fitted" else (0.0, math.log(2.0))
        return torch.where(torch.isfinite(pair).all(1), surprise - intercept - slope * lengths, math.inf)

    def _learn(self, reference: Tensor) -> None:
        pair = finite_reference(by_batches(self._pair, reference, self.batch_size), "-log p or the code length")
        if self.form == "fitted":
            lengths, surprise = pair.unbind(1)
            deviation = lengths - lengths.mean()
            spread = deviation.square().sum()
            self.slope = torch.where(spread > 0, (deviation * surprise).sum() / spread.clamp(min=1e-300), 0.0)
            self.intercept = surprise.mean() - self.slope * lengths.mean()
        if self.two_sided:
            self.reference = self._excess(pair).sort().values

    def _score(self, x: Tensor) -> Tensor:
        excess = self._excess(self._pair(x))
        return two_sided(excess, self.reference) if self.two_sided else excess
