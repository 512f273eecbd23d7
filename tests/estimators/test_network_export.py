"""The network and the guard through torch.export as one program."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

import pushforward as pf
from pushforward.detection import network as scores
from pushforward.detection.network.digest import digest
from pushforward.errors import ConfigError, PushforwardWarning


@pytest.fixture(scope="module")
def setting():
    torch.manual_seed(0)
    y = torch.randint(0, 3, (1500,))
    x = 3 * torch.randn(3, 1, 8, 8)[y] + torch.randn(1500, 1, 8, 8)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)
    )
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(30):
        loss = nn.functional.cross_entropy(net(x[:500]), y[:500])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval(), x, y


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, when it writes a program
@pytest.mark.parametrize("options", [{}, {"per_class": True}, {"score": "ViM"}], ids=str)
def test_the_exported_program_decides_as_the_guard_does(setting, tmp_path, options):
    net, x, y = setting
    guard = pf.NetworkGuard(net, 0.05, **options).fit((x[:500], y[:500]), calibration=x[500:1300])
    program = torch.export.export(guard.as_module(), (x[:8],), dynamic_shapes=(({0: torch.export.Dim.AUTO},),))
    torch.export.save(program, tmp_path / "guarded.pt2")
    run = torch.export.load(tmp_path / "guarded.pt2").module()
    rows = torch.cat((x[1300:1320], torch.full((1, 1, 8, 8), 40.0), torch.full((1, 1, 8, 8), torch.nan)))
    for part in (rows, rows[:3]):
        logits, p, alarm = run(part)
        expected = guard(part)
        assert torch.allclose(logits, expected.output, equal_nan=True)
        assert torch.allclose(p, expected.p_value)
        assert torch.equal(alarm, expected.alarm)
    assert run(rows)[2][-2:].all()


def test_scores_that_run_the_network_again_are_refused(setting):
    net, x, y = setting
    for score in ("ODIN", "GramMatrices", scores.External(lambda rows: rows.flatten(1).norm(dim=1))):
        guard = pf.NetworkGuard(net, 0.05, score=score).fit((x[:500], y[:500]), calibration=x[500:800])
        with pytest.raises(ConfigError, match="cannot be exported"):
            guard.as_module()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_export_leaves_the_mode_of_the_network(setting, tmp_path):
    net, x, y = setting
    guard = pf.NetworkGuard(net, 0.05, score="ViM").fit((x[:500], y[:500]), calibration=x[500:800])
    try:
        net.train()
        net[1].eval()  # a user may freeze some modules
        modes = [module.training for module in net.modules()]
        guard.export(tmp_path / "guard.pt2", x[:2].double().numpy())  # an array gets the precision of the network
        assert [module.training for module in net.modules()] == modes
    finally:
        net.eval()
    with pytest.raises(ConfigError, match="compare is for guards of tables and images"):
        pf.export.compare(guard, tmp_path / "guard.pt2", x[:5])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_export_after_more_training_says_that_the_calibration_does_not_hold(setting, tmp_path):
    net, x, y = setting
    other = copy.deepcopy(net)
    guard = pf.NetworkGuard(other, 0.05, score="Energy").fit((x[:500], y[:500]), calibration=x[500:800])
    with torch.no_grad():
        other[-1].bias.add_(0.5)
    with pytest.warns(PushforwardWarning, match="the graph has the new ones, for which the calibration does not hold"):
        guard.export(tmp_path / "guarded.pt2", x[:2])
    more = {"pushforward.json": ""}
    torch.export.load(tmp_path / "guarded.pt2", extra_files=more)
    facts = json.loads(more["pushforward.json"])
    assert facts["network"] == digest(other) != guard.digest_
