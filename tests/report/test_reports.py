"""Reports of guards: numbers that agree with the guard, what is shown, files, notebooks, and sizes."""

import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from report_rows import HOSTILE, labeled, rows

import pushforward as pf
from pushforward.data import load_image_sample
from pushforward.detection import ConformalCalibrator, realized_interval
from pushforward.detection.selective import ClassifierCalibration
from pushforward.errors import ConfigError, InputError, SchemaError, StorageError
from pushforward.estimators.cards import guard_card
from pushforward.estimators.comparing import compare_guards, compare_parts
from pushforward.estimators.reported_rows import ReportOptions
from pushforward.estimators.reporting import guard_report
from pushforward.report import CHECKS


class Page(html.parser.HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_normal_rows_pass_and_the_numbers_are_those_of_the_guard(table_guard):
    x = rows(400, seed=1)
    report = table_guard.report(x, name="march.csv")
    content, p = report.to_dict(), table_guard.p_value(x)
    assert report.passed, str(report)
    assert [check.name for check in report.checks] == [
        "promise",
        "alarm_rate",
        "uniform",
        "drift",
        "categories",
        "missing",
        "range",
    ]
    assert content["promise"]["alarms"] == int((table_guard.predict(x) < 0).sum())
    assert content["promise"]["groups"][0]["interval"] == list(realized_interval(200, 400, 0.05, 0.99))
    expected = np.histogram(np.ceil(p * 20 - 1e-9), np.arange(0.5, 21))[0]
    assert (
        np.abs(np.cumsum(content["p_values"]["histogram"]["counts"]) - np.cumsum(expected)).max()
        <= np.sum(np.isclose(p * 201 % 1, 0.5)) + 20
    )
    assert sum(content["p_values"]["histogram"]["counts"]) == 400
    alarms = [alarm["row"] for alarm in content["alarms"]]
    order = np.argsort(-table_guard.anomaly_score(x), kind="stable")[: len(alarms)]
    assert alarms == order.tolist()
    assert "march.csv" in str(report)
    assert repr(report) == "Report(400 rows, 0 of 7 checks failed)"


def test_shifted_rows_fail_with_reasons_in_the_units_of_the_data(table_guard):
    x = rows(400, seed=2, shift=12.0)
    x = x.set_column(1, "pressure", pa.array([None, 1e6, *x["pressure"].to_pylist()[2:]]))
    x = x.set_column(6, HOSTILE, pa.array(["new <b>", *x[HOSTILE].to_pylist()[1:]]))
    report = table_guard.report(x)
    assert {check.name for check in report.failures} >= {"alarm_rate", "uniform", "drift", "categories", "missing"}
    content = report.to_dict()
    drifted = {column["name"] for column in content["columns"] if column["drifted"]}
    assert drifted == {"temperature", "pressure"}
    (alarm,) = [alarm for alarm in content["alarms"] if alarm["row"] == 1]
    assert alarm["reasons"][0]["column"] == "pressure"
    assert alarm["reasons"][0]["value"] == "1,000,000"
    assert alarm["reasons"][0]["finding"].startswith("above every training row")
    assert any("1 row has a value that no row had at fit ('new <b>')" in note for note in content["data"]["notes"])
    assert report.failed(["drift", "range"])[0].name == "drift"
    assert report.failed([]) == ()
    assert report.failed(["any"]) == report.failures
    with pytest.raises(ConfigError, match="no check 'drfit'"):
        report.failed(["drfit"])


def test_markup_stays_text_and_the_page_needs_nothing_else(table_guard, tmp_path):
    report = table_guard.report(rows(300, seed=3, shift=9), title=HOSTILE, name=HOSTILE, show_rows=True)
    text = report.to_html()
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "img", "object", "form"}
    assert HOSTILE[:60] in page.text
    for tag, attributes in page.elements:
        assert not any(
            name.startswith("on") or (name in ("href", "src") and value[:1] != "#")
            for name, value in attributes.items()
        ), tag
    assert "url(" not in text
    assert "@import" not in text
    report.save(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == text
    report.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == report.to_dict()
    with pytest.raises(StorageError):
        report.save(tmp_path / "no" / "r.html")
    with pytest.raises(ConfigError, match=r"r\.pdf end in \.html, or, for its numbers, in \.json"):
        report.save(tmp_path / "r.pdf")
    framed = Page(report._repr_html_())
    assert [tag for tag, _ in framed.elements] == ["iframe"]
    assert framed.elements[0][1]["srcdoc"] == text
    assert framed.elements[0][1]["sandbox"] == ""


def test_rows_are_shown_only_if_asked_for(table_guard):
    x = rows(200, seed=4, shift=15).append_column("note", pa.array([f"secret-{k}" for k in range(200)]))
    x = x.set_column(6, HOSTILE, pa.array(["hidden-value"] * 200))
    plain, hidden = table_guard.report(x), table_guard.report(x, values=False)
    shown = table_guard.report(x, show_rows=True)
    assert "cells" not in {k for alarm in plain.to_dict()["alarms"] for k, v in alarm.items() if v is not None}
    assert "hidden-value" in plain.to_html()
    assert "hidden-value" not in hidden.to_html() + hidden.to_json()
    assert all(r["value"] is None for alarm in hidden.to_dict()["alarms"] for r in alarm["reasons"])
    first = shown.to_dict()["alarms"][0]
    assert [name for name, _ in first["cells"]] == list(table_guard.schema_.names)
    assert "secret" not in shown.to_html()  # a column that the guard does not read
    with pytest.raises(ConfigError, match="contradicts"):
        table_guard.report(x, show_rows=True, values=False)


def test_parts_and_order_of_columns_do_not_change_the_report(table_guard):
    x = rows(300, seed=5, shift=4)
    whole = table_guard.report(x).to_dict()
    parts = guard_report(table_guard, [x.slice(0, 7), x.slice(7, 200), x.slice(207)], ReportOptions()).to_dict()
    turned = table_guard.report(x.select(x.column_names[::-1])).to_dict()
    for found in (parts, turned):
        for content in (whole, found):
            content.pop("created", None)
            content["data"].pop("seconds", None)
        assert found == whole


def test_arrays_have_numbered_columns():
    guard = pf.Guard(0.1, effort="fast", random_state=0).fit(np.random.default_rng(0).normal(size=(200, 2)))
    report = guard.report(np.array([[0.0, 0.1], [90.0, np.nan]]), show_rows=True)
    (alarm,) = report.to_dict()["alarms"]
    assert alarm["cells"] == [["x0", "90.0"], ["x1", "missing"]]
    assert {reason["column"] for reason in alarm["reasons"]} == {"x0", "x1"}


def test_a_guard_without_a_summary_says_so(table_guard, tmp_path):
    path = tmp_path / "g.safetensors"
    table_guard.save(path)
    again = pf.Guard.load(path)
    assert again.training_.digest == table_guard.training_.digest
    assert (
        again.report(rows(50, seed=6)).to_dict()["columns"] == table_guard.report(rows(50, seed=6)).to_dict()["columns"]
    )
    again.training_ = None
    again.save(path)
    old = pf.Guard.load(path)
    assert old.training_ is None
    report = old.report(rows(200, seed=6, shift=20))
    assert [check.name for check in report.checks] == ["promise", "alarm_rate", "uniform"]
    assert "has no summary" in report.to_html()
    assert report.to_dict()["alarms"][0]["reasons"]


def test_too_few_calibration_rows_are_a_failed_promise():
    with pytest.warns(pf.errors.PushforwardWarning, match="needs 99 calibration rows"):
        guard = pf.Guard(0.01, effort="fast", random_state=0).fit(np.random.default_rng(0).normal(size=(60, 2)))
    report = guard.report(np.full((3, 2), 99.0))
    assert "promise" in {check.name for check in report.failures}
    assert "alarm_rate" not in {check.name for check in report.checks}
    assert "No row raised an alarm" in report.to_html()


@pytest.mark.parametrize(
    ("options", "expected", "mark"),
    [({"guarantee": "pac"}, "10", "1.98%"), ({}, "25", "5%"), ({"max_contamination": 0.02}, "25 to 30", "5%")],
)
def test_the_number_of_alarms_that_is_expected_is_that_of_the_level(options, expected, mark):
    x = np.random.default_rng(0).normal(size=(1500, 2))
    page = pf.Guard(0.05, effort="fast", random_state=0, **options).fit(x[:1000]).report(x[1000:]).to_html()
    assert f"the expected number of alarms, all of them false, is about {expected}." in page
    assert f">alarms at {mark}<" in page


def test_wrong_rows_are_refused(table_guard):
    with pytest.raises(SchemaError, match="lacks the column"):
        table_guard.report({"temperature": [1.0]})
    with pytest.raises(InputError, match="no rows"):
        table_guard.report(rows(5, seed=0).slice(0, 0))
    with pytest.raises(ConfigError, match="alarms"):
        table_guard.report(rows(5, seed=0), alarms=0)


def test_smoothed_guards_have_reasons_by_column():
    rng = np.random.default_rng(0)
    guard = pf.Guard(0.1, smoothing={"sigma": 0.5, "draws": 32}, random_state=0).fit(rng.normal(size=(200, 2)))
    report = guard.report(np.array([[0.0, 60.0], [0.0, 0.0]]))
    assert report.to_dict()["alarms"][0]["reasons"][0]["column"] == "x1"


def test_images_have_pictures(image_guard):
    images = load_image_sample("mnist")[:60]
    report = image_guard.report(images, name="digits")
    content, page = report.to_dict(), Page(report.to_html())
    assert content["promise"]["alarms"] > 30
    pictures = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(pictures) == len(content["alarms"]) + len(content["typical"])
    assert all(picture["src"].startswith("data:image/png;base64,") and picture["alt"] for picture in pictures)
    assert {column["name"] for column in content["columns"]} == {"brightness", "contrast", "sharpness"}
    assert "missing" not in {check.name for check in report.checks}
    hidden = image_guard.report(images, values=False)
    assert "img" not in {tag for tag, _ in Page(hidden.to_html()).elements}
    deep = image_guard.report(images.astype(np.int64))
    assert deep.to_dict()["promise"] == content["promise"]


def test_networks_have_classes_and_abstentions(network_guard):
    x, y = labeled(200, seed=1)
    x[:5] = 40.0
    held_out, classes = labeled(900, seed=2)
    calibration = ClassifierCalibration.fit(network_guard.net(held_out).detach(), classes, coverage=0.8, risk=0.95)
    report = network_guard.report((x, y), name="batch", selective=calibration)
    content, out = report.to_dict(), network_guard(x)
    assert content["promise"]["alarms"] == int(out.alarm.sum()) >= 5
    assert {alarm["row"] for alarm in content["alarms"]} >= set(range(5))
    assert all("nearest training inputs" in alarm["sentence"] for alarm in content["alarms"])
    correct = (out.prediction == y).numpy()
    kept = ~out.alarm.numpy()
    assert content["network"]["labels"]["accuracy"] == pytest.approx(correct.mean())
    assert content["network"]["labels"]["kept_accuracy"] == pytest.approx(correct[kept].mean())
    assert sum(item["rows"] for item in content["network"]["classes"]) == 200
    facts = dict(content["network"]["selective"])
    logits = network_guard.net(x).detach()
    covered = calibration.sets(logits)[np.arange(200), y].mean()
    assert facts["Sets that contain the label"] == f"{100 * covered:.2f}%"
    assert facts["Accepted"].startswith(f"{calibration.accept(calibration.uncertainty(logits)).sum()} of 200 inputs")
    page = Page(report.to_html())
    assert sum(tag == "img" for tag, _ in page.elements) == len(content["alarms"]) + len(content["typical"])
    broken = network_guard.report(torch.full((1, 1, 4, 4), torch.nan)).to_dict()["alarms"][0]
    assert broken["sentence"] == "The network's features are NaN or infinite."
    unlabeled = network_guard.report(x[5:])
    assert unlabeled.to_dict()["network"]["labels"] is None
    assert [check.name for check in unlabeled.checks] == ["promise", "alarm_rate", "uniform", "classes"]


def test_classes_that_become_frequent_fail_a_check(network_guard):
    x, _ = labeled(600, seed=3)
    report = network_guard.report(x[network_guard(x).prediction == 0])
    (check,) = [check for check in report.failures if check.name == "classes"]
    assert "class 0 has 100.00%" in check.detail


def test_a_network_that_embeds_and_promises_by_class():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    x = torch.randn(900, 4)
    embeds = pf.NetworkGuard(net, 0.1, task="embed").fit(x[:300], calibration=x[300:])
    assert embeds.report(x[:50]).to_dict()["network"]["classes"] == []
    by_class = pf.NetworkGuard(net, 0.1, task="classify", per_class=True).fit(x[:300], calibration=x[300:])
    report = by_class.report(torch.randn(200, 4), show_rows=True)
    groups = report.to_dict()["promise"]["groups"]
    assert [group["name"] for group in groups] == ["class 0", "class 1"]
    assert sum(group["rows"] for group in groups) == 200
    assert "For each predicted class by itself" in report.to_html()


def test_wide_tables_make_pages_of_less_than_two_megabytes():
    rng = np.random.default_rng(0)
    guard = pf.Guard(0.1, effort="fast", random_state=0).fit(rng.normal(size=(60, 100)))
    report = guard.report(rng.normal(4, 1, size=(300, 100)), alarms=300, show_rows=True)
    assert len(report.to_html().encode()) < 2_000_000
    assert len(report.to_dict()["columns"]) == 100


def test_pages_shrink_until_they_are_small_enough(table_guard, monkeypatch):
    from pushforward.report import page

    report = table_guard.report(rows(300, seed=8, shift=20), show_rows=True, alarms=200)
    whole = len(report.to_html().encode())
    monkeypatch.setattr(page, "LARGEST", whole - 1)
    assert len(report.to_html().encode()) < whole
    monkeypatch.setattr(page, "LARGEST", 10)
    assert "smaller differences are in the JSON report only" in report.to_html()


def test_a_card_has_data_promise_figures_and_limits(table_guard):
    report = table_guard.report(rows(200, seed=9), name="a|b.csv")
    text = guard_card(table_guard, "g|<b>.safetensors", {"Seed": "0"}, [report.to_dict()])
    assert text.startswith("---\nlibrary_name: pushforward\n")
    for part in ("# g\\|\\<b\\>.safetensors", "## Data", "## Promise", "## Measured figures", "## Limits", "a\\|b.csv", table_guard.training_.digest,
                 "800 rows, of which 600 fitted the score and 200 calibrated the alarm", "training rows**"):  # fmt: skip
        assert part in text, part
    assert "<img" not in text.replace("\\<img", "")
    widths = {
        line.count("|") - line.count("\\|")
        for line in text.splitlines()
        if line.startswith("| ") and "Usual" not in line and "column" not in line
    }
    assert widths <= {3, 5, 9}
    with pytest.raises(InputError, match="a report lacks"):
        guard_card(table_guard, "g", {}, [{"guard": {}}])


def test_two_guards_on_the_same_rows(table_guard):
    x = rows(400, seed=10, shift=3)
    other = pf.Guard(0.1, effort="fast", random_state=1).fit(rows(800, seed=1))
    found = compare_guards(table_guard, other, x, shown=3)
    content = found.to_dict()
    a, b = table_guard.predict(x) < 0, other.predict(x) < 0
    assert (content["both"], content["only_a"], content["only_b"]) == (np.sum(a & b), np.sum(a & ~b), np.sum(b & ~a))
    assert content["a"]["alarms"] == a.sum()
    assert content["b"]["fraction"] == pytest.approx(b.mean())
    assert {row["row"] for row in content["rows_only_b"]} <= set(np.flatnonzero(b & ~a).tolist())
    assert len(content["rows_only_b"]) == min(3, content["only_b"])
    assert content["rows_only_b"][0]["reasons"]
    assert content["rows_only_b"][0]["p_b"] <= 0.1 < content["rows_only_b"][0]["p_a"] + 0.06
    assert "only B" in str(found)
    same = compare_parts(table_guard, table_guard, [x.slice(0, 100), x.slice(100)]).to_dict()
    assert same["rank_correlation"] == pytest.approx(1.0)
    assert same["agreement"] == 1.0
    assert same["same_rate_p_value"] == 1.0


def test_guards_of_different_data_are_not_compared(table_guard, image_guard):
    with pytest.raises(ConfigError, match="A reads tables and B reads images"):
        compare_guards(table_guard, image_guard, rows(5, seed=0))
    with pytest.raises(InputError, match="no rows"):
        compare_parts(table_guard, table_guard, [])


def test_every_check_has_a_title():
    assert all(title[0].isupper() for title in CHECKS.values())


def test_two_guards_of_networks(network_guard):
    x, y = labeled(1000, seed=4)
    other = pf.NetworkGuard(network_guard.net, 0.2, score="MaxSoftmax").fit((x[:300], y[:300]), calibration=x[300:800])
    new = torch.cat((x[800:], torch.full((2, 1, 4, 4), 30.0)))
    content = compare_guards(network_guard, other, new).to_dict()
    a, b = network_guard(new).alarm, other(new).alarm
    assert (content["both"], content["only_a"], content["only_b"]) == (
        int((a & b).sum()),
        int((a & ~b).sum()),
        int((b & ~a).sum()),
    )
    assert {row["row"] for row in content["rows_only_a"]} >= {k for k in (200, 201) if not b[k]}
    assert content["rows_only_b"][0]["sentence"].startswith("The nearest training inputs are")
    with pytest.raises(ConfigError, match="A reads inputs of a network and B reads tables"):
        compare_parts(
            network_guard, pf.Guard(0.1, effort="fast").fit(np.random.default_rng(0).normal(size=(60, 2))), []
        )


def test_the_code_of_the_documentation_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    exec(block, {})
    assert "FAIL drift" in capsys.readouterr().out
    assert set(CHECKS) == set(re.findall(r"^\| `(\w+)` \| ", text, flags=re.M))
    assert {path.name for path in tmp_path.iterdir()} == {"march.html", "march.json"}


def test_photographs_of_a_guard_that_embeds():
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 3))
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (20 + k % 3, 20, 3), dtype=np.uint8) for k in range(200)]
    embed = pf.detection.network.Embedder(net, pf.data.Photographs(16))
    guard = pf.Guard(0.1, embed=embed, effort="fast", random_state=0).fit(pictures)
    report = guard.report([*pictures[:20], np.full((30, 40, 3), 255, dtype=np.uint8)])
    content = report.to_dict()
    assert (content["noun"], content["columns_noun"]) == ("input", "features")
    assert content["alarms"][0]["row"] == 20
    assert sum(tag == "img" for tag, _ in Page(report.to_html()).elements) == len(content["alarms"]) + len(
        content["typical"]
    )
    assert embed.digest in report.to_html()
    assert compare_guards(guard, guard, pictures[:20]).to_dict()["agreement"] == 1.0


def test_texts_that_name_files_are_texts(tmp_path):
    from PIL import Image

    path = tmp_path / "private.png"
    Image.new("RGB", (9, 9), "red").save(path)

    def lengths(texts):
        return np.array([[len(text), text.count("a"), text.count("b")] for text in texts], dtype=float)

    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abc"), rng.integers(5, 15))) for _ in range(200)]
    guard = pf.Guard(0.1, embed=lengths, effort="fast", random_state=0).fit(texts)
    report = guard.report([*texts[:20], str(path) * 3, str(path)])
    assert report.to_dict()["alarms"][0]["row"] >= 20
    assert "img" not in {tag for tag, _ in Page(report.to_html()).elements}


def test_a_report_says_that_rows_are_later_than_the_training_rows():
    """Its reader has not seen the warnings of the call."""
    rng = np.random.default_rng(0)

    def days(count, start):
        return {"day": np.datetime64(start) + rng.integers(0, 90, count), "v": rng.normal(size=count)}

    guard = pf.Guard(alpha=0.1, effort="fast", random_state=0).fit(days(300, "2025-01-01"))
    later = days(50, "2025-09-01")
    shown = guard.report(later).to_html()
    assert "are after the normal rows that are known (the last is 2025-03-31)" in shown
    hidden = guard.report(later, values=False).to_html()
    assert "after the normal rows that are known; their distance" in hidden
    assert "after the normal rows that are known" not in guard.report(days(50, "2025-01-01")).to_html()


@pytest.mark.parametrize("constant", [2.0**60, -1e17, 1e15])
def test_a_column_with_one_large_value_has_a_chart(constant):
    table = {"a": np.random.default_rng(0).normal(size=200), "id": np.full(200, constant)}
    guard = pf.Guard(0.05, n_estimators=1, max_steps=20, random_state=0).fit(pa.table(table))
    assert "polyline" in guard.report(pa.table(table)).to_html()


def test_one_check_can_be_named_by_its_name(table_guard):
    report = table_guard.report(rows(300, seed=8, shift=20))
    assert [check.name for check in report.failed("drift")] == ["drift"]
    assert report.failed("any") == report.failures


def test_many_notes_make_no_larger_page(table_guard):
    content = table_guard.report(rows(50, seed=1)).to_dict()
    content["data"]["notes"] = ["a sentence that says what is odd " * 12] * 8000
    text = pf.report.Report(content).to_html()
    assert len(text.encode()) <= 2_000_000
    assert re.search(r"and [\d,]+ more</li>", text)


def test_what_is_no_guard_is_not_compared(table_guard):
    with pytest.raises(ConfigError, match="B must be a fitted Guard or NetworkGuard; got int"):
        compare_guards(table_guard, 3, rows(5, seed=0))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="shown must be an integer of at least 0"):
        compare_guards(table_guard, table_guard, rows(5, seed=0), shown=-1)


def test_a_report_needs_a_group(table_guard):
    facts = table_guard.report(rows(50, seed=1)).to_dict()["guard"]
    subject = pf.report.Subject("a title", facts, {}, 0.05, "marginal", 0.05, (True, ""), "")
    with pytest.raises(ConfigError, match="at least one group"):
        pf.report.assemble(subject, pf.report.Collected({}), [])


def reported(calibration, scores, level=None, columns=()):
    """A report on scores alone, without a guard."""
    calibrator = ConformalCalibrator(calibration)
    level = calibrator.threshold(0.05) if level is None else level
    found = pf.report.Collected({None: ("all rows", calibrator, level)}, columns)
    p = calibrator.p_value(scores)
    found.add(scores, p, p <= level, lambda k: k)
    guard = {
        "file": "",
        "versions": {"pushforward": "1"},
        "calibration_rows": calibrator.n,
        "facts": [],
        "images": False,
    }
    data = {"source": "", "seconds": 1.0, "facts": []}
    subject = pf.report.Subject("title \udc80", guard, data, 0.05, "marginal", 0.05, (True, "It promises."), "rows")
    return pf.report.assemble(subject, found, [])


@pytest.mark.parametrize(("rows", "most"), [(69, 11), (103, 16), (107, 16)])
def test_the_page_and_the_check_agree_at_the_end_of_the_interval(rows, most):
    for alarms, good in ((most, True), (most + 1, False)):
        report = reported(np.arange(99.0), np.r_[np.full(alarms, 200.0), np.linspace(0, 90, rows - alarms)])
        assert (report.failed("alarm_rate") == ()) is good
        assert ("More alarms than chance explains" in report.to_html()) is not good
        assert ('class="dot bad" cx=' in report.to_html().split("<figcaption>")[0]) is not good
        histogram = report.to_dict()["p_values"]["histogram"]
        assert histogram["high"][0] == most
        assert all(end == int(end) for name in ("low", "high") for end in histogram[name])


def test_a_probability_that_underflows_is_not_zero():
    page = reported(np.arange(999.0), np.full(100_000, 2000.0)).to_html()
    assert "with a probability of less than 1e−300 if" in page


def test_a_guard_that_raises_no_alarm_has_no_level_in_the_chart():
    scores = np.linspace(0, 90, 100)
    assert "alarms at 5%" in reported(np.arange(99.0), scores).to_html()
    assert "alarms at" not in reported(np.arange(99.0), scores, level=0.0).to_html()


def test_a_title_is_visible_in_a_notebook_and_in_text(table_guard):
    report = reported(np.arange(99.0), np.linspace(0, 90, 100))
    report._repr_html_().encode()
    assert str(report).startswith("title \\udc80")


def test_a_report_of_no_rows_has_a_page(table_guard):
    report = reported(np.arange(99.0), np.zeros(0), columns=table_guard.training_.columns)
    assert "0 rows" in report.to_html()


def test_shares_of_categories_are_of_the_cells_with_a_value():
    kinds = ["a"] * 150 + ["b"] * 50
    table = pa.table({"x": np.random.default_rng(0).normal(size=400), "kind": pa.array(kinds + [None] * 200)})
    guard = pf.Guard(0.05, effort="fast", random_state=0).fit(table)
    page = guard.report(table).to_html()
    assert "of the training values, 75.0% of these values" in page
