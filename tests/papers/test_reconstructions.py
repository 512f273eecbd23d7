"""Reconstructions that the paper of AEF compares: both models decode the center of the code, and nothing is drawn."""

import pytest
import torch

from papers.claims.aef import _Builders, _errors
from pushforward.transforms import Variational

SHAPE = (1, 8, 8)


def test_the_error_of_a_vae_is_that_of_the_center_of_its_code():
    torch.manual_seed(0)
    images = torch.randint(256, (40, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    model = _Builders(SHAPE, 2, (4,), {"layers": 1, "hidden": (8,)}).vae()
    model.initialize(images.float())
    inner = list(model.chain)[-1]
    assert isinstance(inner, Variational)
    with torch.no_grad():
        for weights in inner.parameters():  # a code that matters, and a wide posterior
            weights.add_(0.3 * torch.randn(weights.shape))
        center = inner.center(model.chain[:-1].encode(images.float()).z)
        drawn = [(model.decode(model.encode(images, seed=seed)) - images).square().mean().sqrt() for seed in (0, 1)]
        expected = (model.decode(center) - images).square().mean().sqrt().item()
    whole, _ = _errors(model, images, torch.ones(64, dtype=torch.bool))
    assert whole == pytest.approx(expected, rel=1e-6)
    assert min(abs(error.item() - expected) for error in drawn) > 1e-3 * expected
