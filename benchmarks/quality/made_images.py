"""Outliers made from in-distribution images, on which options may be chosen without other images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["made_images"]


def made_images(x: Tensor, seed: int = 3) -> dict[str, Tensor]:
    """Make shuffled, blurred, mixed, moved and otherwise changed images.

    Args:
        x: uint8, ``(n, channels, height, width)``, sides multiples of 4.
        seed: seed of shuffles, partners and noise.

    Returns:
        A dictionary from the kind of change to uint8 images of the same shape.
    """
    generator = torch.Generator().manual_seed(seed)
    count, height, width = len(x), *x.shape[-2:]
    real, partner = x.float(), x[torch.randperm(count, generator=generator)]
    halved = x.clone()
    halved[:, :, : height // 2] = partner[:, :, : height // 2]
    small = F.pad(F.avg_pool2d(real, 2), (width // 4, width - width // 4 - width // 2, height // 4, height - height // 4 - height // 2))  # fmt: skip
    inner = real[..., height // 4 : height - height // 4, width // 4 : width - width // 4]
    positions = torch.randperm(height * width, generator=generator)
    images = {
        "blocks of a quarter": _shuffled(x, 4, generator),
        "blocks of a half": _shuffled(x, 2, generator),
        "blurred": F.avg_pool2d(real, 3, 1, 1),
        "half the contrast": real / 2,
        "two mixed": (real + partner.float()) / 2,
        "two halves": halved,
        "turned by 90 degrees": x.rot90(1, (2, 3)) if height == width else x.flip(2),
        "4 gray levels": x // 64 * 64,
        "2 gray levels": (x > 127) * 255,
        "noise of 20": real + 20 * torch.randn(x.shape, generator=generator),
        "twice as large": F.interpolate(inner, size=(height, width), mode="nearest"),
        "half as large": small,
        "moved by a third": x.roll((height // 3, width // 3), (2, 3)),
        "dilated": F.max_pool2d(real, 3, 1, 1),
        "eroded": 255 - F.max_pool2d(255 - real, 3, 1, 1),
        "every other line": x * (torch.arange(height) % 2)[:, None],
        "pixels in one other order": x.flatten(2)[..., positions].reshape(x.shape),
    }
    return {name: made.float().round().clamp(0, 255).to(torch.uint8) for name, made in images.items()}


def _shuffled(x: Tensor, parts: int, generator: torch.Generator) -> Tensor:
    """Each image's ``parts`` x ``parts`` blocks in a random order."""
    count, channels, height, width = x.shape
    side, along = height // parts, width // parts
    blocks = x.unfold(2, side, side).unfold(3, along, along).reshape(count, channels, parts * parts, side, along)
    orders = torch.stack([torch.randperm(parts * parts, generator=generator) for _ in range(count)])
    blocks = blocks.gather(2, orders[:, None, :, None, None].expand_as(blocks))
    return blocks.reshape(count, channels, parts, parts, side, along).permute(0, 1, 2, 4, 3, 5).reshape(x.shape)
