"""Likelihood beside the complexity of the image (Serra et al. 2020)."""

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
from pushforward.numerics.checks import check_choice
from pushforward.registry import register

__all__ = ["InputComplexity"]


@register("scores")
class InputComplexity(Score):
    """How much worse the model codes an image than a compressor does: ``-log p(x) - L(x) log 2``, nats.

    L is the length in bits of the shortest code of the given compressors (Serra et al. 2020, arXiv 1909.11480, sec. 3.1): the
    likelihood ratio against the compressor as a model of all images. -log p must be the code length of the same 8-bit
    image, so the model's measure must be Counting.

    With ``form="fitted"`` the slope is not 1 but found on the reference rows: the score is the residual of the least squares
    line ``-log p = a + b L``, which takes care of headers, of weak compressors on small images, and of units.

    Args:
        model: of 8-bit images, in any likelihood for the fitted form.
        codecs: names of compressors, see :class:`~pushforward.detection.scores.CodeLength`.
        form: "fixed" or "fitted".
        two_sided: score ``-log(2 min(p_low, p_high))`` of the number's rank among the reference rows instead.
        samples: draws of the model's own noise, where it has any.

    Raises:
        ConfigError: for an unknown form or compressor.
        KindError: for a fixed slope on a density that is no probability of integers.
        InputError: at use, for anything but integers 0, ..., 255 of shape (n, C, H, W).

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
        if form == "fixed" and model.measure.name != "Counting":
            raise KindError(
                f"a code length compares with the probability of an 8-bit image, and this model's is a density on "
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
    """Nats a bit."""
    reference: Tensor
    """The number of each reference row, ascending."""

    def _pair(self, x: Tensor) -> Tensor:
        lengths = code_lengths(x, self.codecs).amin(1)  # first: it refuses what is no 8-bit image
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
