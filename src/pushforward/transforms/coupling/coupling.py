"""Coupling: part of the coordinates is transformed, with parameters that a network computes from the other part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.likelihood import CIRCLE, REAL, Support
from pushforward.networks.mlp import MLP
from pushforward.numerics import Noise, constant, sum_event
from pushforward.numerics.checks import check_indices, check_integer, check_widths, is_integer
from pushforward.numerics.fixed_buffers import other_buffers
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, check_context, within
from pushforward.transforms.linear.permutation import inverse_permutation
from pushforward.transforms.transformers.affine import AffineTransformer
from pushforward.transforms.transformers.base import Transformer, check_transformer, cos_and_sin, expand_parameters
from pushforward.transforms.validation import vector_width

__all__ = ["Coupling"]


@register("transforms")
class Coupling(Transform):
    """z_A = x_A, z_B = f(x_B; network(x_A, context)) (NICE, Dinh et al. 2014, eq. 5-7; Durkan et al. 2019, sec. 2.2).

    log abs det dz/dx = sum over B of log f'. Encoding and decoding cost one network pass each.

    Args:
        features: number of coordinates D. With D = 1 A is empty, and the parameters are learned directly or functions of the
            context.
        transformer: the transformer f, affine by default.
        mask: which coordinates form A: "alternate" (0, 2, 4, ...), "halves" (the first half), or a tuple of indices.
        flip: swap A and B.
        hidden: widths of the network's hidden layers.
        residual: residual blocks instead of plain layers.
        activation: name of the activation function.
        dropout: dropout probability in the network.
        context: width of the context.
        unconditional: also transform A, with parameters that are learned directly (as the reference code of Durkan et al. does).
        input_bound: coordinates are clamped to [-input_bound, input_bound] before the network reads them.
        angles: which coordinates are angles in [-pi, pi], of which the network reads cosine and sine. None: all of them if
            the transformer is periodic, otherwise none. A coupling transforms either angles or other coordinates.

    Raises:
        ConfigError: for an impossible mask or width, or a transformer that does not fit the coordinates that it transforms.

    Example:
        >>> import torch
        >>> coupling = Coupling(4, hidden=(16,))
        >>> x = torch.randn(3, 4)
        >>> torch.allclose(coupling.decode(coupling.encode(x).z), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        features: int,
        transformer: Transformer | None = None,
        *,
        mask: str | tuple[int, ...] = "alternate",
        flip: bool = False,
        hidden: tuple[int, ...] = (128, 128),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        context: int = 0,
        unconditional: bool = False,
        input_bound: float = 10.0,
        angles: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(features)
        features = vector_width(features, "Coupling")
        check_integer("context", context, 0)
        self.features, self.transformer = features, check_transformer(transformer or AffineTransformer())
        self.mask, self.flip, self.hidden, self.residual = (
            mask,
            flip,
            check_widths("hidden", hidden, equal=residual),
            residual,
        )
        self.activation, self.dropout, self.context = activation, dropout, context
        self.unconditional, self.input_bound, self.angles = unconditional, input_bound, angles
        kept = mask_indices(features, mask)
        transformed = sorted(set(range(features)) - set(kept))
        if flip:
            kept, transformed = transformed, kept
        if not transformed:
            kept, transformed = transformed, kept
        are_angles = _angles(features, angles, self.transformer)
        self._check_kinds(kept, transformed, are_angles)
        self.domain = self.codomain = self.transformer.support
        if 0 < len(are_angles) < features:
            self.domain = self.codomain = Support.joined(
                [(CIRCLE if i in are_angles else REAL, 1) for i in range(features)]
            )
        self._seen_as_angles = tuple(index for index, i in enumerate(kept) if i in are_angles)
        self._seen_as_numbers = tuple(index for index, i in enumerate(kept) if i not in are_angles)
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.int64))
        self.register_buffer("transformed", torch.tensor(transformed, dtype=torch.int64))
        self.register_buffer("inverse_order", inverse_permutation([*kept, *transformed]))
        # If A and B alternate, views are faster than index selections and their gradients.
        alternate = len(kept) == len(transformed) and [*kept, *transformed] == [
            *range(kept[0], features, 2),
            *range(transformed[0], features, 2),
        ]
        self._first = kept[0] if alternate else None

        count = self.transformer.parameters
        inputs = len(kept) + len(self._seen_as_angles) + context
        self.network = (
            MLP(
                inputs,
                count * len(transformed),
                hidden,
                residual=residual,
                activation=activation,
                dropout=dropout,
                input_bound=input_bound,
                output_gain=self.transformer.output_gain,
            )
            if inputs
            else None
        )
        self.free_transformed = None if inputs else nn.Parameter(torch.zeros(count, len(transformed)))
        self.free_kept = nn.Parameter(torch.zeros(count, len(kept))) if unconditional and kept else None

    index_buffers = ("kept", "transformed")
    kept: Tensor
    transformed: Tensor
    inverse_order: Tensor

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise in one pass."""
        a, b = self._part(x)
        y, slope = self.transformer.forward(b, self._raw(a, context, b))
        contribution = within(sum_event(slope, 1), x, self.domain, 1)
        if self.free_kept is not None:
            a, slope = self.transformer.forward(a, expand_parameters(self.free_kept, a))
            contribution = contribution + sum_event(slope, 1)
        return Step(self._join(a, y), contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data in one pass."""
        return self.decode_with_contribution(z, context)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Noise to data in one pass, with the contribution of ``encode``."""
        a, b = self._part(z)
        contribution = z.new_zeros(())
        if self.free_kept is not None:
            a, slope = self.transformer.inverse(a, expand_parameters(self.free_kept, a))
            contribution = sum_event(slope, 1)
        b, slope = self.transformer.inverse(b, self._raw(a, context, b))
        return self._join(a, b), contribution + sum_event(slope, 1)

    def invert_with_graph(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Step]:
        """x = decode(z) and ``encode(x)`` from one network pass: A is the same in x and z."""
        if self.free_kept is not None:
            return super().invert_with_graph(z, context)
        x = z.detach().clone().requires_grad_()
        a = x.index_select(-1, self.kept)
        raw = self._raw(a, context, z.index_select(-1, self.transformed))
        with torch.no_grad():
            b, _ = self.transformer.inverse(z.index_select(-1, self.transformed), raw.detach())
            x.data.index_copy_(-1, self.transformed, b)  # a is a copy, so its graph does not see this
        b = x.index_select(-1, self.transformed)
        y, slope = self.transformer.forward(b, raw)
        contribution = within(sum_event(slope, 1), x, self.domain, 1)
        return x, Step(torch.cat((a, y), -1).index_select(-1, self.inverse_order), contribution)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Any, strict: Any, missing_keys: Any,
        unexpected_keys: Any, error_msgs: list[str],
    ) -> None:  # fmt: skip
        error_msgs += other_buffers(self, self.index_buffers, state_dict, prefix)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _check_kinds(self, kept: list[int], transformed: list[int], angles: set[int]) -> None:
        """Refuse a transformer of angles for other coordinates, and the other way around.

        Raises:
            ConfigError: naming the coordinates.
        """
        changed = [*transformed, *(kept if self.unconditional else [])]
        wrong = sorted(i for i in changed if (i in angles) != self.transformer.periodic)
        if wrong:
            found = f"{type(self.transformer).__name__} would transform the coordinates {wrong}"
            if self.transformer.periodic:
                raise ConfigError(
                    f"{found}, which are not angles: choose a mask that keeps them, or leave angles= out."
                )
            raise ConfigError(f"{found}, which are angles: use a periodic one such as CircularSplineTransformer().")

    def _part(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A and B."""
        if self._first is None:
            return x.index_select(-1, self.kept), x.index_select(-1, self.transformed)
        pair = x.unflatten(-1, (-1, 2)).unbind(-1)
        return pair[self._first], pair[1 - self._first]

    def _join(self, a: Tensor, b: Tensor) -> Tensor:
        """The coordinates of A and B in their original order."""
        if self._first is None:
            return torch.cat((a, b), -1).index_select(-1, self.inverse_order)
        return torch.stack((b, a) if self._first else (a, b), -1).flatten(-2)

    def _seen(self, a: Tensor) -> Tensor:
        """What the network reads of A: numbers as they are, then the cosines and the sines of angles; see :func:`cos_and_sin`."""
        if not self._seen_as_angles:
            return a
        if not self._seen_as_numbers:
            return cos_and_sin(a, -1)
        angles = a.index_select(-1, constant(self._seen_as_angles, torch.int64, a.device))
        numbers = a.index_select(-1, constant(self._seen_as_numbers, torch.int64, a.device))
        return torch.cat((numbers, cos_and_sin(angles, -1)), -1)

    def _raw(self, a: Tensor, context: Tensor | None, b: Tensor) -> Tensor:
        """The transformer's raw parameters for B, ``(parameters, *b.shape)``; at least float32, under autocast too."""
        if self.network is None:
            assert self.free_transformed is not None
            return expand_parameters(self.free_transformed, b)
        check_context(context, self.context, "Coupling")
        inputs = self._seen(a)
        if self.context and context is not None:
            inputs = torch.cat((inputs, context), -1)
        raw = self.network(inputs).to(b.dtype)
        return raw.unflatten(-1, (self.transformer.parameters, b.shape[-1])).movedim(-2, 0)


def _angles(features: int, angles: tuple[int, ...] | None, transformer: Transformer) -> set[int]:
    """The coordinates that are angles.

    Raises:
        ConfigError: for an index out of range.
    """
    if angles is None:
        return set(range(features)) if transformer.periodic else set()
    if isinstance(angles, str) or not all(is_integer(i) and 0 <= i < features for i in angles):
        raise ConfigError(f"angles must contain indices in 0, ..., {features - 1}; got {angles!r}.")
    return {int(i) for i in angles}


def mask_indices(features: int, mask: str | tuple[int, ...]) -> list[int]:
    """The conditioning coordinates A of a named or explicit mask.

    Raises:
        ConfigError: for an unknown name, an index out of range or repeated, or a mask that contains every coordinate.
    """
    if mask == "alternate":
        return list(range(0, features, 2)) if features > 1 else []
    if mask == "halves":
        return list(range(features // 2))
    if not isinstance(mask, (tuple, list)):
        raise ConfigError(f"mask must be 'alternate', 'halves' or a tuple of indices; got {mask!r:.80}.")
    kept = list(check_indices("mask", mask, features))
    if len(kept) == features:
        raise ConfigError(
            f"mask contains every coordinate, so that nothing is transformed: leave some out; got {mask!r}."
        )
    return kept
