"""The commands report, card and diff, end to end."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

import pushforward as pf
from pushforward.cli import main
from pushforward.data import load_image_sample

NETWORK = """
import torch

def classifier():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))

def of_images():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
"""


def table(count: int, seed: int, shift: float = 0.0) -> pa.Table:
    rng = np.random.default_rng(seed)
    a = rng.normal(shift, 1, count)
    return pa.table({"a": a, "b": a + rng.normal(size=count), "c": rng.choice(["u", "v"], count)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report")
    for seed, name in enumerate(("old", "new")):
        pf.Guard(0.05, effort="fast", random_state=seed).fit(table(800, seed)).save(path / f"{name}.safetensors")
    pyarrow.csv.write_csv(table(300, 5), path / "normal.csv")
    pq.write_table(table(300, 6, shift=4.0), path / "shifted.parquet")
    (path / "networks_of_the_report_test.py").write_text(NETWORK)
    sys.path.insert(0, str(path))
    yield path
    sys.path.remove(str(path))


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_a_terminal_that_lacks_letters_gets_their_codes(monkeypatch):
    for encoding in ("latin-1", "ascii"):
        sink = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink, encoding=encoding, errors="strict"))
        assert main(["report", "old.safetensors", "normal.csv"]) == 0
        assert b"\\u2713 alarm_rate" in sink.getvalue()


def test_a_report_of_normal_rows_passes(capsys):
    assert main(["report", "old.safetensors", "normal.csv", "--fail-on", "any"]) == 0
    shown = capsys.readouterr().out
    assert "report written to report.html" in shown
    assert "✓ alarm_rate" in shown
    page = Path("report.html").read_text()
    assert "all 7 checks passed" in page
    for file in ("old.safetensors", "normal.csv"):  # the digests that sha256sum prints
        assert hashlib.sha256(Path(file).read_bytes()).hexdigest() in page


def test_checks_that_failed_give_the_exit_code_that_is_documented(capsys):
    words = ["report", "old.safetensors", "shifted.parquet", "-o", "s.html", "--json", "s.json"]
    assert main(words) == 0
    assert main([*words, "--fail-on", "categories,missing"]) == 0
    assert main([*words, "--fail-on", "missing", "--fail-on", "drift, range"]) == 3
    assert "✗ drift" in capsys.readouterr().out
    content = json.loads(Path("s.json").read_text())
    assert content["data"]["source"] == "shifted.parquet"
    assert not next(check for check in content["checks"] if check["name"] == "drift")["passed"]
    documented = Path(__file__).parents[2].joinpath("docs", "commands.md").read_text()
    assert "| 3 |" in documented


def test_an_unknown_check_is_a_wrong_argument(capsys):
    assert main(["report", "old.safetensors", "normal.csv", "-o", "never.html", "--fail-on", "drfit"]) == 2
    assert "there is no check 'drfit'; the checks are any, promise" in capsys.readouterr().err
    assert not Path("never.html").exists()
    for nothing in ("", " , "):
        assert main(["report", "old.safetensors", "normal.csv", "-o", "never.html", "--fail-on", nothing]) == 2
        assert "--fail-on names no check; the checks are any, promise" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-o", "x.html", "--json", "x.html"], "give them different names"),
        (["-o", "x.html", "--json", "./x.html"], "give them different names"),
        (["-o", "normal.csv"], "would be replaced"),
        (["-o", "no/x.html"], "does not exist"),
        (["-o", "x.json"], "let the name of x.json end in .html, and give --json FILE"),
        (["-o", "x.pdf"], "let the name of x.pdf end in .html"),
        (["-o", "s3://bucket/x.html"], "not a local file"),
        (["--label", "c"], "--label is for the guard of a network"),
        (["--show-rows", "--hide-values"], "contradicts"),
    ],
)
def test_impossible_options_are_one_sentence(capsys, words, sentence):
    assert main(["report", "old.safetensors", "normal.csv", *words]) == 1
    assert sentence in capsys.readouterr().err


def test_pipes():
    command = [
        sys.executable,
        "-m",
        "pushforward",
        "report",
        "old.safetensors",
        "-",
        "--format",
        "csv",
        "-o",
        "-",
        "--json",
        "p.json",
    ]
    done = subprocess.run(command, input=Path("normal.csv").read_bytes(), capture_output=True)
    assert done.stdout.startswith(b"<!doctype html>")
    assert done.stdout.rstrip().endswith(b"</html>")
    assert b"alarm_rate" in done.stderr
    content = json.loads(Path("p.json").read_text())
    assert content["data"]["source"] == "standard input"
    assert content["data"]["rows"] == 300


def test_parts_in_memory_do_not_change_the_report():
    for rows in ("17", "1000"):
        main(
            [
                "report",
                "old.safetensors",
                "shifted.parquet",
                "--rows",
                rows,
                "-o",
                "r.html",
                "--json",
                f"r{rows}.json",
                "-q",
            ]
        )
    first, second = (json.loads(Path(f"r{rows}.json").read_text()) for rows in ("17", "1000"))
    for content in (first, second):
        content.pop("created")
        content["data"].pop("seconds")
    assert first == second


def test_images(tmp_path):
    guard = pf.Guard(0.1, smoothing={"sigma": 0.25, "draws": 16, "steps": 200}, random_state=0)
    guard.fit(load_image_sample("fashion-mnist")[:200]).save(tmp_path / "g.safetensors")
    np.save(tmp_path / "digits.npy", load_image_sample("mnist")[:40])
    words = [
        "report",
        str(tmp_path / "g.safetensors"),
        str(tmp_path / "digits.npy"),
        "-o",
        str(tmp_path / "i.html"),
        "-q",
    ]
    assert main([*words, "--fail-on", "alarm_rate", "--rows", "16"]) == 3
    assert "data:image/png;base64," in (tmp_path / "i.html").read_text()
    assert main([*words, "--hide-values"]) == 0
    assert "data:image" not in (tmp_path / "i.html").read_text().replace("img-src data:", "")


def test_networks_with_labels(tmp_path, capsys):
    import networks_of_the_report_test as networks  # pyright: ignore

    net, x = networks.classifier().eval(), torch.randn(900, 3)
    pf.NetworkGuard(net, 0.05, task="classify").fit(x[:400], calibration=x[400:]).save(tmp_path / "g.safetensors")
    rows = torch.randn(100, 3)
    labels = net(rows).argmax(1)
    data = {f"c{k}": rows[:, k].numpy() for k in range(3)} | {"class": labels.numpy()}
    pq.write_table(pa.table(data), tmp_path / "rows.parquet")
    words = ["report", str(tmp_path / "g.safetensors"), str(tmp_path / "rows.parquet"), "-o", str(tmp_path / "n.html"),
             "--json", str(tmp_path / "n.json"), "--network", "networks_of_the_report_test:classifier"]  # fmt: skip
    assert main([*words, "--label", "class"]) == 0
    content = json.loads((tmp_path / "n.json").read_text())
    assert content["network"]["labels"]["accuracy"] == 1.0
    assert content["guard"]["training_rows"] == 400
    assert main([*words, "--label", "klass"]) == 1
    assert "has no column 'klass'" in capsys.readouterr().err
    assert main([*words, "--label", "c0"]) == 1
    assert "must have the number of each row's class" in capsys.readouterr().err


def test_networks_of_images_with_labels(tmp_path):
    import networks_of_the_report_test as networks  # pyright: ignore
    from PIL import Image

    images = load_image_sample("mnist")[:300]
    net = networks.of_images().eval()
    x = torch.from_numpy(images.copy())[:, None].float() / 255
    pf.NetworkGuard(net, 0.1, task="classify").fit(x[:100], calibration=x[100:250]).save(tmp_path / "g.safetensors")

    def encoded(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        return file.getvalue()

    labels = net(x[250:]).argmax(1).numpy()
    pq.write_table(pa.table({"image": [encoded(image) for image in images[250:]], "y": labels}), tmp_path / "i.parquet")
    words = ["report", str(tmp_path / "g.safetensors"), str(tmp_path / "i.parquet"), "-o", str(tmp_path / "n.html"), "-q",
             "--json", str(tmp_path / "n.json"), "--network", "networks_of_the_report_test:of_images", "--label", "y", "--rows", "20"]  # fmt: skip
    assert main(words) == 0
    assert json.loads((tmp_path / "n.json").read_text())["network"]["labels"]["accuracy"] == 1.0


def test_a_card_of_a_table_and_its_reports(capsys):
    main(["report", "old.safetensors", "normal.csv", "-o", "c.html", "--json", "c.json", "-q"])
    assert main(["card", "old.safetensors", "--report", "c.json"]) == 0
    text = capsys.readouterr().out
    assert "| normal.csv | " in text
    assert "| 300 |" in text
    assert main(["card", "old.safetensors", "-o", "CARD.md"]) == 0
    assert "No report was given" in Path("CARD.md").read_text()
    assert main(["card", "new.safetensors", "--report", "c.json"]) == 1
    assert "is of another guard file" in capsys.readouterr().err
    Path("broken.json").write_text("{")
    assert main(["card", "old.safetensors", "--report", "broken.json"]) == 1
    assert "broken.json is not a report" in capsys.readouterr().err
    pf.save(pf.models.NICE(features=2), "model.safetensors")
    assert main(["card", "model.safetensors"]) == 1
    assert "a card is of a guard" in capsys.readouterr().err


def test_a_card_of_a_network_needs_no_network(tmp_path, capsys):
    import networks_of_the_report_test as networks  # pyright: ignore

    x = torch.randn(900, 3)
    guard = pf.NetworkGuard(networks.classifier().eval(), 0.05, task="classify", per_class=True).fit(
        x[:400], calibration=x[400:]
    )
    guard.save(tmp_path / "g.safetensors")
    assert main(["card", str(tmp_path / "g.safetensors")]) == 0
    text = capsys.readouterr().out
    assert guard.digest_ in text
    assert "400 inputs fitted the score" in text
    assert "For each predicted class by itself, at most 5.00%" in text


def test_the_difference_of_two_guards(capsys):
    assert main(["diff", "old.safetensors", "new.safetensors", "shifted.parquet", "--rows-shown", "2"]) == 0
    shown = capsys.readouterr().out
    assert "A = old.safetensors, B = new.safetensors, on shifted.parquet" in shown
    assert "rank correlation" in shown
    assert main(["diff", "old.safetensors", "new.safetensors", "shifted.parquet", "--json", "--hide-values"]) == 0
    content = json.loads(capsys.readouterr().out)
    rows = pq.read_table("shifted.parquet")
    a, b = (pf.Guard.load(f"{name}.safetensors").predict(rows) < 0 for name in ("old", "new"))
    assert (content["a"]["alarms"], content["b"]["alarms"]) == (a.sum(), b.sum())
    assert (content["both"], content["only_a"], content["only_b"]) == ((a & b).sum(), (a & ~b).sum(), (b & ~a).sum())
    assert all(reason["value"] is None for row in content["rows_only_a"] for reason in row["reasons"])
    assert main(["diff", "old.safetensors", "old.safetensors", "normal.csv"]) == 0
    assert "100.00% of the rows" in capsys.readouterr().out
