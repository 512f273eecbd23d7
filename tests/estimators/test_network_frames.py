"""Guards of networks on data frames: comparisons, flags and nullable types, and scores that are infinite."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch import Tensor, nn

import pushforward as pf
from pushforward.errors import CalibrationError, InputError
from pushforward.estimators.comparing import compare_guards


def frame(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"u": rng.normal(size=n), "v": 5 + 3 * rng.normal(size=n)})


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2)).to(dtype).eval()


def guard_of(rows: object, calibration: object, dtype: torch.dtype = torch.float32) -> pf.NetworkGuard:
    return pf.NetworkGuard(network(dtype), 0.05).fit(rows, calibration=calibration)


def alarms_of(guard: pf.NetworkGuard, new: object) -> int:
    return int((guard.p_value(new) <= guard.levels_[None]).sum())


@pytest.fixture(scope="module")
def guards() -> tuple[pf.NetworkGuard, pf.NetworkGuard]:
    """The same kind of network with the columns in two orders."""
    train, held_out = frame(400, 0), frame(400, 1)
    return guard_of(train, held_out), guard_of(train[["v", "u"]], held_out[["v", "u"]])


@pytest.mark.parametrize("make", [lambda df: df, pl.from_pandas, lambda df: df.assign(more=1.0)])
def test_each_guard_of_a_comparison_finds_its_columns_by_name(guards, make):
    new = frame(300, 2)
    found = compare_guards(*guards, make(new)).to_dict()
    for side, guard in zip("ab", guards, strict=True):
        assert found[side]["alarms"] == alarms_of(guard, new)


def test_each_guard_of_a_comparison_reads_arrays_in_the_type_of_its_network():
    train, held_out, new = (frame(400, seed).to_numpy() for seed in range(3))
    single, double = (guard_of(train, held_out, dtype) for dtype in (torch.float32, torch.float64))
    for pair in ((single, double), (double, single)):
        found = compare_guards(*pair, new).to_dict()
        assert [found[side]["alarms"] for side in "ab"] == [alarms_of(guard, new) for guard in pair]


def test_flags_and_nullable_types_are_numbers_and_text_is_named(guards):
    guard, new = guards[0], frame(50, 3)
    want = guard.p_value(new)
    assert np.array_equal(guard.p_value(new.convert_dtypes()), want)
    assert np.array_equal(guard.p_value(pl.from_pandas(new).lazy()), want)
    flags = new.assign(v=new.v > 5)
    assert np.array_equal(guard.p_value(flags), guard.p_value(flags.astype(float)))
    with pytest.raises(InputError, match=r"column 'v', row 0 \(counted from 0\), is 'x': drop the column"):
        guard.p_value(new.assign(v="x"))


def test_a_dictionary_of_lists_is_a_dictionary_of_inputs():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, u: Tensor, v: Tensor) -> Tensor:
            return self.net(torch.stack((u, v), 1))

    def inputs(rows: pd.DataFrame) -> dict[str, Tensor]:
        return {name: torch.tensor(rows[name].to_numpy(), dtype=torch.float32) for name in rows}

    guard = pf.NetworkGuard(Two().eval(), 0.05).fit(inputs(frame(400, 0)), calibration=inputs(frame(400, 1)))
    new = frame(20, 2)
    assert np.allclose(guard.p_value(new.to_dict("list")), guard.p_value(inputs(new)))


def test_labels_of_half_precision_are_read(guards):
    new = pd.concat((frame(50, 4), frame(5, 5) * 1000))
    labels = torch.tensor([0.0] * 50 + [1.0] * 5)
    whole, half = (guards[0].evaluate(new, y).to_dict() for y in (labels, labels.bfloat16()))
    assert whole == half


@pytest.mark.parametrize(("infinite", "refused"), [(1, False), (2, True)])
def test_so_many_infinite_scores_that_no_input_could_raise_an_alarm_are_refused(infinite, refused):
    """With 120 rows the "pac" guarantee alarms p-values of at most 2/121, and an infinite score has (infinite + 1) / 121."""
    guard = pf.NetworkGuard(network(), 0.05, guarantee="pac")
    guard.classes_ = 2
    scores = torch.cat((torch.arange(120.0 - infinite), torch.full((infinite,), torch.inf)))
    if refused:
        with pytest.raises(CalibrationError, match="2 of 120 calibration scores are infinite, so no input could raise"):
            guard._calibrate(scores, torch.zeros(120, dtype=torch.long))
    else:
        guard._calibrate(scores, torch.zeros(120, dtype=torch.long))
        assert guard.calibrators_[None].p_value(np.array([np.inf]))[0] <= guard.levels_[None] + 1e-12
