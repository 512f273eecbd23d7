"""Samples of the weights of any model, as a :class:`Posterior`: deep ensembles, SWAG, SGHMC and Bayes by Backprop."""

from pushforward.training.bayes.backprop import bayes_by_backprop
from pushforward.training.bayes.ensemble import deep_ensemble
from pushforward.training.bayes.posterior import Posterior
from pushforward.training.bayes.sghmc import sghmc
from pushforward.training.bayes.swag import swag

__all__ = ["Posterior", "bayes_by_backprop", "deep_ensemble", "sghmc", "swag"]
