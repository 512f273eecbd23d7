"""Masked autoregressive map: each coordinate's law depends on the coordinates before it."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.maps.arguments import vector_width
from pushforward.maps.core import Map, Step, outside
from pushforward.maps.transformers import AffineTransformer, Transformer, check_transformer
from pushforward.networks.incremental import IncrementalMADE
from pushforward.networks.made import MADE
from pushforward.networks.mlp import check_hidden, check_width
from pushforward.numerics import Noise, sum_event
from pushforward.registry import register

__all__ = ["MaskedAutoregressive"]


@register("maps")
class MaskedAutoregressive(Map):
    """z_i = f(x_i; MADE(x_<i, context)) (MAF, Papamakarios et al. 2017, eq. 3; Durkan et al. 2019, sec. 2.2).

    log abs det dz/dx = sum of log f'. Encoding costs one network pass, decoding D passes in order. ``Inverse`` of it is
    the inverse autoregressive flow, which samples in one pass (Kingma et al. 2016).

    Args:
        features: D. With D = 1 the parameters are free (or functions of the context).
        transformer: the law f.
        order: ``order[k]`` is the coordinate that comes k-th; None is 0, 1, ..., D-1; "reverse" is D-1, ..., 0.
        hidden: widths of the network's hidden layers.
        residual: residual blocks (ResMADE) instead of plain layers.
        activation: name of the activation.
        dropout: probability, in the network.
        context: width of the context.
        input_bound: the network sees coordinates clamped to this range.

    Raises:
        ConfigError: for an order that is no permutation, or impossible widths.

    Example:
        >>> import torch
        >>> layer = MaskedAutoregressive(3, hidden=(16,))
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(layer.decode(layer.encode(x).z), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        features: int,
        transformer: Transformer | None = None,
        *,
        order: str | tuple[int, ...] | None = None,
        hidden: tuple[int, ...] = (128, 128),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        context: int = 0,
        input_bound: float = 10.0,
    ) -> None:
        super().__init__(features)
        vector_width(features, "MaskedAutoregressive")
        check_width("context", context, 0)
        self.features, self.transformer = features, check_transformer(transformer or AffineTransformer())
        self.order, self.hidden, self.residual = order, check_hidden(hidden, residual), residual
        self.activation, self.dropout, self.context, self.input_bound = activation, dropout, context, input_bound
        self.domain = self.codomain = self.transformer.support
        if isinstance(order, str) and order != "reverse":
            raise ConfigError(f"order must be None, 'reverse' or a tuple of coordinates; got {order!r}.")
        forward = tuple(range(features))
        self.sequence: tuple[int, ...] = (
            forward if order is None else forward[::-1] if isinstance(order, str) else tuple(order)
        )
        self.places = self.sequence
        self.network = MADE(
            features, self.transformer.parameters, hidden, context=context, order=self.sequence, residual=residual,
            activation=activation, dropout=dropout, input_bound=input_bound, output_gain=0.1,
            copies=2 if self.transformer.periodic else 1,
        )  # fmt: skip
        self.decode_passes = features

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise in one pass."""
        z, slopes = self.encode_terms(x, context)
        return Step(z, sum_event(slopes, 1) + outside(x, self.domain, 1))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """Data to noise, with log f' of each coordinate, both ``(*batch, D)``: the terms of the chain rule."""
        return self.transformer.forward(x, self._raw(x, context))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data, coordinate by coordinate, with the arithmetic of about one pass."""
        return self.decode_with_contribution(z, context)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """As ``decode``, with the contribution of ``encode``."""
        batch, features = z.shape[:-1], self.features
        if context is not None and self.context:
            context = context.expand(*batch, context.shape[-1]).reshape(-1, context.shape[-1])
        order = torch.tensor(self.sequence, device=z.device)
        target = z.reshape(-1, features).t().index_select(0, order)
        solve = self._by_sweeps if self._sweeping_pays(target) else self._by_steps
        with torch.autocast(z.device.type, enabled=False):
            x, slopes = solve(target, context)
        x = x.index_select(0, order.argsort()).t().contiguous()
        return x.reshape(z.shape), sum_event(slopes.t(), 1).reshape(batch)

    def _by_steps(self, target: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Place after place: D small steps, and the arithmetic of one pass."""
        walk = IncrementalMADE(self.network, target.shape[1], _step_block(self.features), context)
        found: list[tuple[Tensor, Tensor]] = []
        while walk.done < self.features:
            walk.open()
            found += self._step(walk, target)
        return _joined(found)

    def _by_sweeps(self, target: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Block after block by fixed-point iteration; place after place from where that does not settle."""
        blocks = -(-self.features // _SWEEP_BLOCK)
        walk = IncrementalMADE(self.network, target.shape[1], -(-self.features // blocks), context)
        found: list[tuple[Tensor, Tensor]] = []
        while walk.done < self.features:
            walk.open(sweeps=True)
            if (block := self._sweep(walk, target)) is None:
                break
            found.append(block)
        while walk.done < self.features:
            walk.open(walk.done + _step_block(self.features))
            found += self._step(walk, target)
        return _joined(found)

    def _step(self, walk: IncrementalMADE, target: Tensor) -> list[tuple[Tensor, Tensor]]:
        """x and log f' of each place of the open block."""
        found = []
        for value in target[walk.opened.start : walk.opened.stop].split(1):
            x, slope = self.transformer.inverse(value, walk.step())
            walk.feed(self._seen(x))
            found.append((x, slope))
        return found

    def _sweep(self, walk: IncrementalMADE, target: Tensor) -> tuple[Tensor, Tensor] | None:
        """x and log f' of the open block as the fixed point of x = f^-1(z; MADE(x)) (Song et al. 2021, alg. 1).

        Jacobi's iteration: the k-th sweep makes the k-th place exact, and mostly many more. A change below what the
        rounding of z or x amounts to ends it. None if that takes too many sweeps.
        """
        z = target[walk.opened.start : walk.opened.stop]
        x = z
        for _ in range(_MOST_SWEEPS + len(walk.opened) // 4):
            old = x
            x, slope = self.transformer.inverse(z, walk.sweep(self._seen(old)))
            rounding = torch.maximum(x.abs(), z.abs() * torch.exp(-slope)).mul(4 * torch.finfo(x.dtype).eps)
            if ((x == old) | ((x - old).abs() <= rounding)).all():
                walk.accept()
                return x, slope
        return None

    def _sweeping_pays(self, target: Tensor) -> bool:
        """Whether sweeps are likely to be faster than steps, and allowed.

        A step costs some 80 microseconds of overhead, and its arithmetic is nothing beside it for few rows; a sweep of
        a block costs little more than a step, but some 10 to 20 of them do their arithmetic each. So sweeps pay for few
        rows: up to 200 at D = 784 and width 512, 30 at D = 63 and width 512. The constants were measured on one core.
        Off the CPU a step is many kernel launches, and sweeps always pay. They are no way to get gradients.
        """
        if torch.is_grad_enabled() or self.features < _SWEEP_LEAST or not _may_look_at(target):
            return False
        widths = [self.features * self.network.copies, *self.hidden, *self.hidden[:1] * self.residual * ...]
        return True

    def _seen(self, x: Tensor) -> Tensor:
        """What the network sees of places, ``(places, batch)`` to ``(places * copies, batch)``."""
        return torch.stack((x.cos(), x.sin()), 1).flatten(0, 1) if self.transformer.periodic else x

    def _raw(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The law's raw parameters, ``(parameters, *x.shape)``; float32 or better even under autocast."""
        seen = torch.cat((x.cos(), x.sin()), -1) if self.transformer.periodic else x
        return self.network(seen, context).to(x.dtype)


_SWEEP_BLOCK = 256
"""Most coordinates that are swept together."""
_MOST_SWEEPS = 16
MODE = None


def _step_block(features: int) -> int:
    return 8 if features < 128 else 32


def _joined(found: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    xs, slopes = zip(*found, strict=True)
    return torch.cat(xs), torch.cat(slopes)


def _sweeping_pays(network: MADE, target: Tensor) -> bool:
    return MODE == "sweeps"
