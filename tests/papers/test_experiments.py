import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

import pushforward as pf
from benchmarks.common.datasets import load_images
from papers import reproduction as registry
from papers.__main__ import main
from papers.experiment import Experiment, all_hold, bits_per_dim, clearly_below, spread
from papers.report import Report, index, markdown, page
from papers.reproduction import reproduction
from papers.run import reproduce
from pushforward.errors import ConfigError, StorageError


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch):
    """A registry with one reproduction, which counts how often it measures."""
    monkeypatch.setattr(registry, "_REPRODUCTIONS", {})
    calls: list[int] = []

    @reproduction("toy", "A toy (Nobody 2020)", data=("none",), full="no time at all")
    def run(experiment: Experiment) -> None:
        from matplotlib.figure import Figure

        values = [experiment.measure(f"seed {seed}", lambda: calls.append(1) or 2.5) for seed in experiment.repeats]
        experiment.picture("plot", Figure())
        less = values[0] < 3
        experiment.report(
            "two is less than three", paper="2.00", ours=spread(values), confirmed=less, seeds=len(values)
        )
        experiment.report("four is less than three", ours="4 | 3", confirmed=False, seeds=0, note="tried")

    return calls


def test_a_reproduction_reports_findings_pictures_and_time(toy, tmp_path):
    report = reproduce("toy", out=tmp_path, say=lambda line: None)
    assert [f.confirmed for f in report.findings] == [True, False]
    assert report.findings[0].ours == "2.500 ± 0.000"
    assert report.command == "python -m papers toy --budget quick"
    assert (tmp_path / "toy-plot.png").exists()
    assert report.pictures == ("toy-plot.png",)
    assert Report.read(tmp_path / "toy-quick.json") == report


def test_a_line_that_a_killed_run_did_not_finish_is_measured_again(toy, tmp_path):
    reproduce("toy", out=tmp_path, say=lambda line: None)
    cache = tmp_path / "toy-quick.jsonl"
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-9])
    said: list[str] = []
    reproduce("toy", out=tmp_path, say=said.append)
    assert len(toy) == 4
    assert cache.read_bytes() == whole
    assert "not complete" in said[0]


def test_a_measurement_whose_file_is_gone_is_made_again(tmp_path):
    file, calls = tmp_path / "model", []

    def measure(key: str) -> int:
        def write() -> int:
            calls.append(key)
            return file.write_text(key)

        return Experiment("toy", "quick", tmp_path, say=lambda line: None).measure(key, write, file)

    assert [measure("a"), measure("a")] == [1, 1]
    assert calls == ["a"]
    file.unlink()
    assert measure("a") == 1
    assert calls == ["a", "a"]


def test_one_seed_decides_no_comparison():
    assert clearly_below([1.0], [2.0]) is None  # one pair has no standard error
    assert clearly_below([2.0], [1.0]) is None
    assert clearly_below([1.0, 1.1, 0.9], [2.0, 2.1, 2.0]) is True
    assert clearly_below([1.0, 1.1, 0.9], [1.1, 1.0, 1.1]) is False
    assert all_hold([True, None]) is None
    assert all_hold([True, None, False]) is False
    assert all_hold([True, True]) is True


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ([0.0, 0.0, 0.0], [0.1, 0.5, 0.6]),  # 2.6 standard errors: p = 0.06
        ([0.0, 0.0, 0.0], [0.2, 0.5, 0.6]),  # 3.6 standard errors: p = 0.03
        ([0.0] * 5, [0.1, 0.5, 0.6, 0.3, -0.1]),  # 2.2 standard errors: p = 0.046
        ([1.0, 2.0], [1.5, 2.6]),
    ],
)
def test_models_are_compared_by_a_paired_t_test(low, high):
    p = scipy.stats.ttest_rel(high, low, alternative="greater").pvalue
    assert clearly_below(low, high) is bool(p < 0.05)


def test_a_long_run_may_have_its_own_number_of_seeds(tmp_path):
    def few(budget, seeds=None, **options):
        return len(Experiment("toy", budget, tmp_path, seeds=seeds, say=lambda line: None).few(1, **options))

    assert [few("quick"), few("quick", long=5), few("long", long=5), few("long", seeds=2, long=5)] == [1, 1, 5, 2]


def test_a_long_run_has_the_quick_setting_where_it_has_none_of_its_own(tmp_path):
    experiment = Experiment("toy", "long", tmp_path, say=lambda line: None)
    assert experiment.choose(smoke=1, quick=2, full=4) == 2
    assert experiment.choose(smoke=1, quick=2, long=3, full=4) == 3


def test_smoke_runs_confirm_nothing(toy, tmp_path):
    report = reproduce("toy", budget="smoke", out=tmp_path, say=lambda line: None)
    assert [f.confirmed for f in report.findings] == [None, None]
    assert len(toy) == 1


def test_tables_show_which_claims_were_not_confirmed(toy, tmp_path):
    report = reproduce("toy", out=tmp_path, say=lambda line: None)
    table = markdown(report)
    assert "| two is less than three | 2.00 | 2.500 ± 0.000 | 3 | yes |" in table
    assert "| four is less than three | – | 4 \\| 3 (tried) | – | **no** |" in table
    text = page(report)
    assert text.startswith("# A toy\n\nA toy (Nobody 2020).\n")
    assert "![toy plot](toy-plot.png)" in text
    listed = index([report], "papers/")
    assert "| [A toy](papers/toy.md) | 1 of 2 |" in listed
    assert "[A toy (Nobody 2020)](papers/toy.md)." in listed
    assert "| four is less than three | **no** |" in listed
    both = index([report], "papers/", longer={"toy": replace(report, findings=report.findings[:1])})
    assert "| [A toy](papers/toy.md) | 2 of 3 |" in both
    assert both.count("| two is less than three | yes |") == 2


def test_the_command_lists_runs_and_writes_the_page(toy, tmp_path, capsys):
    assert main(["--list"]) == 0
    assert "toy" in capsys.readouterr().out
    assert main(["--all", "--out", str(tmp_path), "--page", str(tmp_path / "papers.md")]) == 0
    assert "| two is less than three |" in (tmp_path / "papers.md").read_text()
    assert main(["toy", "--out", str(tmp_path)]) == 0


def test_a_page_of_earlier_reports_runs_nothing_and_copies_the_pictures(toy, tmp_path, capsys):
    docs = tmp_path / "docs" / "papers.md"
    assert main(["--out", str(tmp_path / "runs"), "--page", str(docs)]) != 0
    assert "has no finished report" in capsys.readouterr().err
    assert main(["toy", "--out", str(tmp_path / "runs")]) == 0
    made = len(toy)
    assert main(["--out", str(tmp_path / "runs"), "--page", str(docs)]) == 0
    assert len(toy) == made
    assert "](papers/toy.md)" in docs.read_text()
    assert "![toy plot](toy-plot.png)" in (docs.parent / "papers" / "toy.md").read_text()
    assert (docs.parent / "papers" / "toy-plot.png").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "name one reproduction"),
        (["toy", "--all"], "name one reproduction"),
        (["nothing"], "no reproduction 'nothing'; there are toy"),
        (["toy", "--budget", "huge"], "budget must be one of"),
        (["toy", "--seeds", "0"], "seeds must be at least 1"),
    ],
)
def test_errors_are_one_line(toy, tmp_path, capsys, arguments, expected):
    assert main([*arguments, "--out", str(tmp_path)]) != 0
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_damaged_measurements_and_reports_are_named(toy, tmp_path):
    (tmp_path / "toy-quick.jsonl").write_text("{\n")
    with pytest.raises(StorageError, match="delete this line"):
        reproduce("toy", out=tmp_path)
    (tmp_path / "bad.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(StorageError, match="not a report"):
        Report.read(tmp_path / "bad.json")


def test_two_reproductions_of_one_name_are_refused(toy):
    with pytest.raises(ConfigError, match="two reproductions named 'toy'"):
        reproduction("toy", "Again", full="")(lambda experiment: None)


def test_images_are_found_under_their_names(tmp_path, monkeypatch):
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "mnist").mkdir()
    raw = bytes([0, 0, 8, 3]) + struct.pack(">3I", *array.shape) + array.tobytes()
    import gzip

    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(raw))
    assert torch.equal(load_images("mnist", train=False, folder=tmp_path)[:, 0], torch.from_numpy(array))
    monkeypatch.setenv("PUSHFORWARD_DATA", str(tmp_path))
    assert load_images("mnist", train=False).shape == (2, 1, 3, 4)


def test_absent_images_say_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.delenv("PUSHFORWARD_DATA", raising=False)
    with pytest.raises(
        StorageError, match=r"fashion-mnist was not found in a data folder.*PUSHFORWARD_DATA.*torchvision"
    ):
        load_images("fashion-mnist", train=True)
    with pytest.raises(StorageError, match=r"cifar10/test\.parquet"):
        load_images("cifar10", train=False, folder=tmp_path)
    with pytest.raises(ConfigError, match="no training part"):
        load_images("notmnist", train=True, folder=tmp_path)
    with pytest.raises(ConfigError, match="there is no image set 'svhn'"):
        load_images("svhn", train=True, folder=tmp_path)


def test_usps_is_scaled_and_padded(tmp_path):
    images = np.full((1, 16, 16), 2000, dtype=np.uint16)
    (tmp_path / "usps").mkdir()
    np.savez(tmp_path / "usps" / "usps.npz", train_images=images, test_images=images // 2)
    train = load_images("usps", train=True, folder=tmp_path)
    assert train.shape == (1, 1, 28, 28)
    assert train.dtype == torch.uint8
    assert train[0, 0, 6:22, 6:22].min() == 255
    assert train.long().sum() == 255 * 256
    assert load_images("usps", train=False, folder=tmp_path).max() == 128


def test_bits_per_dim_of_a_uniform_model():
    # A uniform density on dequantized pixels of 4 levels is 2 bits per pixel for every image.
    model = pf.models.Flow(
        pf.transforms.Chain(pf.transforms.UniformDequantize((1, 2, 2), 4)), pf.distributions.Uniform((1, 2, 2))
    )
    assert bits_per_dim(model, torch.randint(4, (7, 1, 2, 2)), batch=3) == pytest.approx(2.0)


def test_a_model_is_trained_once(toy, tmp_path):
    rows, held_out = torch.randn(50, 2), torch.randn(10, 2)
    made: list[int] = []

    def make() -> pf.models.NICE:
        made.append(1)
        return pf.models.NICE(2, layers=2, hidden=(8,))

    model, facts = Experiment("toy", "smoke", tmp_path, say=lambda line: None).train(
        "a run", make, rows, held_out, max_steps=3
    )
    again, same = Experiment("toy", "smoke", tmp_path, say=lambda line: None).train(
        "a run", make, rows, held_out, max_steps=3
    )
    assert made == [1]
    assert facts == same
    assert facts["steps"] == 3
    assert torch.equal(model.log_prob(rows), again.log_prob(rows))
    assert not list(tmp_path.glob("*.checkpoint"))


def test_a_strip_of_images(toy, tmp_path):
    from PIL import Image

    experiment = Experiment("toy", "smoke", tmp_path, say=lambda line: None)
    experiment.strip("images", {"gray": torch.zeros(4, 1, 5, 5), "color": torch.full((4, 3, 5, 5), 300)})
    with Image.open(tmp_path / "toy-images.png") as picture:
        assert picture.width > 4 * 5
