"""Ensembles and products have the kind that their parts have now."""

import pytest
import torch

from pushforward import models, transforms
from pushforward.distributions import Normal, Product
from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import Kind
from pushforward.networks import SetSummary


def test_an_ensemble_follows_its_members():
    member = models.ResidualFlow(2)
    member.set_log_det("exact")
    flow = models.Flow(transforms.Affine(2), models.Ensemble(member, models.NICE(2)))
    assert flow.kind is Kind.EXACT
    flow.log_prob(torch.zeros(3, 2))
    member.set_log_det("roulette")
    assert flow.kind is Kind.ESTIMATE
    assert flow.evaluate(torch.zeros(3, 2)).kind is Kind.ESTIMATE
    with pytest.raises(KindError):
        flow.log_prob(torch.zeros(3, 2))


def test_a_product_follows_its_parts():
    member = models.ResidualFlow(2)
    member.set_log_det("exact")
    product = Product(models.Ensemble(member), Normal(1))
    assert product.kind is Kind.EXACT
    member.set_log_det("roulette")
    assert product.kind is not Kind.EXACT


def test_a_summary_of_sets_needs_a_hidden_layer():
    with pytest.raises(ConfigError, match="hidden must have at least one width"):
        SetSummary(5, 2, 3, hidden=())
