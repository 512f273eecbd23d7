"""The command line end to end, and its one-line errors."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pushforward.cli import main, show
from pushforward.cli.files import check_output
from pushforward.data import Schema, load_image_sample
from pushforward.detection import realized_interval
from pushforward.errors import StorageError
from pushforward.kernels import description, use_kernels


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.normal(size=400), "b": rng.integers(0, 9, 400), "c": rng.choice(["u", "v"], 400)})
    pq.write_table(table, path / "train.parquet")
    pyarrow.csv.write_csv(table, path / "train.csv")
    table.to_pandas().to_json(path / "train.jsonl", orient="records", lines=True)
    for part in (0, 1):
        (path / "parts" / f"part={part}").mkdir(parents=True)
        pyarrow.csv.write_csv(table.slice(200 * part, 200), path / "parts" / f"part={part}" / "rows.csv")
    options = ["--alpha", "0.05", "--density", "--n-estimators", "1", "--max-steps", "30", "-q"]
    assert main(["fit", str(path / "train.parquet"), "-o", str(path / "guard.safetensors"), *options]) == 0
    return path


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("train.parquet", "s.parquet"),
        ("train.csv", "s.csv"),
        ("train.csv", "t.parquet"),
        ("train.jsonl", "j.csv"),
        ("parts", "p.parquet"),
    ],
)
def test_score_keeps_the_columns_and_adds_four(folder: Path, source: str, target: str) -> None:
    assert (
        main(
            [
                "score",
                str(folder / "guard.safetensors"),
                str(folder / source),
                "-o",
                str(folder / target),
                "--rows",
                "150",
                "-q",
            ]
        )
        == 0
    )
    read = pq.read_table if target.endswith("parquet") else pyarrow.csv.read_csv
    table = read(folder / target)
    keys = ["part"] if source == "parts" else []
    assert table.column_names == ["a", "b", "c", *keys, "log_prob", "anomaly_score", "p_value", "alarm"]
    assert table.num_rows == 400
    p = table["p_value"].to_numpy()
    assert 0 < p.min() <= p.max() <= 1
    assert np.isfinite(table["log_prob"].to_numpy()).all()


def test_chunks_do_not_change_the_scores(folder: Path) -> None:
    for rows in ("64", "400"):
        main(
            [
                "score",
                str(folder / "guard.safetensors"),
                str(folder / "train.parquet"),
                "-o",
                str(folder / f"r{rows}.parquet"),
                "--rows",
                rows,
                "-q",
            ]
        )
    one, two = (pq.read_table(folder / f"r{rows}.parquet")["anomaly_score"].to_numpy() for rows in ("64", "400"))
    np.testing.assert_array_equal(one, two)


def test_sample_and_info(folder: Path, capsys) -> None:
    assert main(["sample", str(folder / "guard.safetensors"), "-n", "7", "-o", str(folder / "new.csv"), "-q"]) == 0
    assert pyarrow.csv.read_csv(folder / "new.csv").column_names == ["a", "b", "c"]
    assert main(["info", str(folder / "guard.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert "guard" in printed
    assert "categorical" in printed


def test_a_guard_without_a_density(folder: Path, tmp_path: Path, capsys) -> None:
    guard = str(tmp_path / "g.safetensors")
    assert main(["fit", str(folder / "train.csv"), "-o", guard, "--alpha", "0.0001", "--effort", "fast", "-q"]) == 0
    assert "needs 9999 calibration rows" in capsys.readouterr().err
    assert main(["score", guard, str(folder / "train.csv"), "-o", str(tmp_path / "s.csv"), "-q"]) == 0
    scores = pyarrow.csv.read_csv(tmp_path / "s.csv")
    assert scores.column_names == ["a", "b", "c", "anomaly_score", "p_value", "alarm"]
    assert not any(scores["alarm"].to_pylist())
    assert main(["info", guard]) == 0
    printed = capsys.readouterr().out
    assert "no row raises an alarm" in printed
    assert "--density" in printed
    assert main(["sample", guard, "-o", str(tmp_path / "new.csv"), "-q"]) != 0
    assert "density=True" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fit", "absent.csv", "-o", "g.safetensors"], "absent.csv"),
        (["fit", "train.csv"], "output"),
        (["fit", "train.csv", "-o", "g.safetensors", "--alpha", "2"], "alpha"),
        (["fit", "train.csv", "-o", "g.safetensors", "--effort", "more"], "effort"),
        (["fit", "train.csv", "-o", "g.safetensors", "--model", "glow"], "glow"),
        (["fit", "train.csv", "-o", "g.safetensors", "--drop", "zz"], "zz"),
        (["fit", "train.csv", "-o", "nowhere/g.safetensors"], "nowhere"),
        (["score", "train.csv", "train.csv", "-o", "s.csv"], "train.csv"),
        (["score", "guard.safetensors", "train.csv", "-o", "s.xyz"], "xyz"),
        (["score", "guard.safetensors", "absent.csv", "-o", "s.csv"], "absent.csv"),
        (["info", "train.csv"], "train.csv"),
        (["sample", "guard.safetensors", "-n", "0", "-o", "n.csv"], "number"),
        (["demo", "--data", "table", "-o", "demo.foo"], "demo.foo"),
        (["demo", "--data", "table", "-o", "."], "--output"),
        (["frobnicate"], "frobnicate"),
        (["bench"], "bench"),
        (["reproduce"], "reproduce"),
        (["fit", "--what"], "--what"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_line_and_an_exit_code(
    folder: Path, monkeypatch, capsys, arguments: list[str], word: str
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(p.name for p in folder.iterdir())
    assert main(arguments) not in (0, 70)
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert word in lines[0]
    assert "Traceback" not in captured.err
    assert sorted(p.name for p in folder.iterdir()) == before


def test_a_name_may_begin_with_a_tilde(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("~new.csv").write_bytes((folder / "train.csv").read_bytes())
    guard = str(folder / "guard.safetensors")
    assert main(["score", guard, "~new.csv", "-o", "~scores.csv", "-q"]) == 0
    assert main(["report", guard, "~new.csv", "-o", "~report.html", "-q"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"~new.csv", "~scores.csv", "~report.html"}


def test_an_existing_file_in_a_folder_that_is_read_only_is_refused_before_the_work(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "out.csv").touch()
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path.resolve())
    with pytest.raises(StorageError, match="permission denied"):
        check_output(str(tmp_path / "out.csv"), [], force=False)
    check_output(os.devnull, [], force=False)


def test_existing_columns_are_not_overwritten(folder: Path, capsys) -> None:
    target = str(folder / "s1.parquet")
    main(["score", str(folder / "guard.safetensors"), str(folder / "train.parquet"), "-o", target, "-q"])
    assert main(["score", str(folder / "guard.safetensors"), target, "-o", str(folder / "s2.parquet"), "-q"]) == 1
    assert "--prefix" in capsys.readouterr().err
    assert (
        main(
            [
                "score",
                str(folder / "guard.safetensors"),
                target,
                "-o",
                str(folder / "s2.parquet"),
                "--prefix",
                "again_",
                "-q",
            ]
        )
        == 0
    )
    assert not (set(Path(folder).glob("*.tmp*")))


def test_short_help_and_completion(capsys, monkeypatch) -> None:
    for words in (["-h"], ["explain", "-h"], ["fit", "-h"]):
        assert main(words) == 0
        assert "Usage" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert main(["--help"]) == 0
    assert "--install-completion" in capsys.readouterr().out


def test_info_shows_what_is_read_and_what_is_not(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({
        "when": pa.array((1.7e9 + 3600 * np.arange(600)).astype("int64"), pa.timestamp("s")),
        "x": rng.normal(size=600), "receipt": [f"R{i}" for i in range(600)], "unit": [7] * 600,
    })  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    options = ["--alpha", "0.05", "--effort", "fast", "-q", "--strict", "--no-rows", "--time", "when"]
    arguments = ["fit", str(tmp_path / "t.parquet"), "-o", str(tmp_path / "g"), "--drop", "receipt", *options]
    assert main(arguments) == 0
    assert main(["info", str(tmp_path / "g")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("set aside receipt", "constant unit", "when: instant, day", "no training rows in the file",
                  "rows like the latest training rows", "strict", "│ when │ timestamp │"):  # fmt: skip
        assert words in text
    assert main(["info", str(tmp_path / "g"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["ignored_columns"] == ["receipt"]
    assert facts["calendar"] == [["when", "day"]]


def test_help_shows_an_example(capsys) -> None:
    for command in ("demo", "fit", "score", "sample", "info"):
        assert main([command, "--help"]) == 0
        assert f"pushforward {command}" in capsys.readouterr().out


def test_debug_shows_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pushforward", "info", str(tmp_path / "no"), "--debug"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_the_demo_on_images_detects_digits_that_the_likelihood_does_not(tmp_path: Path) -> None:
    from pushforward.cli.demo_images import run

    facts = run(tmp_path / "demo.png", max_steps=100)
    assert facts["AUROC"] > 0.9 > 0.6 > facts["likelihood AUROC"]
    low, high = realized_interval(1250, 1000, 0.05, level=0.999)
    assert low <= facts["false alarms"] <= high
    assert (tmp_path / "demo.png").stat().st_size > 20_000


def test_the_demo_around_a_network_is_the_default_and_tells_the_story(tmp_path: Path, capsys) -> None:
    assert main(["demo", "-o", str(tmp_path / "demo.png")]) == 0
    text = capsys.readouterr().out
    value = {name: float(number) for name, number in re.findall(r"(\w[^│\n]*?) *│ +([\d.]+)%? │", text)}
    assert value["accuracy of the network on new clothes"] > 90
    assert value["its mean confidence on digits, which are no clothes"] > 80
    caught = value["digits that raise an alarm"]
    assert caught > 75 > 25 > value["the same, of a guard that uses the confidence alone"]
    low, high = realized_interval(1400, 1000, 0.05, level=0.999)
    assert low <= value["realized false-alarm rate on new clothes"] / 100 <= high
    assert "A digit 2 that the network is" in text
    assert (tmp_path / "demo.png").stat().st_size > 20_000


def test_the_demo_of_unknown_data_is_an_error(capsys) -> None:
    assert main(["demo", "--data", "sounds"]) != 0
    assert "images or table" in capsys.readouterr().err


def test_the_demo_on_a_table_draws_a_picture(tmp_path: Path, capsys) -> None:
    from pushforward.cli.demo_table import run

    facts = run(tmp_path / "demo.png", seed=-1)
    assert facts["AUROC"] > 0.9
    low, high = realized_interval(459, 1839, 0.05, level=0.999)
    assert low <= facts["false alarms"] <= high
    assert (tmp_path / "demo.png").stat().st_size > 20_000
    json.dumps(facts)


def test_images_from_fit_to_score(tmp_path: Path, capsys) -> None:
    images = load_image_sample("fashion-mnist", "train")[:400]
    np.save(tmp_path / "train.npy", images)
    guard, out = str(tmp_path / "g.safetensors"), str(tmp_path / "scores.csv")
    assert main(["fit", str(tmp_path / "train.npy"), "-o", guard, "--alpha", "0.1", "--max-steps", "5"]) == 0
    assert main(["info", guard]) == 0
    assert "1 x 28 x 28" in capsys.readouterr().out
    np.savez(tmp_path / "new.npz", load_image_sample("mnist")[:30])
    assert main(["score", guard, str(tmp_path / "new.npz"), "-o", out, "--rows", "20", "-q"]) == 0
    table = pyarrow.csv.read_csv(out)
    assert table.column_names == ["image", "anomaly_score", "p_value", "alarm"]
    assert table["image"].to_pylist() == list(range(30))
    names = [f"{part}{k}.png" for part in ("", "b/c/", "b/") for k in range(2)]
    for name, image in zip(names, images[:6], strict=True):
        path = tmp_path / "new" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(image)).save(path)
    for skipped in (".hidden.png", "notes.txt", "b/._0.png"):
        (tmp_path / "new" / skipped).write_text("no picture")
    for more in (["--rows", "2"], ["--rows", "4", "--workers", "2"]):
        assert main(["score", guard, str(tmp_path / "new"), "-o", out, "-q", *more]) == 0
        table = pyarrow.csv.read_csv(out)
        assert table.column_names == ["image", "file", "anomaly_score", "p_value", "alarm"]
        assert table["image"].to_pylist() == list(range(6))
        assert table["file"].to_pylist() == ["0.png", "1.png", "b/0.png", "b/1.png", "b/c/0.png", "b/c/1.png"]
    assert main(["score", guard, str(tmp_path / "new" / "b" / "0.png"), "-o", out, "-q"]) == 0
    assert pyarrow.csv.read_csv(out)["file"].to_pylist() == ["0.png"]
    for wrong, words in (
        (["score", guard, str(tmp_path / "scores.csv"), "-o", str(tmp_path / "x.csv")], "not a file of images"),
        (["fit", str(tmp_path / "train.npy"), "-o", guard, "--drop", "a"], "images"),
        (["sample", guard, "-o", str(tmp_path / "x.csv")], "images"),
    ):
        assert main(wrong) != 0
        assert words in capsys.readouterr().err


def test_info_says_which_kernels_are_in_use(capsys) -> None:
    with use_kernels("plain"):
        assert main(["info", "--system"]) == 0
        assert description()["reason"] in " ".join(capsys.readouterr().out.split())
    assert main(["info", "--system"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"native, {description()['level']}" in said if description()["level"] else description()["reason"] in said
    assert main(["info"]) == main(["info", "file", "--system"]) == 1
    assert "either a file or --system" in capsys.readouterr().err


def test_info_shows_names_with_brackets_as_they_are(capsys):
    show.columns(Schema.infer({"speed [m/s]": [1.0, 2.0, 4.0], "[red]t": [1.0, 2.0, 4.0], "x[/]": ["a", "b", "a"]}))
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("speed [m/s]", "[red]t", "x[/]"))


def test_only_tables_are_written_to_a_uri(folder: Path, tmp_path: Path, capsys) -> None:
    guard, rows = str(folder / "guard.safetensors"), str(folder / "train.csv")
    absent = str(tmp_path / "absent.csv")  # so the output is looked at before the rows
    for words in (
        ["fit", absent],
        ["recalibrate", guard, absent],
        ["update", guard, absent],
        ["report", guard, absent],
    ):
        assert main([*words, "-o", "s3://bucket/file.html"]) == 1
        said = capsys.readouterr().err
        assert "s3://bucket/file.html is not a local file, and only tables are written to a URI" in said
    assert main(["score", guard, rows, "-o", (tmp_path / "s.parquet").as_uri(), "-q"]) == 0
    assert pq.read_table(tmp_path / "s.parquet").num_rows == 400
