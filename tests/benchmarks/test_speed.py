"""The speed benchmark: its table of cases, its workers, and its reports."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package

from benchmarks.speed import __main__ as benchmark  # noqa: E402
from benchmarks.speed import libraries, report, suite  # noqa: E402
from benchmarks.speed.accuracy import errors  # noqa: E402
from benchmarks.speed.cases import CASES, ENSEMBLES, WORKS, Case, Flow, batches, named, selected  # noqa: E402
from benchmarks.speed.devices import Cuda  # noqa: E402
from benchmarks.speed.growth import SWEEPS, exponents  # noqa: E402
from benchmarks.speed.records import Readings  # noqa: E402
from benchmarks.speed.runner import Entry, Settings, Worker, Workers, interleave  # noqa: E402
from benchmarks.speed.worker import Session  # noqa: E402

KINDS = ("maf", "rnvp", "nsfc", "nsfar")
TINY = Flow("maf", 3, 4, 2)
QUICK = Settings(threads=1, rounds=2, visit=0.001, steps=1, limit=120)


@pytest.fixture(autouse=True)
def as_before():
    """Restore torch's default type, which adapters change."""
    yield
    torch.set_default_dtype(torch.float32)


# The table of cases ---------------------------------------------------------------------------------------------------


def test_names_are_unique_and_lead_back_to_the_case():
    cases = (*CASES, *ENSEMBLES)
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert named(case.name) == case
        assert Case.from_plain(json.loads(json.dumps(case.plain()))) == case


@pytest.mark.parametrize("name", ["maf-d6-h128", "maf-d6-h128/log_prob@0", "maf-d6-h128/score@5", "glow/log_prob@1"])
def test_an_unknown_case_is_refused(name):
    with pytest.raises(SystemExit, match="is not a case"):
        named(name)


def test_patterns_name_flows_or_calls(tmp_path):
    chosen = [case.name for case in selected(CASES, ["maf-d6-h128", "rnvp-d784-*/sample@1"])]
    assert "rnvp-d784-h512/sample@1" in chosen
    assert {name.split("/")[0] for name in chosen if not name.startswith("rnvp")} == {"maf-d6-h128"}
    assert {case.batch for case in selected(CASES, ["*@16"])} == {16}
    assert selected(CASES, ["nothing"]) == []
    with pytest.raises(SystemExit, match="no case matches nothing"):
        benchmark.main(["time", "--cases", "nothing", "--out", str(tmp_path / "r.jsonl"), "--libraries", "floor"])


@pytest.mark.parametrize("rows", [1, 64, 8192])
def test_data_are_the_same_each_time_and_standardized(rows):
    feed, again = batches(3, rows, "float32"), batches(3, rows, "float32")
    drawn = [next(feed) for _ in range(9)]
    assert all(np.array_equal(one, next(again)) for one in drawn)
    assert all(one.shape == (rows, 3) and one.dtype == np.float32 for one in drawn)
    np.testing.assert_array_equal(drawn[0], drawn[8])
    if rows > 1000:
        np.testing.assert_allclose(np.concatenate(drawn[:8]).mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(np.concatenate(drawn[:8]).std(0), 1, atol=1e-5)


# What is made of the readings -----------------------------------------------------------------------------------------


def reading(*seconds: float) -> dict:
    return {"seconds": list(seconds), "calls": 1, "first": seconds[0], "parameters": 1}


def record(part: str, case: str, run: str = "one", **readings: dict) -> dict:
    return {"part": part, "case": case, "run": run, "readings": readings}


def rows_of(markdown: str) -> dict[str, dict[str, str]]:
    """The cells of all Markdown tables by the first cell of their row and their heading."""
    lines = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in markdown.splitlines() if line[:1] == "|"
    ]
    found, head = {}, lines[0]
    for line, following in zip(lines, [*lines[1:], [""]], strict=True):
        if following[0] == "---":
            head = line
        elif line[0] != "---":
            found[line[0]] = dict(zip(head, line, strict=True))
    return found


def test_a_ratio_is_the_median_of_the_ratios_within_rounds():
    ours, theirs = reading(1, 2, 8), reading(2, 6, 16)  # of the medians it would be 3
    assert report.ratio(theirs, ours) == 2
    assert report.ratio(reading(3), ours) == 3  # one round only: compared with the same round
    assert report.ratio({"note": "no such flow"}, ours) is None


def test_the_fastest_peer_is_one_in_eager_torch():
    readings = {"pushforward": reading(1), "flowjax": reading(0.1), "floor": reading(0.2), "zuko": reading(3, 3),
                "nflows": reading(2, 9, 2), "normflows": {"note": "failed"}}  # fmt: skip
    assert report.fastest_peer(readings) == "nflows"
    assert report.fastest_peer({"flowjax": reading(1)}) is None


def test_table_of_times():
    case = "maf-d6-h128/log_prob@1"
    old = record("time", case, pushforward=reading(9))
    new = record("time", case, "two", pushforward=reading(0.002, 0.004, 0.016), zuko=reading(0.004, 0.012, 0.032),
                 nflows={"note": "RuntimeError: no"}, flowjax=reading(0.001, 0.002, 0.008),
                 floor=reading(0.001, 0.001, 0.004))  # fmt: skip
    row = rows_of(report.report([old, new]))[case]
    assert (row["pushforward"], row["zuko"], row["nflows"], row["freia"]) == ("4.00", "12.0", "failed", "–")
    assert (row["fastest torch peer"], row["it / ours"], row["flowjax / ours"]) == ("zuko", "2.00×", "0.500×")
    assert row["ours / floor"] == "4.00"


def test_table_of_ensembles_memory_accuracy_and_imports():
    errors_found = {"round trip": 1e-6, "round trip x5": math.nan, "two log-dets": 0.0, "autodiff": None}
    records = [
        record("time", ENSEMBLES[0].name, **{"pushforward": reading(0.5), report.ALONE: reading(0.2)}),
        record(
            "memory", "maf-d63-h512/train_step@8192", pushforward={"above": 12.5, "process": 300}, zuko={"note": "no"}
        ),
        record("accuracy", "maf-d6-h128", pushforward={"errors": errors_found}),
        record("import", "import", pushforward=reading(3) | {"process": [200]}, floor=reading(2) | {"process": [100]}),
    ]
    made = report.report(records)
    rows = rows_of(made)
    assert rows[ENSEMBLES[0].name]["all / one"] == "2.50×"
    assert rows["maf-d63-h512/train_step@8192"]["pushforward"] == "12.5"
    assert rows["maf-d63-h512/train_step@8192"]["zuko"] == "–"
    assert rows["maf-d6-h128"]["pushforward"] == "1e-06 · **nan** · 0e+00 · –"
    assert rows["`import pushforward; pushforward.models.MAF`"]["/ torch alone"] == "1.50"
    assert rows_of(report.report(records, ["memory"])).keys() == {"maf-d63-h512/train_step@8192"}


def test_exponents_of_power_laws():
    sizes = (8, 16, 32, 64)
    assert exponents(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx((1.5, 1.5))
    assert exponents(sizes, [0, 0, 5, 10]) == pytest.approx((1, 1))
    assert exponents(sizes, [0, 0, 0, 1]) is None
    flat, last = exponents(sizes, [1, 1, 1, 4])
    assert last == pytest.approx(2)
    assert 0 < flat < 1


def test_table_of_growth():
    readings = {str(size): reading(size**2 / 1e3) | {"above": size / 2} for size in (4, 8, 16)}
    readings["32"] = {"note": "no answer"}
    row = rows_of(report.report([record("growth", "maf/sample/features", **readings)]))["maf"]
    assert (row["varied"], row["ms"], row["MiB"]) == ("features 4 – 16", "16.0 – 256", "2.00 – 8.00")
    assert (row["exponent of ms"], row["exponent of MiB"]) == ("2.00", "1.00")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (12.345, "12.3"), (0.01234, "0.0123"), (1.2e-6, "0.0000"), (0.0, "0"), (None, "–")],
)
def test_figures_have_three_digits(value, text):
    assert report.figure(value) == text


# Adapters and workers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("library", ["pushforward", "zuko", "nflows"])
@pytest.mark.filterwarnings("ignore")  # of the peers
def test_libraries_build_the_architecture_of_the_floor(library, kind):
    if reason := libraries.missing(library):
        pytest.skip(reason)
    flow = Flow(kind, 7, 8, 3)
    built, floor = libraries.adapter(library).build(flow), libraries.adapter("floor").build(flow)
    assert built.parameters == floor.parameters


@pytest.mark.parametrize("library", ["pushforward", "normflows", "nflows", "freia"])
@pytest.mark.filterwarnings("ignore")  # of the peers
def test_libraries_build_the_convolutions_of_the_floor_and_invert_their_glow(library):
    if reason := libraries.missing(library):
        pytest.skip(reason)
    flow = Flow("glow", 64, 6, 4, dtype="float64")
    built, floor = libraries.adapter(library).build(flow), libraries.adapter("floor").build(flow)
    shapes = [
        sorted(tuple(part.weight.shape) for part in one.module.modules() if isinstance(part, torch.nn.Conv2d))
        for one in (built, floor)
    ]
    assert shapes[0] == shapes[1]
    for _ in range(3):  # actnorms look at the first batch
        assert built.work("train_step", 16)().shape == ()
    assert built.work("sample", 5)().shape == (5, 64)
    found = errors(built, flow)["errors"]
    assert found["round trip"] < 1e-9
    assert found["two log-dets"] < 1e-9
    assert found["autodiff"] < 1e-9


@pytest.mark.parametrize("kind", [*KINDS, "glow"])
def test_a_session_measures_every_work_and_the_accuracy(kind):
    session = Session("pushforward")
    flow = replace(TINY, kind=kind, dtype="float64")
    flow = replace(flow, features=64) if kind == "glow" else flow
    for work in WORKS:
        case = Case(flow, work, 5)
        prepared = session.answer({"do": "prepare", "case": case.plain(), "steps": 1})
        assert prepared["first"] > 0
        assert len(session.answer({"do": "time", "calls": 3})["seconds"]) == 3
    found = session.answer({"do": "accuracy", "case": case.plain(), "steps": 1})["errors"]
    assert max(found.values()) < 1e-9
    assert min(found.values()) >= 0


def test_the_timed_log_prob_and_the_measured_accuracy_are_of_one_transform():
    session = Session("pushforward")
    session.prepare(Case(TINY, "log_prob", 9).plain(), steps=3)
    z, log_det = session.built.encode(next(batches(3, 9, "float32")))
    normal = -0.5 * (z**2 + math.log(2 * math.pi)).sum(1)
    np.testing.assert_allclose(session.call(), normal + log_det, rtol=1e-5)


def test_an_ensemble_trains_all_its_members():
    session = Session("pushforward")
    session.build(replace(TINY, members=2), steps=0)
    before = [weight.detach().clone() for weight in session.built.module.parameters()]
    session.built.work("train_step", 16)()
    after = list(session.built.module.parameters())
    assert session.built.parameters == 2 * libraries.adapter("floor").build(TINY).parameters
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True) if b.grad.any())
    assert (
        sum(bool(weight.grad.any()) for weight in after) >= len(after) - 2 * TINY.layers
    )  # some masked units are idle


class Doubling:
    """x to 2x, with a log-determinant that is wrong by a tenth, and a decoder that is wrong far away."""

    parameters = 0

    def encode(self, x):
        return 2 * x, np.full(len(x), x.shape[1] * math.log(2) + 0.1)

    def decode(self, z):
        return np.where(np.abs(z) < 12, z / 2, np.nan), np.full(len(z), z.shape[1] * math.log(2) - 0.2)

    def autodiff_log_det(self, x):
        return np.full(len(x), x.shape[1] * math.log(2))


def test_errors_of_a_transform_with_known_mistakes():
    found = errors(Doubling(), replace(TINY, dtype="float64"))["errors"]
    assert found["round trip"] == 0
    assert math.isnan(found["round trip x5"])
    assert found["two log-dets"] == pytest.approx(0.3)
    assert found["autodiff"] == pytest.approx(0.1)
    assert errors(Doubling(), replace(TINY, features=784))["errors"]["autodiff"] is None


def test_workers_are_timed_in_turn_and_report_missing_flows():
    entries = {name: Entry(name, Case(TINY, "train_step", 4)) for name in ("pushforward", "floor", "freia")}
    with Workers(QUICK) as workers:
        found = interleave(workers, entries)
        for name in ("pushforward", "floor"):
            assert len(found[name]["seconds"]) == QUICK.rounds
            assert min(found[name]["seconds"]) > 0
        assert found["pushforward"]["parameters"] == found["floor"]["parameters"]
        assert found["freia"] == {"note": "affine couplings only"}
        if Path("/proc/self/clear_refs").exists():
            memory = workers.get("floor", "floor").ask("memory")
            assert 0 <= memory["above"] < memory["process"]

        first = workers.get("floor", "floor")
        first.process.kill()
        assert "the process ended" in first.ask("time", calls=1)["note"]
        assert workers.get("floor", "floor") is not first


def test_waiting_for_a_reply_has_a_limit():
    worker = Worker("floor", replace(QUICK, limit=0.01))
    try:
        assert "no reply to prepare" in worker.ask("prepare", case=Case(TINY, "log_prob", 1).plain(), steps=0)["note"]
        assert not worker.alive
    finally:
        worker.close()


def test_a_call_of_the_wrong_shape_is_an_error(monkeypatch):
    session = Session("floor")
    monkeypatch.setattr(libraries.adapter("floor").Floor, "log_prob", lambda self, x: x)
    assert (
        "of shape (5, 3) instead of (5,)"
        in session.answer({"do": "prepare", "case": Case(TINY, "log_prob", 5).plain(), "steps": 0})["note"]
    )


# Runs -----------------------------------------------------------------------------------------------------------------


def test_the_libraries_of_a_case():
    everyone = [name for name in libraries.NAMES if name != "pushforward-graph"]  # which is not for the CPU
    affine, spline = Case(TINY, "sample", 1), Case(replace(TINY, kind="nsfc"), "sample", 1)
    assert set(suite.entries(affine, everyone)) == set(everyone) - libraries.VARIANTS.keys()
    assert suite.entries(affine, libraries.NAMES) == suite.entries(affine, everyone)
    assert set(suite.entries(spline, everyone)) == set(everyone) - {"pushforward-compiled"}
    assert set(suite.entries(replace(affine, work="log_prob"), everyone)) == set(everyone) - {"pushforward-plain"}
    assert set(suite.entries(replace(spline, work="log_prob"), everyone)) == set(everyone)
    on_gpu = set(libraries.NAMES) - {"pushforward-compiled", "pushforward-plain"}
    assert set(suite.entries(replace(spline, work="log_prob"), libraries.NAMES, Cuda(0))) == on_gpu
    five = suite.entries(ENSEMBLES[0], everyone)
    assert set(five) == {"pushforward", "floor", report.ALONE}
    assert five[report.ALONE].case.flow == replace(ENSEMBLES[0].flow, members=1)
    assert all(len(sweep.entries()) == 5 for sweep in SWEEPS)


def test_a_run_writes_readings_tables_and_a_picture_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(libraries.adapter("flowjax"), "MODULE", "a_module_that_is_not_there")
    out = tmp_path / "speed.jsonl"
    arguments = ["time", "--cases", "maf-d6-h128/log_prob@1", "--libraries", "pushforward", "floor", "flowjax",
                 "--threads", "1", "--rounds", "1", "--visit", "0.001", "--steps", "0", "--out", str(out)]  # fmt: skip
    benchmark.main(arguments)
    printed = capsys.readouterr().out
    assert "flowjax is not installed (pip install flowjax): skipped." in printed
    assert "maf-d6-h128/log_prob@1" in rows_of(out.with_suffix(".md").read_text())
    assert out.with_suffix(".png").stat().st_size > 1000
    run, made = map(json.loads, out.read_text().splitlines())
    assert run["threads"] == 1
    assert len(run["load"]) in (0, 3)
    assert made["run"] == run["id"]
    assert made["readings"].keys() == {"pushforward", "floor"}

    monkeypatch.setattr(suite, "interleave", lambda *_: pytest.fail("measured again"))
    benchmark.main(arguments)
    assert len(out.read_text().splitlines()) == 2


def test_readings_count_as_done_only_for_the_same_settings_and_libraries(tmp_path):
    file = tmp_path / "r.jsonl"
    readings = Readings(file, QUICK, ["floor"])
    readings.keep("time", "case", {"floor": reading(1)})
    with file.open("a") as out:
        out.write('{"part": "time", "ca')  # stopped while it wrote
    assert Readings(file, QUICK, ["floor"]).done("time", "case", ["floor"])
    assert not Readings(file, QUICK, ["floor"]).done("time", "case", ["floor", "zuko"])
    assert not Readings(file, replace(QUICK, rounds=9), ["floor"]).done("time", "case", ["floor"])
    assert file.read_text().endswith("\n")


def test_large_batches_are_compared_with_and_without_parts_and_kept_memory(monkeypatch):
    from benchmarks.speed import large_batches

    methods = {name: large_batches.METHODS[name] for name in ("neither", "both")}  # each is a process
    monkeypatch.setattr(large_batches, "METHODS", methods)
    rows = large_batches.compare("maf-d6-h128", rows=64, steps=1, rounds=1)
    assert [row[1] for row in rows] == ["neither", "both"]
    assert rows[0][3] == "1.00 (1.00 to 1.00)"


# The compiled step ----------------------------------------------------------------------------------------------------


def test_the_compiled_step_is_compared_with_the_eager_step(capsys, monkeypatch):
    from benchmarks.speed import compiled_step

    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(compiled_step, "VISIT", 0.01)
    compiled_step.main(["--flows", "MAF*", "--rows", "16", "--visits", "1"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| MAF, D 6"))
    _, flow, rows, eager, compiled, *_ = (cell.strip() for cell in row.split("|"))
    assert (flow, rows) == ("MAF, D 6, width 128", "16")
    assert float(eager) > 0 < float(compiled)
