"""The command selective: answers of a network with a promised error."""

from __future__ import annotations

import json
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

CODE = """
import torch

def classifier():
    net = torch.nn.Linear(4, 3).eval()
    net.weight.data, net.bias.data = 3 * torch.eye(3, 4), torch.zeros(3)
    return net
"""
NAMES = ["a", "b", "c", "d"]


def drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (count,), generator=generator)
    return 3.0 * torch.eye(4)[y] + torch.randn(count, 4, generator=generator), y


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("selective")
    (path / "selective_network_of_a_test.py").write_text(CODE)
    sys.path.insert(0, str(path))
    import selective_network_of_a_test  # pyright: ignore

    net = selective_network_of_a_test.classifier()
    guard = pf.NetworkGuard(net, 0.05).fit(drawn(400, 0), calibration=drawn(1000, 1)[0])
    guard.save(path / "guard.safetensors")
    x, y = drawn(1500, 2)
    columns = {name: x[:, k].numpy() for k, name in enumerate(NAMES)}
    pyarrow.csv.write_csv(pa.table(columns | {"class": y.numpy()}), path / "held_out.csv")
    new = torch.cat((drawn(600, 3)[0], torch.full((1, 4), 60.0)))
    pq.write_table(pa.table({name: new[:, k].numpy() for k, name in enumerate(NAMES)}), path / "new.parquet")
    yield path
    sys.path.remove(str(path))


def words(folder: Path, *more: str) -> list[str]:
    files = [
        str(folder / "guard.safetensors"),
        str(folder / "new.parquet"),
        "--calibration",
        str(folder / "held_out.csv"),
    ]
    return ["selective", *files, "--label", "class", "--network", "selective_network_of_a_test:classifier", *more]


def test_answers_are_those_of_the_library(folder, capsys):
    out = folder / "answers.parquet"
    assert main(words(folder, "--error", "0.05", "--rows", "250", "-o", str(out), "--json")) == 0
    facts = json.loads(capsys.readouterr().out)
    table = pq.read_table(out)
    assert table.column_names == [*NAMES, "prediction", "accept", "classes", "p_value", "alarm"]
    import selective_network_of_a_test  # pyright: ignore

    guard = pf.NetworkGuard.load(folder / "guard.safetensors", selective_network_of_a_test.classifier())
    calibration = guard.selective(drawn(1500, 2), coverage=0.9, risk=0.05)
    new = torch.tensor(np.stack([table[name].to_numpy() for name in NAMES], 1))
    answers = guard(new)
    assert table["accept"].to_pylist() == answers.accept(calibration).tolist()
    assert table["prediction"].to_pylist() == answers.prediction.tolist()
    sets = calibration.sets(answers.logits.double().numpy())
    assert table["classes"].to_pylist() == [" ".join(str(k) for k in range(3) if row[k]) for row in sets]
    assert facts["accepted"] == sum(table["accept"].to_pylist()) > 300
    assert table["alarm"].to_pylist()[-1]
    assert not table["accept"].to_pylist()[-1]
    y = drawn(600, 3)[1].numpy()
    accepted = table["accept"].to_numpy()[:600]
    assert (table["prediction"].to_numpy()[:600] != y)[accepted].mean() <= 0.05


def test_without_an_error_only_alarms_reject(folder, capsys):
    out = folder / "all.csv"
    assert main(words(folder, "-o", str(out))) == 0
    table = pyarrow.csv.read_csv(out)
    assert [not alarm for alarm in table["alarm"].to_pylist()] == table["accept"].to_pylist()
    assert "90.00% of inputs without an alarm" in capsys.readouterr().out


def test_a_column_that_is_not_there(folder, capsys):
    assert main(words(folder, "-o", str(folder / "x.csv"), "--label", "kind")) == 1
    assert "has no column 'kind'" in capsys.readouterr().err


def test_an_error_that_cannot_be_promised_says_what_is_missing(folder, capsys):
    assert main(words(folder, "-o", str(folder / "x.csv"), "--error", "0.00001")) == 1
    assert "needs at least 299572 calibration rows" in capsys.readouterr().err


def test_a_guard_of_a_table_is_refused(folder, capsys):
    guard = pf.Guard(0.1, n_estimators=1, max_steps=2, random_state=0).fit(drawn(60, 0)[0].numpy())
    guard.save(folder / "table.safetensors")
    line = [
        "selective",
        str(folder / "table.safetensors"),
        str(folder / "new.parquet"),
        "--calibration",
        str(folder / "held_out.csv"),
    ]
    assert main([*line, "--label", "class", "-o", str(folder / "y.csv")]) == 1
    assert "selective needs the guard of a network" in capsys.readouterr().err
