"""NICE and Real NVP of CIFAR-10 in the same setting."""

import torch

from papers.experiment import Experiment
from papers.flows.first_couplings import nice, real_nvp, symmetric_whitening
from papers.flows.timed_training import Pictures


def test_symmetric_whitening_has_covariance_one_and_its_log_determinant():
    mixed = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    rows = torch.randn(2000, 5, generator=torch.Generator().manual_seed(1)) @ mixed + 3
    z, contribution = symmetric_whitening(rows).encode(rows)[:2]
    torch.testing.assert_close(torch.cov(z.mT, correction=0), torch.eye(5), atol=1e-4, rtol=0)
    matrix = torch.linalg.lstsq(rows - rows.mean(0), z).solution
    torch.testing.assert_close(matrix, matrix.mT, atol=1e-3, rtol=1e-3)
    assert (torch.linalg.eigvalsh(matrix.double()) > 0).all()
    torch.testing.assert_close(contribution, torch.linalg.slogdet(matrix)[1].expand(2000), atol=1e-2, rtol=1e-3)


def test_both_models_start_from_the_same_images(tmp_path):
    images = torch.randint(256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = Pictures("made", images, images[:8], images[:8], 8)
    experiment = Experiment("toy", "smoke", tmp_path, say=lambda line: None)
    for contender in (nice(experiment, pictures), real_nvp(experiment, pictures)):
        model = contender.make()
        model.initialize(images[:16])
        assert model.evaluate(images[:4]).bits_per_dim().shape == (4,)
        drawn = model.sample(2, seed=0)
        assert drawn.shape == (2, 3, 8, 8)
