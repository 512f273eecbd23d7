"""Each paper's claims as a recipe that runs on real data and says what held."""

from papers.context import Lab
from papers.datasets import load_images
from papers.report import Report, markdown, page, read_reports
from papers.reproduction import Finding, Recipe, find, recipe, recipes
from papers.run import reproduce

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
