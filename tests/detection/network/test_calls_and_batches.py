"""Heads that run several times, layers that are changed in place, outputs that depend on the batch, and other networks people have."""

from __future__ import annotations

import copy
import math
import pickle
import threading
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import IsolationForest
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import pushforward as pf
from pushforward.detection import network as scores
from pushforward.detection.selective import PredictionSets
from pushforward.detection.selective.set_scores import row_uniform
from pushforward.errors import CalibrationError, ConfigError, InputError, PushforwardWarning, StorageError


def rows(n: int = 800, seed: int = 0, width: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def plain(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def guarded(net: nn.Module, score: Any = "default", **options: Any) -> pf.NetworkGuard:
    x, y = rows()
    return pf.NetworkGuard(net, alpha=0.05, score=score, **options).fit(
        (x[:400], y[:400]), calibration=(x[400:], y[400:])
    )


# -- heads that run several times --


class Deep(nn.Module):
    """One head on two depths; the last call is that of the other output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        shallow = torch.relu(self.a(x))
        deep = torch.relu(self.b(shallow))
        return {"logits": self.head(deep), "aux": self.head(shallow)}


@pytest.mark.parametrize("logits", [None, "aux"])
def test_features_are_those_of_the_call_that_makes_the_logits(logits, tmp_path) -> None:
    torch.manual_seed(0)
    net, x = Deep().eval(), rows()[0]
    shallow = torch.relu(net.a(x))
    expected = shallow if logits == "aux" else torch.relu(net.b(shallow))
    assert torch.equal(scores.NetworkReader(net, logits=logits).read(x).features, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)
        guard = guarded(net, "Mahalanobis", logits=logits)
    guard.save(tmp_path / "g")
    again = pf.NetworkGuard.load(tmp_path / "g", net)
    assert (again.anomaly_score(x) == guard.anomaly_score(x)).all()


def test_a_head_that_runs_less_often_later_is_an_error() -> None:
    class Sometimes(Deep):
        def forward(self, x: Tensor) -> Any:
            return (
                super().forward(x) if len(x) > 5 else {"logits": self.head(torch.relu(self.b(torch.relu(self.a(x)))))}
            )

    reader = scores.NetworkReader(Sometimes().eval())
    reader.read(rows()[0])
    with pytest.raises(InputError, match="'head' ran 1 times, and on the first batch more often"):
        reader.read(rows()[0][:5])


# -- in-place activations --


@pytest.mark.parametrize(
    "options",
    [{"layers": ["0"]}, {"layers": [], "features": "0"}, {"features": "0"}],
    ids=["layers", "features", "features and others"],
)
def test_a_layer_is_read_before_it_is_changed_in_place(options, tmp_path) -> None:
    net = plain()
    net[1] = nn.ReLU(inplace=True)
    x = rows()[0]
    reader = scores.NetworkReader(net, **options)
    reading = reader.read(x)
    named = bool(options.get("layers"))
    found = reading.layers["0"] if named else reading.features
    assert torch.equal(found, net[0](x))
    assert found.min() < 0
    guard = guarded(net, "LayerMahalanobis" if named else "Mahalanobis", **options)
    guard.save(tmp_path / "g")
    assert (pf.NetworkGuard.load(tmp_path / "g", net).anomaly_score(x) == guard.anomaly_score(x)).all()


# -- outputs that depend on the batch --


def test_a_network_whose_answers_depend_on_the_batch_is_warned_of() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.ReLU(), nn.Linear(16, 3)
    ).eval()
    with pytest.warns(
        PushforwardWarning, match=r"the features of an input are others in a batch of 2 than in one of 256"
    ):
        guarded(net)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_rounding_is_no_effect_of_the_batch(dtype) -> None:
    x, y = rows()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pf.NetworkGuard(plain().to(dtype), 0.05).fit((x[:400].to(dtype), y[:400]), calibration=x[400:].to(dtype))
    assert [str(each.message) for each in found] == []


def test_sets_hardly_depend_on_the_rounding_of_the_logits() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, size=4000)
    logits = 2.0 * np.eye(4)[labels] + rng.normal(size=(4000, 4))
    for method in ("aps", "raps"):
        sets = PredictionSets(method).fit(logits[:1000], labels[:1000])
        rounded = sets(logits + rng.uniform(-4e-6, 4e-6, size=logits.shape))
        assert (rounded != sets(logits)).any(1).mean() < 0.005


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_number_of_a_row_is_uniform_at_every_scale(scale, classes) -> None:
    z = scale * np.random.default_rng(0).normal(size=(5000, classes))
    u = np.sort(row_uniform(z, 3))
    assert np.abs(u - (np.arange(5000) + 0.5) / 5000).max() < 1.95 / math.sqrt(5000)
    odd = row_uniform(np.array([[-math.inf, 0.0, 1.0], [1e308, 1e308, -1e308], [0.0, 0.0, 0.0]]), 0)
    assert ((odd >= 0) & (odd < 1)).all()


def test_sets_of_earlier_files_keep_their_numbers() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, size=2000)
    logits = 2.0 * np.eye(4)[labels] + rng.normal(size=(2000, 4))
    sets = PredictionSets("aps").fit(logits, labels)
    description, tensors = sets.pack("s.")
    assert (PredictionSets.unpack(description, tensors, "s.")(logits) == sets(logits)).all()
    earlier = PredictionSets.unpack(
        {name: value for name, value in description.items() if name != "uniform"}, tensors, "s."
    )
    assert (earlier(logits) != sets(logits)).any()
    assert earlier.pack("s.")[0]["uniform"] == "hash"
    assert (earlier.fit(logits, labels)(logits) == sets(logits)).all()


# -- whose file it is --


def test_a_guard_of_a_quantized_network_refuses_another(tmp_path) -> None:
    def quantized(seed: int) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.ao.quantization.quantize_dynamic(plain(seed), {nn.Linear})

    guard = guarded(quantized(0), "MaxSoftmax")
    guard.save(tmp_path / "g")
    x = rows()[0]
    assert (pf.NetworkGuard.load(tmp_path / "g", quantized(0)).p_value(x) == guard.p_value(x)).all()
    with pytest.raises(StorageError, match="was fitted to another network"):
        pf.NetworkGuard.load(tmp_path / "g", quantized(1))


def test_the_file_comes_before_the_network(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"the file comes first: NetworkGuard.load\(path, net\)"):
        pf.NetworkGuard.load(plain(), tmp_path / "g")  # pyright: ignore[reportArgumentType]


# -- scores --


def test_detectors_of_scikit_learn_are_refused_since_their_sign_is_the_other() -> None:
    with pytest.raises(ConfigError, match=r"IsolationForest.* is -1 for anomalies.*score_samples"):
        guarded(plain(), IsolationForest(random_state=0).fit(rows()[0].numpy()))


@pytest.mark.parametrize("reads", ["features", "logits"])
def test_a_function_of_features_says_how_to_read_them(reads) -> None:
    with pytest.raises(ConfigError, match=rf"predict_{reads}.*function has not.*reading\.{reads}"):
        scores.External(lambda rows: rows.norm(dim=1), reads=reads)


def test_an_own_score_can_be_pickled_if_its_function_can() -> None:
    guard = guarded(plain(), scores.External(norm))
    x = rows()[0]
    assert (pickle.loads(pickle.dumps(guard)).p_value(x) == guard.p_value(x)).all()
    assert (copy.deepcopy(guard).p_value(x) == guard.p_value(x)).all()


def test_a_detector_is_not_copied() -> None:
    class Detector:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def predict(self, x: Tensor) -> Tensor:
            return x.norm(dim=1)

    detector = Detector()
    assert guarded(plain(), detector).score_.scores[0].detector() is detector


def test_minus_infinity_is_the_least_anomalous() -> None:
    guard = guarded(
        plain(), scores.External(lambda r: torch.log(torch.relu(r.features[:, 0].double())), reads="reading")
    )
    assert guard.p_value(rows()[0]).min() < 0.05


def norm(x: Tensor) -> Tensor:
    return x.norm(dim=1)


def test_a_score_that_is_often_no_number_is_refused_and_a_few_are_warned_of() -> None:
    def score(bound: float) -> Any:
        return lambda x: torch.where(x[:, 0] > bound, torch.nan, x.norm(dim=1))

    with pytest.raises(
        InputError, match=r"External is NaN or infinite on \d+ of 400 held-out rows, so no input could raise an alarm"
    ):
        guarded(plain(), score(1.28))
    with pytest.warns(PushforwardWarning, match="External is NaN or infinite on . of 400 held-out rows"):
        guard = guarded(plain(), score(2.2))
    assert guard(50 * rows(5)[0]).alarm.all()


@pytest.mark.parametrize("top", [None, 2])
def test_gen_of_a_certain_network(top) -> None:
    logits = torch.tensor([[60.0, 0.0, 0.0], [40.0, 0.0, 0.0], [1.0, 0.5, 0.2]])
    found = scores.GEN(top=top)(scores.Reading(None, logits, logits))
    for gap, value in ((60.0, found[0]), (40.0, found[1])):
        small = math.exp(-gap) / (1 + 2 * math.exp(-gap))
        terms = [(2 * small) ** 0.1, small**0.1, small**0.1][
            : top or 3
        ]  # p is 1 for the first and 1 - p is 1 for the others
        assert float(value) == pytest.approx(sum(terms), rel=1e-9)
    p = torch.softmax(logits[2].double(), 0)
    assert float(found[2]) == pytest.approx(float(((p * (1 - p)) ** 0.1)[: top or 3].sum()), rel=1e-12)


def test_features_of_double_precision_keep_it() -> None:
    z = torch.randn(800, 4, generator=torch.Generator().manual_seed(0)).double() + 1e7
    net = nn.Sequential(nn.Identity(), nn.Linear(4, 3).double()).eval()
    guard = pf.NetworkGuard(net, 0.05, score=scores.Neighbors(k=1, normalize=False)).fit(z[:400], calibration=z[400:])
    assert guard.anomaly_score(z[:5]).max() < 1e-6
    expected = torch.cdist(z[400:420], z[:400], compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    np.testing.assert_allclose(guard.anomaly_score(z[400:420]), expected, rtol=1e-6)


class Encoder(nn.Module):
    def __init__(self, nested: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True)
        self.embed, self.body = nn.Embedding(50, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.body(self.embed(input_ids), src_key_padding_mask=attention_mask == 0)[:, 0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_dropout_of_nested_sequences() -> None:
    _, y = rows()
    ids = torch.randint(1, 50, (600, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(600, 8).long()
    mask[::2, 5:] = 0

    def part(a: int, b: int) -> dict[str, Tensor]:
        return {"input_ids": ids[a:b], "attention_mask": mask[a:b]}

    found = []
    for nested in (True, False):
        torch.manual_seed(0)
        net = Encoder(nested).eval()
        guard = pf.NetworkGuard(net, 0.05, score=scores.MCDropout(passes=4)).fit(
            (part(0, 200), y[:200]), calibration=part(200, 500)
        )
        found.append(guard.anomaly_score(part(500, 600)))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-6)


# -- functions, rows and outputs --


def test_embed_must_return_one_row_for_each_input() -> None:
    x = np.random.default_rng(0).normal(size=(300, 8))
    guard = pf.Guard(0.05, embed=lambda a: np.tanh(a[~np.isnan(a).any(1)]), random_state=0).fit(x)
    x[7, 0] = np.nan
    with pytest.raises(InputError, match="embed returned 63 rows of features for 64 inputs"):
        guard.predict(x)
    with pytest.raises(InputError, match="embed returned 3 rows of features for 64 inputs"):
        pf.Guard(0.05, embed=lambda a: np.zeros((3, 2))).fit(x)


def test_a_function_gets_what_was_given() -> None:
    seen: list[type] = []
    embed = scores.Embedder(lambda part: seen.append(type(part)) or np.asarray(part, dtype=float), normalize=False)
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    for data in (x, torch.from_numpy(x), x.tolist()):
        np.testing.assert_allclose(embed(data), x)
    assert seen == [np.ndarray] * 2 + [torch.Tensor] * 2 + [list] * 2


def test_lists_of_numbers_are_rows_and_a_data_set_leaves_the_random_state_alone() -> None:
    guard, (x, y) = guarded(plain()), rows()
    expected = guard.p_value(x)
    np.testing.assert_allclose(guard.p_value(x.tolist()), expected)
    np.testing.assert_allclose(guard.p_value((x.tolist(), y.tolist())), expected)
    before = torch.get_rng_state()
    np.testing.assert_allclose(guard.p_value(TensorDataset(x)), expected)
    assert torch.equal(before, torch.get_rng_state())


def test_logits_deep_in_the_output() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = plain()

        def forward(self, x: Tensor) -> Any:
            return {"out": [{"logits": self.net(x)}, "text"]}

    assert scores.NetworkReader(Wrapped().eval(), logits="out.0.logits").read(rows()[0]).logits is not None
    with pytest.raises(ConfigError, match=r"names no tensor.*pass read="):
        scores.NetworkReader(Wrapped().eval(), logits="out.1.logits").read(rows()[0])


def test_options_and_messages() -> None:
    net, (x, y) = plain(), rows()
    with pytest.raises(ConfigError, match="layers must be 'auto' or a list"):
        pf.NetworkGuard(net, layers=None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"a network must be a torch.nn.Module.*got 'resnet'"):
        pf.NetworkGuard("resnet")  # pyright: ignore[reportArgumentType]
    with pytest.raises(CalibrationError, match=r"at least 19 rows .*\(20 more for a score of several statistics"):
        pf.NetworkGuard(net, 0.05).fit((x, y))
    guard = guarded(net)
    for neighbors in (0, -1, 1.5):
        with pytest.raises(ConfigError, match="neighbors"):
            guard.explain(x[:2], neighbors=neighbors)  # pyright: ignore[reportArgumentType]


def test_a_gradient_by_inputs_of_sixteen_bits() -> None:
    x, y = rows()
    half = x.bfloat16()
    guard = pf.NetworkGuard(plain().bfloat16(), 0.05).fit((half[:400], y[:400]), calibration=half[400:])
    gradient = guard.explain(half[:2], gradient=True).gradient
    assert gradient is not None
    assert gradient.shape == (2, 8)
    assert np.isfinite(gradient).all()


class Returns(nn.Module):
    """A network that changes its input or its output."""

    def __init__(self, before: Any = lambda x: x, after: Any = lambda z: z) -> None:
        super().__init__()
        self.body, self.head, self.before, self.after = nn.Linear(8, 16), nn.Linear(16, 3), before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.head(self.body(self.before(x)).relu()))


def test_a_network_that_changes_its_inputs_is_warned_of() -> None:
    x, y = rows()
    with pytest.warns(PushforwardWarning, match="the network changes its inputs in place, so it changes your data"):
        pf.NetworkGuard(Returns(before=lambda x: x.sub_(1.0)).eval(), 0.05).fit((x[:400], y[:400]), calibration=x[400:])


def test_complex_outputs_are_refused_and_flags_are_numbers() -> None:
    with pytest.raises(InputError, match="the network shows complex numbers: let it return real ones"):
        guarded(Returns(after=lambda z: torch.complex(z, z)).eval())
    assert guarded(Returns(after=lambda z: z > 0).eval(), score="Mahalanobis").classes_ == 3


def test_a_layer_that_is_named_twice_is_read_once() -> None:
    net = Returns().eval()
    once, twice = (guarded(net, layers=names) for names in (["body"], ["body", "body"]))
    assert torch.equal(once(rows()[0]).score, twice(rows()[0]).score)
