"""The commands with the guard of a network."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import pushforward as pf
from pushforward.cli import main

CODE = """
import torch

def classifier():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))

def number():
    return 3

def broken():
    raise FileNotFoundError("weights.pt")

def half():
    return classifier().bfloat16()

def picture():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))

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
    ],
)
def test_wrong_networks(folder, capsys, network, sentence):
    (folder / "a_module_with_an_error.py").write_text("f = ")
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


@pytest.mark.parametrize("command", ["recalibrate", "update", "serve"])
def test_commands_without_a_network_say_what_to_do(folder, tmp_path, capsys, command):
    words = [command, str(folder / "guard.safetensors")]
    if command != "serve":
        words += [str(folder / "new.parquet"), "-o", str(tmp_path / "out.safetensors")]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert f"{command} is for guards of tables and images: call" in said
    assert said.count("\n") == 1
