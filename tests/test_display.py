"""What a notebook shows: small tables whose text is escaped and whose colors are those of the page."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.display import card, table


class Page(HTMLParser):
    """Checks that tags are balanced, and collects the text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.words = [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in ("br", "progress"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "progress":
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " | ".join(self.words)


def shown(thing):
    page = thing._repr_html_()
    assert len(page) < 40_000
    assert "<script" not in page
    assert not set(re.findall(r"(?<![-\w])(?:color|background):([^;\"]+)", page)) - {"inherit", "none"}
    return Page(page).text


def test_text_is_escaped():
    page = card("<i>", [("<b>", "&"), ("gone", None)], table(["<u>"], [["<s>"]], summary="<p>"))
    assert Page(page).text == "<i> | <b> | & | <p> | <u> | <s>"
    assert "<i>" not in page
    assert "<s>" not in page


@pytest.fixture(scope="module")
def guard():
    rng = np.random.default_rng(0)
    rows = {"<b>flow</b>": rng.normal(size=400), "color": rng.choice(["red", "blue"], 400)}
    import pyarrow as pa

    return pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(pa.table(rows))


def test_a_guard_says_its_promise_and_its_columns(guard):
    text = shown(guard)
    assert "at most 0.05 of normal rows raise an alarm" in text
    assert f"rows like the training rows ({guard.calibrator_.n} of them" in text
    assert "<b>flow</b> | numeric | no" in text
    assert "color | categorical | no | 2" in text
    bundle = guard._repr_mimebundle_()
    assert bundle == {"text/plain": repr(guard), "text/html": guard._repr_html_()}
    assert "not fitted" in shown(pf.Guard(alpha=0.2))
    pac = pf.Guard(alpha=0.1, guarantee="pac", effort="fast", random_state=0).fit(
        np.random.default_rng(0).normal(size=(300, 2))
    )
    assert "with probability 0.95" in shown(pac)


def test_a_guard_without_enough_rows_says_that_it_is_quiet():
    x = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.warns(pf.errors.PushforwardWarning, match="calibration"):
        quiet = pf.Guard(alpha=0.001, effort="fast", random_state=0).fit(x)
    assert "too few for this promise" in shown(quiet)
    single = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(x[:, :1])
    assert "rows of 1 column |" in shown(single)


def test_a_probability_is_not_rounded_to_certainty():
    x = np.random.default_rng(0).normal(size=(400, 2))
    options = {"guarantee": "pac", "delta": 1e-4, "effort": "fast", "random_state": 0}
    found = pf.Guard(alpha=0.2, **options).fit(x)
    assert "with probability 0.9999 |" in shown(found)


def test_a_network_guard():
    torch.manual_seed(0)
    x = torch.randn(600, 4)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    guard = pf.NetworkGuard(net, alpha=0.05)
    assert "not fitted" in shown(guard)
    text = shown(guard.fit((x[:300], (x[:300, 0] > 0).long()), calibration=x[300:]))
    assert "at most 0.05 of the inputs that are like the held-out rows" in text
    assert all(name in text for name in guard.score_.names)
    assert "classes | 2" in text
    one = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)).eval()
    assert "classes" not in shown(pf.NetworkGuard(one, alpha=0.05).fit(x[:300], calibration=x[300:]))


def test_models_and_their_likelihoods():
    model = pf.models.NSF(features=2, layers=2, hidden=(8,))
    text = shown(model)
    assert "exact on Lebesgue(2)" in text
    assert f"{len(model.chain)} transforms and a base" in text
    assert f"{sum(p.numel() for p in model.parameters()):,}" in text
    found = model.evaluate(torch.randn(5, 2))
    text = shown(found)
    assert f"{found.value.double().mean().item():.4g} nats" in text
    assert "base" in text
    assert "shape | (0,)" in shown(model.evaluate(torch.zeros(0, 2)))
    manifold = pf.models.RectangularFlow(3, latent=1, hidden=(8,))
    assert "mean squared distance to the manifold" in shown(manifold.evaluate(torch.randn(4, 3)))
    for other in (pf.models.Glow(shape=(1, 8, 8), layers=1, hidden=(8, 8)), pf.models.MAF(2, context=3)):
        shown(other)


def test_results_of_training():
    result = pf.fit(pf.models.NICE(2), torch.randn(200, 2), max_steps=20, evaluate_every=10, seed=0, progress="silent")
    text = shown(result)
    assert f"{result.best_validation:.4f} nats" in text
    assert f"{len(result.history)} evaluations" in text


def test_results_of_inference():
    fit = pf.inference.fit_to_target(2, lambda v: -0.5 * (v**2).sum(-1), max_steps=20, seed=0, progress="silent")
    text = shown(fit)
    assert "reliable" in text
    assert f"{fit.k_hat:.2f}" in text
    calibration = pf.inference.Calibration(np.ones((3, 1)), np.ones(3), np.ones(3), 10, {"SBC": 0.5, "TARP": 0.001})
    assert "FAILED" in shown(pf.inference.PosteriorCheck(calibration))


def test_an_explanation(guard):
    import pyarrow as pa

    text = shown(guard.explain(pa.table({"<b>flow</b>": [30.0], "color": ["red"]})))
    assert "<b>flow</b> | " in text
    assert "excess, nats" in text
