"""Weights that a mask hides stay 0: Adam's averages of their gradients would become denormal numbers, which are slow."""

import pytest
import torch

import pushforward as pf
from pushforward.networks.masked import MaskedLinear
from pushforward.networks.masked_conv import MaskedConv2d

MODELS = {
    "MAF": lambda: pf.models.MAF(4, layers=2, hidden=(8, 8)),
    "residual": lambda: pf.models.Flow(
        pf.transforms.MaskedAutoregressive(4, hidden=(8, 8), residual=True), pf.distributions.Normal(4)
    ),
    "PixelCNN": lambda: pf.models.PixelCNN((1, 4, 4), filters=4, layers=2),
}


def hidden_weights(model):
    parts = [part for part in model.modules() if isinstance(part, (MaskedLinear, MaskedConv2d))]
    assert parts
    return torch.cat([part.weight[~part.mask.expand_as(part.weight)] for part in parts])


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_hidden_weights_start_and_stay_at_0(build):
    model = build()
    assert (hidden_weights(model) == 0).all()
    rows = torch.randint(0, 256, (32, 1, 4, 4)) if isinstance(model, pf.models.PixelCNN) else torch.randn(32, 4)
    pf.fit(model, rows, validation=None, optimizer="adam", weight_decay=0.1, max_steps=3, seed=0, progress="silent")
    assert (hidden_weights(model) == 0).all()
