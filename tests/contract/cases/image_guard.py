"""The parts of the guard of images."""

from __future__ import annotations

from pushforward import models
from pushforward.detection import image_score, scores
from pushforward.networks import ConvSummary

from .kinds import ScoreCase, integers, s


def whole() -> image_score.ImageScore:
    """Images of 3 x 5 pixels, which become 4 x 8."""
    flow = models.ImageNICE(shape=(1, 4, 8), layers=2, hidden=(8,))
    dose = scores.DoSE(scores.LikelihoodPath(flow), scores.Log(scores.CodeLength("png")), density="gmm", components=2)
    return image_score.ImageScore(dose, (1, 3, 5))


SCORES: list[ScoreCase] = [
    s("PrincipalDistances", "vector", lambda: scores.PrincipalDistances((1, 2, 4), k=3, rows=30), shape=(5,)),
    s("PrincipalDistances", "image", lambda: scores.PrincipalDistances((1, 2, 3), k=1), shape=(1, 2, 3)),
    s(
        "Log",
        "code length",
        lambda: scores.Log(scores.CodeLength("png", pool=2)),
        integers(256),
        shape=(1, 2, 3),
        reach=1.0,
    ),
    s(
        "TransformationScore",
        "square",
        lambda: scores.TransformationScore(ConvSummary((1, 4, 4), 9, (4, 4), (8,))),
        integers(256),
        shape=(1, 4, 4),
    ),
    s(
        "TransformationScore",
        "rectangle, colors",
        lambda: scores.TransformationScore(ConvSummary((3, 4, 8), 4, (4,), (8,))),
        integers(256),
        shape=(3, 4, 8),
    ),
    s(
        "SurpriseSum",
        "two scores",
        lambda: scores.SurpriseSum(scores.Neighbors(2), scores.Variance(), weights=(1.0, 0.5)),
        shape=(1, 2, 3),
    ),
    s(
        "SurpriseSum",
        "one without weight",
        lambda: scores.SurpriseSum(scores.Neighbors(2), scores.Brightness(), weights=(1.0, 0.0)),
        shape=(5,),
    ),
    s("ImageScore", "odd sides", whole, integers(256), shape=(1, 3, 5), reach=1.0),
]
