"""NICE and Real NVP of CIFAR-10 in the same setting."""

from types import SimpleNamespace

import pytest
import torch

from papers.experiment import Experiment
from papers.flows import inpainting
from papers.flows.first_couplings import symmetric_whitening


def test_symmetric_whitening_has_covariance_one_and_its_log_determinant():
    mixed = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    rows = torch.randn(2000, 5, generator=torch.Generator().manual_seed(1)) @ mixed + 3
    z, contribution = symmetric_whitening(rows).encode(rows)[:2]
    torch.testing.assert_close(torch.cov(z.mT, correction=0), torch.eye(5), atol=1e-4, rtol=0)
    matrix = torch.linalg.lstsq(rows - rows.mean(0), z).solution
    torch.testing.assert_close(matrix, matrix.mT, atol=1e-3, rtol=1e-3)
    assert (torch.linalg.eigvalsh(matrix.double()) > 0).all()
    torch.testing.assert_close(contribution, torch.linalg.slogdet(matrix)[1].expand(2000), atol=1e-2, rtol=1e-3)


def test_filled_halves_are_compared_with_the_true_ones(tmp_path, monkeypatch):
    """Two classes of images, which differ in the lower half too: the mean of both is halfway between them."""
    classes = torch.arange(200) % 2
    images = 100 + 100 * classes[:, None, None, None] * torch.ones(200, 1, 28, 28)
    images = (images + torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).round()
    monkeypatch.setattr(inpainting, "load_labels", lambda *_, **__: classes)
    judge = inpainting._Judge(Experiment("nice", "smoke", tmp_path, say=lambda line: None), images, images[100:])
    judge.features = lambda x: x.flatten(1).mean(1)
    judge.classifier = SimpleNamespace(predict=lambda brightness: (brightness > 150).astype(int))
    assert judge.of(judge.images) == {"error": 0.0, "right": 1.0}
    shifted = torch.where(judge.known, judge.images, judge.images + 7)
    assert judge.of(shifted)["error"] == pytest.approx(7)
    found = judge.others()
    assert found["mean"]["error"] == pytest.approx(50, abs=1)
    assert found["nearest"]["error"] < 3
    assert found["nearest"]["right"] == 1
