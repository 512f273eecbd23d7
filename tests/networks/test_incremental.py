"""The incremental MADE gives what one pass of the network gives, whatever its shape, and is never out of date."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pushforward.errors import InputError
from pushforward.networks import MADE
from pushforward.networks.incremental import IncrementalMADE

ROWS = 4


def shuffled(features: int) -> tuple[int, ...]:
    return tuple(torch.randperm(features, generator=torch.Generator().manual_seed(features)).tolist())


def make(features: int, hidden: tuple[int, ...] = (24,), **options) -> MADE:
    network = MADE(features, 3, hidden, **{"activation": "tanh", **options}).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.7 / parameter.shape[-1] ** 0.5))
    return network


def inputs(network: MADE, spread: float = 1.0) -> tuple[Tensor, Tensor | None]:
    x = spread * torch.randn(ROWS, network.copies * network.features, dtype=torch.float64)
    return x, torch.randn(ROWS, network.context, dtype=torch.float64) if network.context else None


def by_position(network: MADE, x: Tensor) -> Tensor:
    """What the network sees, ``(features, copies, rows)``, sorted by position."""
    order = torch.tensor(network.order or range(network.features))
    return x.reshape(ROWS, network.copies, network.features).movedim(0, -1)[:, order].transpose(0, 1)


def expected(network: MADE, x: Tensor, context: Tensor | None) -> Tensor:
    """Parameters from one pass, ``(outputs, features, rows)``, sorted by position."""
    order = torch.tensor(network.order or range(network.features))
    return network(x, context)[..., order].movedim(1, 2)


def stepped(network: MADE, x: Tensor, context: Tensor | None, block: int | None = None) -> Tensor:
    incremental = IncrementalMADE(network, ROWS, context, block=block)
    raw = []
    for seen in by_position(network, x):
        raw.append(incremental.step())
        incremental.feed(seen)
    return torch.cat(raw, 1)


def swept(network: MADE, x: Tensor, context: Tensor | None, block: int) -> Tensor:
    incremental = IncrementalMADE(network, ROWS, context, block=block)
    raw = []
    while incremental.done < network.features:
        incremental.open(sweeps=True)
        positions = slice(incremental.opened.start, incremental.opened.stop)
        incremental.sweep(
            torch.randn(network.copies * len(incremental.opened), ROWS, dtype=torch.float64)
        )  # a wrong guess
        raw.append(incremental.sweep(by_position(network, x)[positions].flatten(0, 1)))
        incremental.accept()
    return torch.cat(raw, 1)


GRID = [
    *(
        (features, hidden, {"residual": residual, "context": context, "order": order})
        for features in (1, 2, 3, 9)
        for hidden, residual in (((), False), ((4,), False), ((20, 33), False), ((8,), True), ((20, 20, 20), True))
        for context in (0, 2)
        for order in (None, "shuffled")
    ),
    (70, (32, 100), {}),
    (70, (90, 90), {"residual": True, "context": 3, "order": "shuffled"}),
    (130, (160, 140), {"order": "shuffled"}),
    (9, (20,), {"copies": 2}),
    (9, (), {"copies": 2, "order": "shuffled"}),
    (40, (16, 16), {"copies": 2, "order": "shuffled", "residual": True}),
    (9, (20, 20), {"input_bound": None}),
    (9, (20, 20), {"activation": "gelu", "context": 1}),
    (9, (20, 20), {"activation": "softplus", "residual": True}),
]


def built(case: tuple) -> MADE:
    features, hidden, options = case
    order = shuffled(features) if options.get("order") else None
    return make(features, hidden, **{**options, "order": order})


@pytest.mark.parametrize("case", GRID, ids=str)
@pytest.mark.parametrize("grad", [False, True], ids=["no gradient", "gradient"])
def test_steps_give_what_one_pass_gives(case, grad):
    network = built(case)
    x, context = inputs(network)
    with torch.set_grad_enabled(grad):
        for block in (None, 1, 3):
            found = stepped(network, x, context, block)
            torch.testing.assert_close(found, expected(network, x, context), rtol=1e-11, atol=1e-11)
            assert found.requires_grad is grad


@pytest.mark.parametrize("case", GRID, ids=str)
def test_sweeps_give_what_one_pass_gives(case):
    network = built(case)
    x, context = inputs(network)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            for block in (1, 4, 200):
                found = swept(network, x, context, block)
                torch.testing.assert_close(found, expected(network, x, context), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("spread", [1e2, 1e6])
def test_far_inputs_are_bounded_as_in_the_pass(spread):
    network = make(9, (20, 20), residual=True)
    x, _ = inputs(network, spread)
    torch.testing.assert_close(stepped(network, x, None), expected(network, x, None), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", [c for c in GRID if c[0] in (1, 3, 9, 40)], ids=str)
def test_gradients_are_those_of_the_pass(case):
    network = built(case)
    x, context = inputs(network)
    leaves = [t.requires_grad_() for t in (x, context) if t is not None] + list(network.parameters())
    weights = torch.randn(3, network.features, ROWS, dtype=torch.float64)
    one, other = (
        torch.autograd.grad((weights * run(network, x, context).sin()).sum(), leaves, allow_unused=True)
        for run in (stepped, expected)
    )
    for got, wanted, leaf in zip(one, other, leaves, strict=True):
        zero = torch.zeros_like(leaf)
        torch.testing.assert_close(zero if got is None else got, zero if wanted is None else wanted)


@pytest.mark.parametrize("block", [2, 5])
def test_a_guess_that_was_not_accepted_changes_nothing(block):
    network = make(9, (20, 20))
    x, _ = inputs(network)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            incremental = IncrementalMADE(network, ROWS, block=block)
            seen, raw = by_position(network, x), []
            for position in range(9):
                if position == incremental.opened.stop:
                    incremental.open(sweeps=True)
                    incremental.sweep(torch.ones(len(incremental.opened), ROWS, dtype=torch.float64))
                    incremental.open()
                raw.append(incremental.step())
                incremental.feed(seen[position])
            torch.testing.assert_close(torch.cat(raw, 1), expected(network, x, None), rtol=1e-11, atol=1e-11)


def test_dropout_never_acts():
    network = make(9, (20, 20), dropout=0.5).train()
    x, _ = inputs(network)
    found = stepped(network, x, None)
    torch.testing.assert_close(found, expected(network.eval(), x, None), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("features", [40, 130])
@pytest.mark.parametrize("options", [{}, {"residual": True}, {"context": 5}], ids=str)
def test_all_steps_together_cost_no_more_arithmetic_than_one_pass(features, options):
    network = make(features, (200, 200), **options)
    x, context = inputs(network)
    with torch.no_grad(), FlopCounterMode(display=False) as steps:
        stepped(network, x, context)
    with torch.no_grad(), FlopCounterMode(display=False) as once:
        network(x, context)
    assert 0 < steps.get_total_flops() < once.get_total_flops()


def test_infinite_rows_and_no_rows():
    network = make(3)
    incremental = IncrementalMADE(network, 0)
    for _ in range(3):
        assert incremental.step().shape == (3, 1, 0)
        incremental.feed(torch.zeros(1, 0, dtype=torch.float64))


def test_a_missing_or_wrong_context_is_an_error():
    network = make(3, context=2)
    with pytest.raises(InputError, match="context"):
        IncrementalMADE(network, ROWS)
    with pytest.raises(InputError, match="width 2"):
        IncrementalMADE(network, ROWS, torch.zeros(ROWS, 1, dtype=torch.float64))


@pytest.mark.parametrize("features", [1, 2, 3, 9, 40])
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("width", [1, 4, 39, 40, 41, 128])
def test_units_below_agrees_with_the_mask(features, context, width):
    network = MADE(features, 1, (width,), context=context)
    reach = network.layers[0].mask.sum(1)  # a unit of degree m sees m coordinates
    assert network.units_below[width] == [int((reach < degree).sum()) for degree in range(features + 1)]
