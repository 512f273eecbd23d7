"""`Guard(embed=)`: a table guard of the features of a pretrained network."""

from __future__ import annotations

import collections
import io
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import pushforward as pf
from pushforward.cli import main
from pushforward.detection.network import Embedder
from pushforward.errors import ConfigError, InputError, PushforwardWarning, StorageError
from pushforward.estimators import ShiftedGuard


def network(seed: int = 0) -> nn.Sequential:
    """Random convolutions: their features tell digits from noise well enough for a test."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    )


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """Digits as pictures in color, each of a size of its own."""
    digits = (load_digits().images * 15.9).astype(np.uint8)[:500]
    return [np.kron(np.stack([d] * 3, -1), np.ones((2 + k % 3, 2 + k % 2, 1), np.uint8)) for k, d in enumerate(digits)]


@pytest.fixture(scope="module")
def noise() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (20 + k, 30, 3)).astype(np.uint8) for k in range(40)]


@pytest.fixture(scope="module")
def embed() -> Embedder:
    return Embedder(network(), pf.data.Photographs(16))


@pytest.fixture(scope="module")
def guard(photographs, embed) -> pf.Guard:
    return pf.Guard(0.05, embed=embed, random_state=0).fit(photographs[:400])


def test_strange_photographs_raise_alarms_and_others_do_not(guard, photographs, noise) -> None:
    assert (guard.predict(photographs[400:]) == -1).mean() < 0.15
    assert (guard.predict(noise) == -1).mean() > 0.9
    assert guard.n_features_in_ == 65
    with pytest.raises(ConfigError, match="density=True"):
        guard.log_prob(photographs[:2])


def test_it_is_the_guard_of_the_features_as_a_table(guard, photographs, embed) -> None:
    plain = pf.Guard(0.05, random_state=0).fit(embed(photographs[:400]))
    np.testing.assert_array_equal(guard.p_value(photographs[400:]), plain.p_value(embed(photographs[400:])))


def test_a_file_without_the_network_and_the_same_network_again(guard, photographs, embed, tmp_path) -> None:
    guard.save(tmp_path / "g.safetensors")
    assert (tmp_path / "g.safetensors").stat().st_size < 2_000_000
    again = pf.Guard.load(tmp_path / "g.safetensors", embed=Embedder(network(), pf.data.Photographs(16)))
    np.testing.assert_array_equal(again.p_value(photographs[400:420]), guard.p_value(photographs[400:420]))
    again.save(tmp_path / "h.safetensors")
    assert (tmp_path / "h.safetensors").read_bytes() == (tmp_path / "g.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"without the network: give it to Guard\.load"):
        pf.Guard.load(tmp_path / "g.safetensors")
    for other in (
        Embedder(network(1), pf.data.Photographs(16)),
        Embedder(network(), pf.data.Photographs(32)),
        network(),
    ):
        with pytest.raises(StorageError, match="another network"):
            pf.Guard.load(tmp_path / "g.safetensors", embed=other)
    pf.Guard(0.05, random_state=0).fit(np.random.default_rng(0).normal(size=(200, 2))).save(tmp_path / "t")
    with pytest.raises(ConfigError, match="leave embed out"):
        pf.Guard.load(tmp_path / "t", embed=embed)


def test_a_network_that_was_trained_after_fit_is_not_the_one_of_the_file(photographs, tmp_path) -> None:
    net = network()
    guard = pf.Guard(0.1, embed=Embedder(net, pf.data.Photographs(16)), effort="fast", random_state=0)
    guard.fit(photographs[:200])
    path, before = tmp_path / "guard.safetensors", guard.digest_
    with torch.no_grad():
        net[0].weight.add_(1.0)
    with pytest.warns(PushforwardWarning, match="network of embed=.* have changed since the guard was fitted"):
        guard.save(path)
    assert guard.digest_ == before
    with pytest.raises(StorageError, match="of another network"):
        pf.Guard.load(path, embed=guard.embedder_)
    for again in (guard.recalibrate, guard.update):
        with pytest.raises(
            ConfigError, match="have changed since the guard was fitted, and its score is of the old features"
        ):
            again(photographs[200:400])
    with torch.no_grad():
        net[0].weight.copy_(network()[0].weight)
    again = pf.Guard.load(path, embed=guard.embedder_)
    assert again.digest_ == before
    again.save(path)  # without a warning


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        (lambda x: {"features": x}, "array of numbers with one row of features for each input; got dict"),
        (lambda x: [x, None], "array of numbers with one row of features for each input; got list"),
        (lambda x: torch.as_tensor(x).to(torch.complex64), "returned complex numbers"),
        (lambda x: np.asarray(x) * 1j, "returned complex numbers"),
    ],
)
def test_functions_that_return_no_features(returned, match) -> None:
    with pytest.raises(InputError, match=match):
        Embedder(returned)(np.ones((4, 3)))


def test_info_says_that_the_network_is_not_in_the_file(guard, tmp_path, capsys) -> None:
    guard.save(tmp_path / "g.safetensors")
    assert main(["info", str(tmp_path / "g.safetensors")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "network not in this file" in shown
    assert f"columns {guard.n_features_in_} " in shown


def test_every_kind_of_data_gives_the_same_features() -> None:
    net = network()
    x = torch.rand(70, 3, 12, 12)
    embed = Embedder(net, normalize=False, batch_size=32)
    want = embed(x)
    assert want.shape == (70, 64)
    with torch.no_grad():
        direct = net[3](net[2](net[1](net[0](x)))).double().numpy()
    np.testing.assert_allclose(want, direct, rtol=1e-5, atol=1e-6)
    labels = torch.zeros(70, dtype=torch.long)
    data = [x.numpy(), list(x), TensorDataset(x, labels), DataLoader(TensorDataset(x, labels), batch_size=32)]
    for given in data:
        np.testing.assert_array_equal(embed(given), want)
    with torch.no_grad():
        output = net.eval()(x).double().numpy()
    np.testing.assert_allclose(
        Embedder(lambda batch: net(batch), normalize=False, batch_size=70)(x), output, rtol=1e-5, atol=1e-6
    )
    letters = Embedder(lambda texts: [[3 * len(t), 8 * t.count("a")] for t in texts])
    np.testing.assert_allclose(letters(["ab", "c"]), [[0.6, 0.8, np.log(10)], [1, 0, np.log(3)]])
    assert np.isfinite(letters([""])).all()


def test_the_network_stays_as_it_is() -> None:
    net = network().train()
    Embedder(net)(torch.rand(4, 3, 12, 12))
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_photographs_of_every_form() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (24, 16, 3)).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "PNG")
    read = pf.data.Photographs(16, mean=(0, 0, 0), std=(1, 1, 1))
    same = [picture, np.moveaxis(picture, 2, 0), Image.fromarray(picture), sink.getvalue(), torch.from_numpy(picture)]
    found = read(same)
    assert found.shape == (5, 3, 16, 16)
    for other in found[1:]:
        assert torch.equal(other, found[0])
    # The square in the middle, at the size that it has already.
    np.testing.assert_allclose(found[0], np.moveaxis(picture[4:20], 2, 0) / 255, atol=1e-6)
    gray = read([picture[..., 0]])
    assert torch.equal(gray[0, 0], gray[0, 2])
    # A camera that was turned: the picture is turned back.
    turned = Image.fromarray(np.rot90(picture).copy())
    exif = turned.getexif()
    exif[0x0112] = 6
    sink = io.BytesIO()
    turned.save(sink, "PNG", exif=exif)
    assert torch.equal(read([sink.getvalue()])[0], found[0])
    clear = np.concatenate((picture, np.full((24, 16, 1), 9, np.uint8)), 2)
    for array in (clear, np.moveaxis(clear, 2, 0)):  # transparency is dropped
        assert torch.equal(read([array])[0], found[0])
    for one in ("a.png", Path("a.png"), sink.getvalue(), bytearray(sink.getvalue()), Image.fromarray(picture)):
        with pytest.raises(InputError, match=r"this is one picture, of type .*: give a list of pictures, also of one"):
            read(one)
    for none in ([], picture[None][:0]):
        with pytest.raises(InputError, match="there are no pictures"):
            read(none)
    tall = read([np.zeros((5000, 2, 3), np.uint8)])
    assert tall.shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (["no such file.png"], "picture 0 .*no such file.png"),
        ([b"no picture"], "picture 0 cannot be read"),
        ([np.zeros((4, 4, 3))], "8-bit integers"),
        (np.zeros((20, 30, 3), np.uint8), "is a row of a picture.*also of one"),  # one picture, not a list
        ([np.zeros((20, 30, 2), np.uint8)], r"\(20, 30, 2\) is no picture.*c of 1, 3 or 4"),
        ([np.zeros((2, 20, 30), np.uint8)], r"\(2, 20, 30\) is no picture"),
        ([np.zeros((20, 30, 5), np.uint8)], "is no picture"),
        ([np.zeros(9, np.uint8)], "is no picture"),
        ([Image.fromarray(np.full((9, 9), 30_000, np.uint16))], "more than 8 bits"),
        ([], "no inputs"),
        (iter(()), "no inputs"),
        ("a.png", "this is one input, of type str: give a list of inputs"),
        (Path("a.png"), "this is one input, of type PosixPath: give a list of inputs"),
        (np.array("a.png"), "this is one input, of type ndarray: give a list"),
        (Image.new("RGB", (9, 9)), "this is one input, of type Image: give a list"),
        ({"a.png", "b.png"}, "the order of a set is not defined.*: give a list"),
        (pd.DataFrame({"path": ["a.png", "b.png"]}), r"a table of texts, of shape \(2, 1\).*: give one column of it"),
    ],
    ids=[
        "path",
        "bytes",
        "floats",
        "one picture",
        "two channels",
        "two channels first",
        "five channels",
        "vector",
        "16 bits",
        "empty",
        "empty iterator",
        "text",
        "one path",
        "one text of NumPy",
        "one picture of Pillow",
        "set",
        "table of paths",
    ],
)
def test_what_cannot_be_read_is_one_sentence(guard, data, match) -> None:
    with pytest.raises(InputError, match=match):
        guard.predict(data)


FORMS = {
    "tuple": tuple,
    "deque": collections.deque,
    "texts": np.array,
    "objects": lambda paths: np.array([Path(path) for path in paths], dtype=object),
    "pandas": lambda paths: pd.Series(paths, index=np.random.default_rng(0).permutation(len(paths))),
    "polars": pl.Series,
    "pyarrow": pa.array,
    "generator": lambda paths: (path for path in paths),
    "keys": lambda paths: dict.fromkeys(paths).keys(),
    "iterable": lambda paths: Stream(paths),
}


class Stream(IterableDataset):
    """A stream of paths with labels."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __iter__(self):
        return iter([(path, 0) for path in self.paths])


@pytest.fixture(scope="module")
def paths(noise, tmp_path_factory) -> list[str]:
    folder, found = tmp_path_factory.mktemp("pictures"), []
    for k in np.random.default_rng(0).permutation(len(noise)):
        found.append(str(folder / f"{k}.png"))
        Image.fromarray(noise[k]).save(found[-1])
    return found


@pytest.mark.parametrize("form", FORMS)
def test_paths_that_are_not_in_a_list(form, paths) -> None:
    embed = Embedder(network(), pf.data.Photographs(16), batch_size=16)
    as_form = FORMS[form]
    np.testing.assert_array_equal(embed(as_form(paths)), embed(paths))
    guard = pf.Guard(0.1, embed=embed, random_state=0).fit(paths)
    again = pf.Guard(0.1, embed=embed, random_state=0).fit(as_form(paths))
    for method in ("p_value", "anomaly_score", "score_samples", "predict"):
        np.testing.assert_array_equal(getattr(again, method)(as_form(paths)), getattr(guard, method)(paths))
    labels = [k < 5 for k in range(len(paths))]
    assert again.evaluate(as_form(paths), labels).to_json() == guard.evaluate(paths, labels).to_json()
    if form not in ("deque", "iterable"):  # their pictures are not shown
        found, wanted = (g.report(x).to_html() for g, x in ((again, as_form(paths)), (guard, paths)))
        assert found.count("<img") == wanted.count("<img") > 0


def test_a_generator_is_read_once_and_its_rows_are_counted(paths) -> None:
    embed = Embedder(network(), pf.data.Photographs(16))
    groups = np.arange(len(paths)) // 2
    options = {"embed": embed, "random_state": 0, "density": True, "max_steps": 2}
    guard = pf.Guard(0.2, **options).fit((path for path in paths), groups=groups)
    same = pf.Guard(0.2, **options).fit(paths, groups=groups)
    found, wanted = guard.assess(path for path in paths), same.assess(paths)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)
    shifted = ShiftedGuard(guard, (path for path in paths), shifted=(path for path in paths[::2]))
    np.testing.assert_array_equal(
        shifted.p_value(path for path in paths), ShiftedGuard(same, paths, shifted=paths[::2]).p_value(paths)
    )
    guard.recalibrate((path for path in paths), groups=groups)
    same.recalibrate(paths, groups=groups)
    np.testing.assert_array_equal(guard.p_value(paths), same.p_value(paths))


def test_loaders_give_batches_and_not_inputs() -> None:
    class Loader:
        """Of another library."""

        batch_size = 5

        def __iter__(self):
            return iter(torch.zeros(4, 5, 3, 20, 20, dtype=torch.uint8))

    assert len(Embedder(network(), pf.data.Photographs(16))(Loader())) == 20


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match="embed must be"):
        pf.Guard(embed="resnet18").fit(np.zeros((10, 2)))
    with pytest.raises(ConfigError, match="smoothing with embed"):
        pf.Guard(embed=network(), smoothing=0.1).fit(torch.rand(10, 3, 8, 8))
    with pytest.raises(InputError, match="prepare="):
        Embedder(network())([torch.rand(3, 8, 8), torch.rand(3, 9, 8)])
    with pytest.raises(InputError, match="input 1"):
        Embedder(lambda batch: torch.tensor([[1.0], [float("nan")]]))(torch.rand(2, 1))
    with pytest.raises(InputError, match=r"\(n, D\)"):
        Embedder(lambda batch: torch.rand(2, 3, 4))(torch.rand(2, 1))


def test_evaluate_runs_the_network_once() -> None:
    calls: list[int] = []

    def net(x):
        calls.append(len(x))
        return torch.as_tensor(np.asarray(x), dtype=torch.float32).flatten(1)[:, :4]

    rng = np.random.default_rng(0)
    guard = pf.Guard(0.1, embed=net, random_state=0).fit(rng.normal(size=(120, 6)).astype(np.float32))
    calls.clear()
    guard.evaluate(rng.normal(size=(50, 6)).astype(np.float32), np.arange(50) < 5)
    assert sum(calls) == 50


class Jittered(torch.utils.data.Dataset):
    """Rows that change a little each time."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, k: int) -> torch.Tensor:
        return self.rows[k] + 0.1 * torch.randn(4)


def test_random_features_warn() -> None:
    rows = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 8), nn.ReLU())

    def moved(inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs) + 0.1 * torch.randn(len(inputs), 4)

    for embed, data in (
        (lambda x: net(torch.as_tensor(x)), rows.numpy()),
        (Embedder(net, moved), list(rows)),
        (Embedder(net), Jittered(rows)),
    ):
        with pytest.warns(PushforwardWarning, match=r"other features for the same inputs.*prepare=.*\.eval"):
            pf.Guard(0.1, embed=embed, random_state=0).fit(data)


def test_features_that_repeat_do_not_warn() -> None:
    rows = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 8), nn.ReLU())  # dropout is off in evaluation mode
    for data in (
        rows, rows.numpy(), TensorDataset(rows), DataLoader(TensorDataset(rows), 32, shuffle=True), {"input": rows},
    ):  # fmt: skip
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            guard = pf.Guard(0.1, embed=Embedder(net), random_state=0).fit(data)
        assert [str(each.message) for each in found if "other features" in str(each.message)] == []
        np.testing.assert_array_equal(guard.p_value(rows[:32]), guard.p_value(rows[:32]))


@pytest.mark.parametrize("make", [lambda frame: frame, pl.from_pandas], ids=["pandas", "polars"])
def test_a_report_on_a_data_frame_of_numbers_for_a_network(make) -> None:
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 4)), columns=list("abcd"))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    guard = pf.Guard(0.1, embed=net, effort="fast", random_state=0).fit(make(rows))
    found = guard.report(make(rows)).to_dict()
    assert found["alarms"]
    assert all(alarm["picture"] is None for alarm in found["alarms"])


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_columns_of_a_data_frame_are_read_by_name(kind, tmp_path):
    make = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}[kind]
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=400), "site": np.arange(400) // 2, "b": rng.normal(5, 0.1, 400)}
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh())
    guard = pf.Guard(embed=net).fit(make(columns), groups="site")
    assert guard.embedded_columns_ == ["a", "b"]
    matrix = np.stack([columns["a"], columns["b"]], 1)
    expected = guard.anomaly_score(matrix)
    guard.save(tmp_path / "guard")
    for one in (guard, pf.Guard.load(tmp_path / "guard", embed=net)):
        moved = make({"b": columns["b"], "more": columns["a"], "a": columns["a"]})
        np.testing.assert_array_equal(one.anomaly_score(moved), expected)
        with pytest.raises(InputError, match=r"lacks .*'b'"):
            one.predict(make({"a": columns["a"]}))
