"""Where a bijection is needed, a chain that drops a sign, or whose image is not all reals, is refused."""

from __future__ import annotations

import pytest
import torch

from pushforward import distributions, models, transforms
from pushforward.errors import ConfigError, KindError, KindWarning
from pushforward.likelihood import Kind
from pushforward.networks import MLP
from pushforward.transforms import Abs, Chain, Coupling, EmbedContext, Inverse, Monotone, Sigmoid, Softplus


def folded() -> Chain:
    return Chain(Abs(2), Inverse(Softplus(2)))


def test_a_chain_with_a_lost_sign_is_no_bijection() -> None:
    assert folded().many_to_one
    assert not folded().bijective
    with pytest.raises(KindError, match="not a bijection"):
        transforms.Injective(folded(), 1)
    with pytest.raises(KindError, match="must be a bijection"):
        models.CyGen(2, latent=2, hidden=(8,), flow=folded())
    embedded = EmbedContext(Chain(*folded(), Coupling(2, context=3, hidden=(4,))), MLP(5, 3, hidden=(4,)))
    assert not embedded.bijective
    assert not embedded.invertible
    with pytest.raises(KindError, match="no inverse"):
        Inverse(embedded)


def test_an_embedded_context_keeps_the_gradients_that_there_are() -> None:
    for part, has in ((Abs(2, hidden=(4,)), False), (Coupling(2, hidden=(4,)), True)):
        chain = Chain(part, *([] if has else [Inverse(Softplus(2))]), Coupling(2, context=3, hidden=(4,)))
        model = models.Flow(EmbedContext(chain, MLP(5, 3, hidden=(4,))), distributions.Normal(2))
        assert model.distribution(torch.zeros(5)).has_rsample is has


@pytest.mark.parametrize("kind", ["slice", "max"])
def test_a_conditional_flow_must_map_onto_all_reals(kind: str) -> None:
    """A standard normal on (0, 1) has the mass 0.34, and the density would have no more."""
    context = 1 if kind == "slice" else 3
    flow = Chain(Monotone(1, context=context, hidden=(4,)), Sigmoid(1))
    with pytest.raises(ConfigError, match="must map onto all reals"):
        transforms.Slice(2, keep=1, decoder=flow) if kind == "slice" else transforms.Max(2, decoder=flow)


def test_unknown_parts_of_a_box_cover_nothing():
    """Bounds of the first coordinate are not those of the second, so a third of the mass is not all of it."""
    one, other = transforms.Permutation(2, (1, 0)), transforms.Permutation(2, (0, 1))
    bounds = [transforms.Bounds(2, (0.0, None), (1.0, None)) for _ in range(2)]
    inner = models.Flow(transforms.Chain(other, bounds[0]), distributions.Normal(2))
    with pytest.warns(KindWarning, match="some of the mass belongs to no data point"):
        flow = models.Flow(
            transforms.Chain(transforms.Inverse(transforms.Chain(one, bounds[1]))), models.Ensemble(inner)
        )
    assert flow.kind is Kind.LOWER_BOUND
