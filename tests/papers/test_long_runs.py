"""Runs of hours: they resume after a kill, convert CPU time into steps, and compare models on hand-made results."""

import gzip
import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pushforward as pf
from benchmarks.common.datasets import load_power
from benchmarks.quality.data import Split
from papers.claims import maf, reviews
from papers.claims.maf import Recipe, compare_patches
from papers.experiment import Experiment, UnfinishedError
from papers.flows import table_recipes
from papers.flows.equal_time import (
    AFFINE,
    IMAGES,
    UNIVERSAL,
    VECTORS,
    Column,
    columns_of,
    gaps,
    ranks,
    run_column,
)
from papers.flows.table_recipes import PAPER_OPTIONS, Rival, compare_more, until_level
from pushforward.errors import StorageError, TrainingError
from pushforward.models import MAF, Model, RealNVP


class KilledError(Exception):
    """Stands for the death of the process: nothing is written after it."""


def quiet(out: Path, budget: str = "long", seeds: int | None = None) -> Experiment:
    return Experiment("toy", budget, out, seeds=seeds, say=lambda line: None)  # pyright: ignore[reportArgumentType]


def rows(count: int, width: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_a_killed_training_goes_on_from_its_checkpoint_and_ends_with_the_same_weights(tmp_path):
    make = lambda: MAF(3, layers=2, hidden=(8,), components=2, batch_norm=True)  # noqa: E731
    options = PAPER_OPTIONS | {"max_steps": 80, "evaluate_every": 20, "checkpoint_every": 10, "curve": True}

    def die(event: pf.training.TrainingEvent) -> None:
        if event.step == 40:
            raise KilledError

    with pytest.raises(KilledError):
        quiet(tmp_path).train("a run", make, rows(300), rows(50, seed=1), callback=die, **options)
    assert list(tmp_path.glob("*.checkpoint"))
    again: list[int] = []
    resumed, facts = quiet(tmp_path).train(
        "a run", make, rows(300), rows(50, seed=1), callback=lambda event: again.append(event.step), **options
    )
    assert again == [40, 60, 80]  # from step 30, where the checkpoint was written, and not from 0
    assert not list(tmp_path.glob("*.checkpoint"))
    whole, expected = quiet(tmp_path / "whole").train("a run", make, rows(300), rows(50, seed=1), **options)
    assert torch.equal(resumed.log_prob(rows(50)), whole.log_prob(rows(50)))
    assert facts["curve"] == expected["curve"]
    assert [step for step, _ in facts["curve"]] == [0, 20, 40, 60, 80]


def test_keys_with_a_dot_have_files_of_their_own(tmp_path):
    narrow, wide = (partial(RealNVP, 3, layers=2, hidden=(width,)) for width in (4, 8))
    experiment = quiet(tmp_path)
    first, _ = experiment.train("noise 0.5 narrow", narrow, rows(60), None, max_steps=1)
    experiment.train("noise 0.5 wide", wide, rows(60), None, max_steps=1)
    again, _ = quiet(tmp_path).train("noise 0.5 narrow", narrow, rows(60), None, max_steps=1)
    assert torch.equal(first.log_prob(rows(9)), again.log_prob(rows(9)))


def test_a_long_run_has_its_own_time_limit_and_times_a_second_of_steps(tmp_path, monkeypatch):
    """A step takes 10 ms by a clock that only training moves, and each training half a second more."""
    clock, timed = [0.0], set()

    def train(*args, max_steps: int, **options) -> None:
        timed.add(max_steps)
        clock[0] += 0.5 + 0.01 * max_steps

    monkeypatch.setattr("papers.experiment.fit", train)
    monkeypatch.setattr("papers.experiment.time.process_time", lambda: clock[0])
    limit = partial(Experiment.time_limit, key="m", make=list, rows=rows(9), smoke=1, quick=3, full=7.0)  # pyright: ignore[reportArgumentType]
    assert limit(quiet(tmp_path, "quick"), long=60) == {"max_steps": 300}
    assert timed == {2, 12}
    assert limit(quiet(tmp_path, "long"), long=60) == {"max_steps": 6000}
    assert timed == {2, 12, 102}
    assert limit(quiet(tmp_path / "without", "long")) == {"max_steps": 300}
    assert limit(quiet(tmp_path, "smoke"), long=60) == {"max_steps": 1}
    assert limit(quiet(tmp_path, "full"), long=60) == {"max_time": 7.0}


def test_a_stopped_comparison_on_patches_reports_the_models_that_are_finished(tmp_path, monkeypatch):
    split = Split("noise", rows(200), rows(50, seed=1), rows(60, seed=2), offset=100.0)
    tiny = {"layers": 1, "hidden": (4,)}
    recipes = {
        "MAF (5)": Recipe(lambda: MAF(3, **tiny), PAPER_OPTIONS, 90.0, 0.1),
        "Real NVP (5)": Recipe(lambda: RealNVP(3, **tiny), PAPER_OPTIONS, 50.0, 0.1),
        "late": Recipe(lambda: MAF(3, **tiny), PAPER_OPTIONS, 99.0, 0.1),
    }
    fit = maf._fit_patches

    def stops(stop: str) -> Experiment:
        """A comparison whose time is over when this model comes."""

        def until(experiment: Experiment, split: Split, name: str, *args: Any) -> maf.Fit:
            if name == stop:
                raise UnfinishedError(name)
            return fit(experiment, split, name, *args)

        monkeypatch.setattr(maf, "_fit_patches", until)
        experiment = quiet(tmp_path, "smoke")
        with pytest.raises(UnfinishedError, match=re.escape(stop)):
            compare_patches(experiment, split, recipes)
        return experiment

    assert not stops("Real NVP (5)").findings
    beats, order, reached = stops("late").findings
    assert beats.paper == "MAF (5) 90.00, Real NVP (5) 50.00 nats"
    assert order.paper == "Real NVP (5) < MAF (5)"
    assert "late" not in reached.ours


@pytest.mark.parametrize(
    ("second", "named", "expected"), [(48.0, 2, True), (48.0, 3, None), (52.0, 2, False), (52.0, 3, False)]
)
def test_the_order_of_a_part_of_the_models_is_not_confirmed(tmp_path, second, named, expected):
    recipes = {name: Recipe(list, {}, published, 0.1) for name, published in (("a", 50.0), ("b", 40.0), ("c", 30.0))}  # pyright: ignore[reportArgumentType]
    experiment = quiet(tmp_path)
    fits = {"a": maf.Fit({}, 50.0, 0.1), "b": maf.Fit({}, second, 0.1)}
    maf._report_order(experiment, fits, dict(list(recipes.items())[:named]))
    assert experiment.findings[0].confirmed is expected


def test_further_models_are_compared_with_maf_on_the_same_splits(tmp_path, monkeypatch):
    """A model with the right scale is ahead of the given figures of MAF, and one that knows nothing is behind them."""
    splits = []

    def load(name: str, *, seed: int, folder: Any) -> tuple[torch.Tensor, ...]:
        splits.append((name, seed))
        return rows(400, seed=seed), rows(200, seed=seed + 10), rows(400, seed=seed + 20)

    monkeypatch.setattr(table_recipes, "load_table", load)
    monkeypatch.setattr(Experiment, "time_limit", lambda self, key, *args, **options: {"max_steps": 20})
    options = PAPER_OPTIONS | {"learning_rate": 1e-6}
    make = lambda width: MAF(width, layers=1, hidden=(4,))  # noqa: E731
    rivals = {
        "near": Rival(make, options, "near beats MAF", "in 5 of 5 tables"),
        "other": Rival(make, options, "MAF beats other", "in 3 of 5 tables", ahead=False),
    }
    monkeypatch.setattr(table_recipes, "RIVALS", rivals)
    experiment = quiet(tmp_path, seeds=3)
    compare_more(experiment, {"toy": [-9.0, -9.1, -9.2], "second": [-8.0, -8.1, -8.2]})
    first, second = experiment.findings
    assert (first.confirmed, second.confirmed) == (True, False)
    assert "near is ahead in 2 of 2, behind in 0" in first.ours
    assert "against -9.10 ± 0.10 (MAF)" in second.ours
    assert "0 of 6 runs ended because 30 passes" in first.note
    assert set(splits) == {(name, seed) for name in ("toy", "second") for seed in range(3)}


def test_a_run_that_is_not_level_after_the_first_time_is_made_again_with_more(tmp_path, monkeypatch):
    steps = {300: 3, 1200: 5}
    monkeypatch.setattr(
        Experiment, "time_limit", lambda self, key, *args, **options: {"max_steps": steps[options["long"]]}
    )
    experiment = quiet(tmp_path, "long", seeds=1)
    trained, level = until_level(
        experiment, "toy MAF", lambda: MAF(3, layers=1, hidden=(4,)), rows(100), rows(50, seed=1), 0
    )
    assert not level
    assert trained.facts["steps"] == 5
    assert experiment.measured("toy MAF 0")
    assert trained.key == "toy MAF 0, 1200 s"


def test_patches_are_reported_at_the_longest_time_for_which_all_models_are_finished(tmp_path, monkeypatch):
    recipes = {
        name: Recipe(lambda: MAF(3, layers=1, hidden=(4,)), PAPER_OPTIONS, 90.0, 0.1)
        for name in ("MAF (5)", "Real NVP (5)", "Real NVP (10)", "late")
    }
    over = [("late", 180)]

    def fit(experiment: Experiment, split: Split, name: str, recipe: Recipe, minutes: int) -> maf.Fit:
        if (name, minutes) in over:
            raise UnfinishedError(name)
        return maf.Fit(
            {"steps": 4, "seconds": 1.0, "parameters": 5, "curve": [[0, 1.0], [4, 2.0]]}, 100.0 + minutes, 0.1
        )

    monkeypatch.setattr(maf, "_fit_patches", fit)
    split = Split("noise", rows(20), rows(20), rows(20), offset=0.0)
    experiment = quiet(tmp_path, "long")
    with pytest.raises(UnfinishedError):
        compare_patches(experiment, split, recipes)
    assert "Real NVP (10) 140.00" in experiment.findings[0].ours
    over.clear()
    experiment = quiet(tmp_path, "long")
    compare_patches(experiment, split, recipes)
    beats, _, reached = experiment.findings
    assert "MAF (5) 280.00" in beats.ours
    assert "Real NVP (5) 280.00" in beats.ours
    assert "Real NVP (10)" not in beats.ours
    assert "as many steps each as 180 minutes of CPU time give" in beats.note
    assert "after 40 minutes MAF (5) 140.00" in reached.note
    assert "Real NVP (10) 140.00" in reached.note


def test_a_long_run_has_every_family_in_its_columns(tmp_path):
    parts = rows(9), rows(9), rows(9)
    images = torch.zeros(9, 1, 28, 28), torch.zeros(9, 1, 28, 28), torch.zeros(9, 1, 28, 28)
    plane, table, last = columns_of(
        quiet(tmp_path), {"a": lambda seed: parts}, {"b": lambda seed: parts}, lambda seed: images
    )
    assert list(plane.families) == list(table.families) == list(VECTORS)
    assert list(last.families) == list(IMAGES)
    assert [column.limit["long"] for column in (plane, table, last)] == [20, 20, 150]
    assert plane.families["MAF"]().shape == (3,)


def test_distances_and_ranks_are_paired_by_seed():
    cells = {"a": [1.0, 3.0], "b": [0.5, 2.7], "c": [5.0, None], "d": [-1.0, 0.0]}
    found = gaps(cells)
    assert found["a"] == (0.0, pytest.approx(math.sqrt(2.0)))  # the spread of its own values
    assert found["b"] == (pytest.approx(-0.4), pytest.approx(math.sqrt(0.02)))
    assert found["c"] is None
    assert ranks(cells) == {"a": 1, "b": 2, "c": 4, "d": 3}


def test_a_stopped_comparison_of_families_reports_the_columns_that_are_finished(tmp_path, monkeypatch):
    """Hand-made cells of three seeds, in which universal families are ahead; columns can be finished in any order."""
    done: set[str] = set()

    def cells(experiment: Experiment, column: Column) -> dict[str, list[float]]:
        if column.name not in done:
            raise UnfinishedError(column.name)
        return {family: [-3.0 - (family in AFFINE)] * 3 for family in VECTORS}

    monkeypatch.setattr(reviews, "run_column", cells)
    monkeypatch.setattr(reviews, "load_table", lambda *args, **options: (rows(9), rows(9), rows(9)))
    experiment = quiet(tmp_path)
    with pytest.raises(UnfinishedError, match="checkerboard"):
        reviews._equal_time(experiment)
    assert not experiment.findings
    done |= {"checkerboard", "moons", "kin40k"}
    with pytest.raises(UnfinishedError, match="spirals"):
        reviews._equal_time(experiment)
    couplings, finding = experiment.findings
    assert couplings.ours.startswith("checkerboard -3.000 ± 0.000 against -4.000 ± 0.000")
    assert couplings.note.startswith("clear: checkerboard, moons, kin40k; ")
    assert couplings.confirmed is None
    assert finding.ours.startswith("ahead by the median rank in 3 of 3")
    assert finding.ours.endswith("on Fashion-MNIST: open")
    assert finding.confirmed is None
    assert experiment.pictures[0].stat().st_size > 1000


class Failing(Model):
    """A model whose training ends with an error."""

    def __init__(self, message: str) -> None:
        inner = RealNVP(3, layers=1, hidden=(4,))
        super().__init__(inner.chain, inner.base)
        self.message = message

    def loss(self, *args, **kwargs):
        raise TrainingError(self.message)


def _column(build) -> Column:
    parts = rows(60), rows(20, seed=1), rows(20, seed=2)
    limit = {"smoke": 2, "quick": 1, "full": 1}
    return Column("noise", "plane", lambda seed: parts, {"failing": build}, limit, 20, (1e-3,), 3)


def test_a_diverged_training_is_an_empty_cell_that_a_resumed_run_keeps(tmp_path):
    made: list[int] = []

    def build() -> Model:
        made.append(1)
        return Failing("the loss is nan at step 1")

    for _ in range(2):
        assert run_column(quiet(tmp_path, "smoke"), _column(build)) == {"failing": [None]}
    assert len(made) == 1
    with pytest.raises(TrainingError, match="another run"):
        run_column(quiet(tmp_path / "b", "smoke"), _column(lambda: Failing("the checkpoint belongs to another run")))


def test_the_groups_name_families():
    assert set(AFFINE) | set(UNIVERSAL) <= set(VECTORS)
    assert not set(AFFINE) & set(UNIVERSAL)
    assert all(build().shape == (1, 28, 28) for build in IMAGES.values())


def test_household_power_has_the_columns_of_the_benchmark(tmp_path):
    """Active power, voltage, three meters and the minute of the day, without the rows that have empty cells."""
    lines = ["Datetime,active,reactive,voltage,intensity,one,two,three"]
    lines += [
        f"16/12/2006 {k // 60:02d}:{k % 60:02d}:00,{k % 7}.5,9,{240 - k % 5},9,{k % 2},{k % 3},{k % 4}"
        for k in range(200)
    ]
    lines[5] = "16/12/2006 00:04:00,,,,,,,"
    (tmp_path / "power").mkdir()
    (tmp_path / "power" / "household_power_2006-12_first19446.csv.gz").write_bytes(
        gzip.compress("\n".join(lines).encode())
    )
    parts = load_power(seed=1, folder=tmp_path)
    assert [len(part) for part in parts] == [162, 18, 19]
    whole = torch.cat(parts)
    assert whole.shape == (199, 6)
    # The minutes 0, ..., 199 are evenly spaced after standardization; noise moves each by less than one minute.
    minutes = np.sort(whole[:, 5].numpy())
    assert np.abs(np.diff(minutes)).max() < 3 * (minutes[-1] - minutes[0]) / 199
    assert not torch.equal(load_power(seed=2, folder=tmp_path)[2], parts[2])
    with pytest.raises(StorageError, match="household_power"):
        load_power(seed=0, folder=tmp_path / "empty")
