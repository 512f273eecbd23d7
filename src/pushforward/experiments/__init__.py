"""Each paper's claims as a recipe that runs on real data and says what held."""

from pushforward.experiments.datasets import load_images
from pushforward.experiments.lab import Lab
from pushforward.experiments.recipe import Finding, Recipe, find, recipe, recipes
from pushforward.experiments.report import Report, markdown, page, read_reports
from pushforward.experiments.run import reproduce

__all__ = [
    "Finding",
    "Lab",
    "Recipe",
    "Report",
    "find",
    "load_images",
    "markdown",
    "page",
    "read_reports",
    "recipe",
    "recipes",
    "reproduce",
]
