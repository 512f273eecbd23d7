"""The commands with the guard of a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import pushforward as pf
from pushforward.cli import main, network
from pushforward.errors import InputError, SignatureError

CODE = """
import torch

def classifier():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))

def number():
    return 3

def broken():
    raise FileNotFoundError("weights.pt")

def leaves():
    raise SystemExit(0)

def half():
    return classifier().bfloat16()

def picture():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))

def rgb():
    return convolutions(3)

def gray():
    return convolutions(1)

def strict():
    return Strict()

def convolutions(channels):
    torch.manual_seed(0)
    first = torch.nn.Conv2d(channels, 6, 3)
    return torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(24, 3))

class Strict(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = rgb()

    def forward(self, x):
        assert x.shape[1] == 3
        return self.net(x)

constant = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("network")
    (path / "my_networks_of_a_test.py").write_text(CODE)
    sys.path.insert(0, str(path))
    import my_networks_of_a_test  # pyright: ignore

    net = my_networks_of_a_test.classifier().eval()
    x = torch.randn(900, 3)
    pf.NetworkGuard(net, 0.05, task="classify").fit(x[:400], calibration=x[400:]).save(path / "guard.safetensors")
    rows = np.concatenate((np.random.default_rng(0).normal(size=(20, 3)), np.full((1, 3), 60.0)))
    pq.write_table(pa.table({f"c{k}": rows[:, k] for k in range(3)}), path / "new.parquet")
    yield path
    sys.path.remove(str(path))


def test_the_signature_is_verified_on_the_bytes_that_are_used(folder, tmp_path, monkeypatch):
    pytest.importorskip("cryptography")
    path, content = tmp_path / "guard.safetensors", (folder / "guard.safetensors").read_bytes()
    path.write_bytes(content)
    public = pf.io.new_key(tmp_path / "key")
    with pytest.raises(SignatureError, match="is not signed"):
        network.load_guard(path, "my_networks_of_a_test:classifier", public)
    pf.io.sign(path, tmp_path / "key")
    guard = network.load_guard(path, "my_networks_of_a_test:classifier", public)
    load_network = network.load_network

    def change_first(name: str):
        guard.alpha = 0.5
        guard.save(path)  # by somebody else, after the file was verified
        return load_network(name)

    monkeypatch.setattr(network, "load_network", change_first)
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        network.load_guard(path, "my_networks_of_a_test:classifier", public)


def test_scores_a_table(folder, capsys):
    out = folder / "scores.parquet"
    words = ["score", str(folder / "guard.safetensors"), str(folder / "new.parquet"), "-o", str(out)]
    assert main([*words, "--network", "my_networks_of_a_test:classifier"]) == 0
    table = pq.read_table(out)
    assert table.column_names == ["c0", "c1", "c2", "prediction", "anomaly_score", "p_value", "alarm", "reason"]
    assert table["alarm"].to_pylist()[-1]
    assert "nearest training rows" in table["reason"].to_pylist()[-1]
    assert "alarms" in capsys.readouterr().out


def test_a_module_in_the_current_folder_is_found(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "network_beside_the_data.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = list(sys.path)
    words = ["score", str(folder / "guard.safetensors"), str(folder / "new.parquet"), "-o", "scores.csv"]
    assert main([*words, "--network", "network_beside_the_data:classifier"]) == 0
    assert sys.path == before
    assert (tmp_path / "scores.csv").exists()


def test_explain_says_where_the_reasons_of_a_network_are(folder, capsys):
    assert main(["explain", str(folder / "guard.safetensors"), str(folder / "new.parquet")]) == 1
    assert "the column reason of `pushforward score`" in capsys.readouterr().err


def test_info_needs_no_network(folder, capsys):
    assert main(["info", str(folder / "guard.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert "network guard" in shown
    assert "at most 5.00%" in shown


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (None, "guards a network: name the function"),
        ("my_networks_of_a_test", "must be package.module:function"),
        ("no_such_module_at_all:f", "cannot import no_such_module_at_all"),
        ("my_networks_of_a_test:nothing", "has no function nothing"),
        ("my_networks_of_a_test:number", "returned int"),
        ("my_networks_of_a_test:constant", "constant is no function"),
        ("my_networks_of_a_test:broken", "broken() raised FileNotFoundError: weights.pt"),
        ("a_module_with_an_error:f", "a_module_with_an_error raised SyntaxError"),
        ("a_module_without_a_name:f", "a_module_without_a_name raised AttributeError: module 'math' has no"),
        ("a_module_that_exits:f", "a_module_that_exits raised SystemExit: 0"),
        ("my_networks_of_a_test:leaves", "leaves() raised SystemExit: 0"),
    ],
)
def test_wrong_networks(folder, capsys, network, sentence):
    (folder / "a_module_with_an_error.py").write_text("f = ")
    (folder / "a_module_without_a_name.py").write_text("import math\nf = math.nothing\n")
    (folder / "a_module_that_exits.py").write_text("import sys\nsys.exit(0)\n")
    words = ["score", str(folder / "guard.safetensors"), str(folder / "new.parquet"), "-o", str(folder / "x.csv")]
    assert main(words + ([] if network is None else ["--network", network])) == 1
    assert sentence in capsys.readouterr().err


def test_a_guard_of_a_table_takes_no_network(folder, capsys):
    guard = pf.Guard(0.1, n_estimators=1, max_steps=2, random_state=0).fit(
        np.random.default_rng(0).normal(size=(60, 3))
    )
    guard.save(folder / "table.safetensors")
    words = ["score", str(folder / "table.safetensors"), str(folder / "new.parquet"), "-o", str(folder / "x.csv")]
    assert main([*words, "--network", "my_networks_of_a_test:classifier"]) == 1
    assert "is none" in capsys.readouterr().err


def test_inputs_that_the_network_does_not_take_are_one_sentence(folder, capsys):
    pq.write_table(pa.table({f"c{k}": np.zeros(4) for k in range(2)}), folder / "narrow.parquet")
    words = ["score", str(folder / "guard.safetensors"), str(folder / "narrow.parquet"), "-o", str(folder / "x.csv")]
    assert main([*words, "--network", "my_networks_of_a_test:classifier"]) == 1
    assert "the network cannot read a batch of shape (4, 2) and type float32" in capsys.readouterr().err


def test_a_table_gets_the_precision_of_the_network(folder):
    import my_networks_of_a_test  # pyright: ignore

    net, x = my_networks_of_a_test.half().eval(), torch.randn(900, 3).bfloat16()
    guard = pf.NetworkGuard(net, 0.05, task="classify").fit(x[:400], calibration=x[400:])
    guard.save(folder / "half.safetensors")
    words = ["score", str(folder / "half.safetensors"), str(folder / "new.parquet"), "-o", str(folder / "half.parquet")]
    assert main([*words, "--network", "my_networks_of_a_test:half"]) == 0
    rows = torch.tensor(np.column_stack(pq.read_table(folder / "new.parquet").columns)).bfloat16()
    assert pq.read_table(folder / "half.parquet")["p_value"].to_pylist() == guard(rows).p_value.tolist()


def test_images_reach_the_network_from_0_to_1_and_others_are_refused(folder, capsys):
    import my_networks_of_a_test  # pyright: ignore

    net, images = my_networks_of_a_test.picture().eval(), np.random.default_rng(0).integers(0, 256, (700, 4, 5))
    x = torch.tensor(images)[:, None].float() / 255
    guard = pf.NetworkGuard(net, 0.05, task="classify").fit(x[:300], calibration=x[300:600])
    guard.save(folder / "pictures.safetensors")
    np.save(folder / "eight.npy", images[600:].astype(np.uint8))
    np.save(folder / "sixteen.npy", images[600:].astype(np.uint16) * 257)
    words = ["score", str(folder / "pictures.safetensors"), "--network", "my_networks_of_a_test:picture"]
    assert main([*words, str(folder / "eight.npy"), "-o", str(folder / "images.parquet")]) == 0
    assert pq.read_table(folder / "images.parquet")["p_value"].to_pylist() == guard(x[600:]).p_value.tolist()
    (folder / "new" / "sub").mkdir(parents=True)
    for name, image in (("sub/a.png", images[600]), ("b.png", images[601])):
        Image.fromarray(image.astype(np.uint8)).save(folder / "new" / name)
    assert main([*words, str(folder / "new"), "-o", str(folder / "new.parquet")]) == 0
    found = pq.read_table(folder / "new.parquet")
    assert found.column_names[:2] == ["image", "file"]
    assert found["file"].to_pylist() == ["b.png", "sub/a.png"]
    assert found["p_value"].to_pylist() == guard(x[[601, 600]]).p_value.tolist()
    assert main([*words, str(folder / "sixteen.npy"), "-o", str(folder / "x.csv")]) == 1
    assert "images that are not of 8 bits" in capsys.readouterr().err


@pytest.fixture(scope="module")
def pictures(folder) -> Path:
    """Guards of networks of gray and of RGB images, and folders of pictures."""
    import my_networks_of_a_test  # pyright: ignore

    rng, path = np.random.default_rng(0), folder / "channels"
    gray, color = (rng.integers(0, 256, (300, *shape), dtype=np.uint8) for shape in ((8, 8), (8, 8, 3)))
    for name, images in (("gray", gray[..., None]), ("rgb", color), ("strict", color)):
        x = torch.from_numpy(np.moveaxis(images, 3, 1).copy()).float() / 255
        guard = pf.NetworkGuard(getattr(my_networks_of_a_test, name)().eval(), 0.05, task="classify")
        path.mkdir(exist_ok=True)
        guard.fit(x[:100], calibration=x[100:]).save(path / f"{name}.safetensors")
    alike = np.repeat(gray[..., None], 3, -1)
    kinds = {"only gray": list(gray[:5]), "only rgb": list(color[:5]), "alike": list(alike[:5])}
    kinds |= {
        "gray and alike": [*gray[:3], *alike[3:5]],
        "one in color": [*gray[:4], color[4]],
        "small": list(gray[:5, :2]),
    }
    for name, images in kinds.items():
        (path / name).mkdir()
        for k, image in enumerate(images):
            Image.fromarray(image).save(path / name / f"{k}.png")
    np.save(path / "gray.npy", gray[:5])
    np.save(path / "alike.npy", alike[:5])
    np.save(path / "rgb.npy", color[:5])
    return path


@pytest.mark.parametrize("network", ["gray", "rgb", "strict"])
def test_gray_pictures_in_all_forms_have_one_score(pictures, network):
    """One channel or three equal ones, for a network of one or of three channels, in parts of two."""
    words = ["--network", f"my_networks_of_a_test:{network}", "-o", str(pictures / "out.parquet"), "--rows", "2"]
    found = []
    for source in ("only gray", "alike", "gray and alike", "gray.npy", "alike.npy"):
        assert main(["score", str(pictures / f"{network}.safetensors"), str(pictures / source), *words]) == 0
        found.append(pq.read_table(pictures / "out.parquet")["anomaly_score"].to_pylist())
    assert len(found[0]) == 5
    assert all(scores == found[0] for scores in found)


@pytest.mark.parametrize(("source", "words"), [
    ("only rgb", "0.png of {} has colors"), ("one in color", "4.png of {} has colors"),
    ("rgb.npy", "image 0 (counted from 0) of {} has colors"),
])  # fmt: skip
def test_a_picture_with_colors_for_a_network_of_gray_ones_is_named(pictures, capsys, source, words):
    network = ["--network", "my_networks_of_a_test:gray", "--rows", "2"]
    for command in ("score", "report"):
        output = ["-o", str(pictures / "out.html" if command == "report" else pictures / "out.csv")]
        guard = str(pictures / "gray.safetensors")
        assert main([command, guard, str(pictures / source), *network, *output]) == 1
        sentence = words.format(pictures / source) + ", and the network reads gray images: convert it to gray"
        assert sentence in " ".join(capsys.readouterr().err.split())


def test_pictures_of_a_size_that_the_network_cannot_read(pictures, capsys):
    words = ["score", str(pictures / "rgb.safetensors"), str(pictures / "small"), "-o", str(pictures / "out.csv")]
    assert main([*words, "--network", "my_networks_of_a_test:rgb"]) == 1
    assert "the network cannot read a batch of shape (5, 1, 2, 8)" in capsys.readouterr().err


@pytest.mark.parametrize("network", ["gray", "rgb"])
def test_every_command_brings_pictures_to_the_channels_of_the_network(pictures, capsys, network):
    guard, other = (
        str(pictures / f"{network}.safetensors"),
        str(pictures / {"gray": "alike", "rgb": "only gray"}[network]),
    )
    given = ["--network", f"my_networks_of_a_test:{network}"]
    assert main(["report", guard, other, *given, "-o", str(pictures / "report.html")]) == 0
    files = ["alike.npy", "gray.npy"] if network == "gray" else ["gray.npy", "rgb.npy"]
    normal, odd = (str(pictures / name) for name in files)
    assert main(["evaluate", guard, normal, "--anomalies", odd, *given]) == 0
    assert main(["diff", guard, guard, other, *given]) == 0
    assert main(["export", guard, "-o", str(pictures / f"{network}.pt2"), "--example", other, *given]) == 0


@pytest.mark.parametrize("command", ["recalibrate", "update", "serve"])
def test_commands_without_a_network_say_what_to_do(folder, tmp_path, capsys, command):
    words = [command, str(folder / "guard.safetensors")]
    if command != "serve":
        words += [str(folder / "new.parquet"), "-o", str(tmp_path / "out.safetensors")]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert f"{command} is for guards of tables and images: call" in said
    assert said.count("\n") == 1
    pytest.importorskip("cryptography")
    public = pf.io.new_key(tmp_path / "key")
    assert main([*words, "--public-key", str(public)]) == 1
    assert "is not signed" in capsys.readouterr().err


def some_rows() -> np.ndarray:
    return np.concatenate((np.random.default_rng(0).normal(size=(20, 3)), np.full((1, 3), 60.0)))


def command(folder: Path, name: str, *words: str) -> list[str]:
    return [name, str(folder / "guard.safetensors"), *words, "--network", "my_networks_of_a_test:classifier"]


@pytest.mark.parametrize(
    ("yes", "no", "words"), [("1", "0", ()), ("yes", "no", ("--anomaly", "yes")), ("true", "false", ())]
)
def test_evaluate_leaves_out_rows_without_a_label_and_takes_any_label(folder, tmp_path, capsys, yes, no, words):
    labels = [no] * 18 + ["", ""] + [yes]
    lines = [
        "a,b,c,fault",
        *(f"{','.join(map(repr, row.tolist()))},{label}" for row, label in zip(some_rows(), labels, strict=True)),
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    assert main([*command(folder, "evaluate", str(tmp_path / "rows.csv"), "--label", "fault", *words), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["normal"], found["anomalous"], found["left_out"]) == (18, 1, 2)


def test_a_missing_class_is_named(folder, tmp_path, capsys):
    columns = dict(zip("abc", some_rows().T, strict=True))
    table = pa.table(columns | {"class": pa.array([0] * 20 + [None])})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert (
        main(
            command(
                folder, "report", str(tmp_path / "rows.parquet"), "--label", "class", "-o", str(tmp_path / "r.html")
            )
        )
        == 1
    )
    assert "column 'class' lacks the number of the class in 1 rows: leave them out." in capsys.readouterr().err


def test_every_command_reads_decimal_commas_and_missing_cells(folder, tmp_path, capsys):
    rows = some_rows()
    header = "a;b;c"
    points = "\n".join([header, *(";".join(map(repr, row.tolist())) for row in rows)]) + "\n"
    (tmp_path / "points.csv").write_text(points)
    (tmp_path / "commas.csv").write_text(points.replace(".", ","))
    guard, reading = str(folder / "guard.safetensors"), ("--delimiter", ";", "--decimal", ",")

    def scores(name: str, *words: str) -> list[float]:
        out = tmp_path / f"{name}.parquet"
        assert main([*command(folder, "score", str(tmp_path / f"{name}.csv"), "-o", str(out)), *words]) == 0
        return pq.read_table(out)["anomaly_score"].to_pylist()

    assert scores("commas", *reading) == scores("points", "--delimiter", ";")
    commas = str(tmp_path / "commas.csv")
    assert main([*command(folder, "report", commas, "-o", str(tmp_path / "r.html")), *reading]) == 0
    assert main([*command(folder, "evaluate", commas, "--anomalies", commas), *reading]) == 0
    assert main(["diff", guard, guard, commas, "--network", "my_networks_of_a_test:classifier", *reading]) == 0
    capsys.readouterr()
    assert main(command(folder, "score", commas, "--delimiter", ";", "-o", str(tmp_path / "s.csv"))) == 1
    assert "column 'a' has the cell" in capsys.readouterr().err


def test_text_that_is_no_number_is_named_and_na_is_missing():
    table = pa.table({"a": ["1.5", "NA", ""], "b": ["2", "?", "x"]})
    with pytest.raises(InputError, match=r"has a column that is not of numbers, .*: column 'b' has the cell 'x'"):
        network.numbers_of(table, "rows.csv")
    found = network.numbers_of(table.slice(0, 2), "rows.csv")
    assert found["a"].to_pylist()[0] == 1.5
    assert np.isnan(found["a"].to_pylist()[1])
    assert np.isnan(found["b"].to_pylist()[1])
    with pytest.raises(InputError, match=r"column 'a' has the cell '1\.5'"):
        network.numbers_of(table.slice(0, 1), "rows.csv", {"decimal": ","})


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": np.array(["2026-12-31"], "datetime64[s]")}, r"column 'a' has the type timestamp\[s\]"),
        ({"a": np.array([5], "timedelta64[s]")}, r"column 'a' has the type duration\[s\]"),
        ({}, r"rows\.csv has no column for the network"),
    ],
)
def test_instants_and_tables_without_columns_are_no_inputs_of_a_network(columns, words):
    with pytest.raises(InputError, match=words):
        network.numbers_of(pa.table(columns), "rows.csv")
