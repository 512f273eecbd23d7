"""Causal transformer: the outputs of a token depend on earlier tokens only."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from pushforward.errors import ConfigError
from pushforward.numerics import bound_input
from pushforward.numerics.checks import check_integer
from pushforward.numerics.tracing import is_transformed

__all__ = ["CausalTransformer", "Memory", "attend"]

Memory = list[tuple[Tensor, Tensor] | None]
"""Keys and values of the earlier tokens, for each block: ``(n, heads, tokens, width / heads)``."""


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(width)) v, ``(*batch, tokens, width)`` each; ``causal`` hides later tokens.

    The fused kernel, which is two to three times faster from 200 tokens on, has neither forward mode nor second derivatives. So under
    ``torch.func`` and in forward mode the same is computed from its parts. For a double backward pass choose ``SDPBackend.MATH`` with
    ``torch.nn.attention.sdpa_kernel``.
    """
    if not is_transformed() and forward_ad._current_level < 0:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    weights = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        later = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
        weights = weights.masked_fill(later, -math.inf)
    return weights.softmax(-1) @ v


class CausalBlock(nn.Module):
    """h + attention(norm(h)), then h + mlp(norm(h)) (pre-norm; Vaswani et al. 2017, arXiv 1706.03762)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """``(n, tokens, width)`` to the same shape, and the keys and values; ``past`` has those of all earlier tokens.

        The input is all tokens without ``past``, or one token with it.
        """
        q, k, v = self.project(self.norm(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        seen = attend(q, k, v, causal=past is None)
        h = h + self.out(seen.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm_mlp(h)), (k, v)


class CausalTransformer(nn.Module):
    """Transformer whose outputs for token i depend on the tokens before i and on the context.

    It reads a trainable start token and then all tokens but the last. Position embeddings are trainable.

    Args:
        tokens: N, the length of a sequence.
        inputs: width of a token.
        outputs: number of outputs for each token.
        width: of the blocks.
        layers: number of blocks.
        heads: number of attention heads; a divisor of ``width``.
        context: width of the context, which is added to every token.
        input_bound: tokens and context are clamped to [-input_bound, input_bound], so that the output is bounded.
        output_gain: factor on the last layer's initial weights; its bias starts at 0.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> CausalTransformer(6, 2, 4, width=8, layers=1, heads=2)(torch.zeros(3, 6, 2)).shape
        torch.Size([3, 6, 4])
    """

    def __init__(
        self,
        tokens: int,
        inputs: int,
        outputs: int,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        context: int = 0,
        input_bound: float = 10.0,
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_integer("width", width)
        check_integer("layers", layers)
        check_integer("context", context, 0)
        if width % check_integer("heads", heads):
            raise ConfigError(f"width must be a multiple of heads; got width={width} and heads={heads}.")
        self.tokens, self.inputs, self.outputs = tokens, inputs, outputs
        self.input_bound = input_bound
        self.embed = nn.Linear(inputs, width) if tokens > 1 else None  # the last token is not read
        self.start = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.position = nn.Parameter(torch.empty(tokens, width).normal_(std=0.02))
        self.context = nn.Linear(context, width) if context else None
        self.blocks = nn.ModuleList(CausalBlock(width, heads) for _ in range(layers))
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, outputs)
        with torch.no_grad():
            self.last.weight.mul_(output_gain)
            self.last.bias.zero_()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(n, tokens, inputs)`` and ``(n, context)`` to ``(n, tokens, outputs)``."""
        first = self.start.expand(x.shape[0], 1, -1)
        h = first if self.embed is None else torch.cat((first, self.embed(self._bounded(x[:, :-1]))), 1)
        h = h + self.position + self._added(context)
        for block in self.blocks:
            h, _ = block(h)
        return self.last(self.norm(h))

    def memory(self) -> Memory:
        """An empty memory, for :meth:`step`."""
        return [None] * len(self.blocks)

    def step(self, before: Tensor | None, position: int, memory: Memory, rows: int, context: Tensor | None) -> Tensor:
        """Outputs for one token, ``(n, outputs)``, given the token before it, ``(n, inputs)``, or None for the first.

        The keys and values of this token are appended to ``memory``, which must have those of all earlier tokens.
        """
        if before is None or self.embed is None:
            h = self.start.expand(rows, 1, -1)
        else:
            h = self.embed(self._bounded(before)).unsqueeze(1)
        h = h + self.position[position] + self._added(context)
        for index, block in enumerate(self.blocks):
            h, memory[index] = block(h, memory[index])
        return self.last(self.norm(h)).squeeze(1)

    def _bounded(self, x: Tensor) -> Tensor:
        return bound_input(x, self.input_bound)

    def _added(self, context: Tensor | None) -> Tensor | float:
        if self.context is None or context is None:
            return 0.0
        return self.context(self._bounded(context)).unsqueeze(1)
