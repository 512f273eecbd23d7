from __future__ import annotations

import functools
import json

import pytest
import torch
from torch import nn

from pushforward.errors import ConfigError, StorageError, TrainingError
from pushforward.training.optim import make_optimizer, pack_optimizer, unpack_optimizer


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 2), (3,), ())]


def step(trained: list[nn.Parameter], optimizer: torch.optim.Optimizer, count: int) -> None:
    for k in range(count):
        for parameter in trained:
            parameter.grad = torch.sin(parameter.detach() * (k + 1))
        optimizer.step()


KINDS = [
    "adamw",
    "adam",
    "sgd",
    functools.partial(torch.optim.RMSprop, lr=1e-2, momentum=0.5),
    functools.partial(torch.optim.Adam, lr=1e-2, amsgrad=True),
    functools.partial(torch.optim.Adagrad, lr=1e-2),
    functools.partial(torch.optim.NAdam, lr=1e-2),
    functools.partial(torch.optim.Rprop, lr=1e-2),
    functools.partial(torch.optim.Adafactor, lr=1e-2),  # a pair of which one is None
]


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_written_and_read(kind):
    trained = parameters()
    optimizer = make_optimizer(kind, trained, 1e-2, 0.1)
    step(trained, optimizer, 3)
    plain, tensors = pack_optimizer(optimizer)
    plain = json.loads(json.dumps(plain, allow_nan=False))
    tensors = {key: value.clone() for key, value in tensors.items()}
    copies = [nn.Parameter(p.detach().clone()) for p in trained]
    other = make_optimizer(kind, copies, 1e-2, 0.1)
    unpack_optimizer(other, plain, tensors)
    assert json.dumps(pack_optimizer(other)[0]) == json.dumps(plain)
    step(trained, optimizer, 3)
    step(copies, other, 3)
    assert all(torch.equal(one, two) for one, two in zip(trained, copies, strict=True))


def test_state_of_another_optimizer_is_refused():
    trained = parameters()
    optimizer = make_optimizer("adam", trained, 1e-2, 0.0)
    step(trained, optimizer, 1)
    with pytest.raises(StorageError, match="does not fit"):
        unpack_optimizer(make_optimizer("adamw", trained, 1e-2, 0.1), *pack_optimizer(optimizer))
    with pytest.raises(StorageError, match="does not fit"):
        unpack_optimizer(optimizer, {}, {})


def test_decay_acts_on_matrices_only():
    trained = parameters()
    before = [p.detach().clone() for p in trained]
    optimizer = make_optimizer("adamw", trained, 0.1, 0.5)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(trained[0], before[0] * (1 - 0.1 * 0.5))  # AdamW's decoupled decay
    assert torch.equal(trained[1], before[1])
    assert torch.equal(trained[2], before[2])


def test_sgd_is_nesterov():
    trained, textbook, velocity = parameters(), parameters(), 0.0
    optimizer = make_optimizer("sgd", trained[2:], 0.1, 0.0)
    value = textbook[2].item()
    for _ in range(5):
        trained[2].grad = trained[2].detach().clone()  # the gradient of x^2 / 2
        optimizer.step()
        velocity = 0.9 * velocity + value
        value -= 0.1 * (value + 0.9 * velocity)
    assert trained[2].item() == pytest.approx(value, rel=1e-5)


def test_names_use_the_fused_kernel():
    assert make_optimizer("adamw", parameters(), 1e-3, 0.0).defaults["fused"]


@pytest.mark.parametrize("wrong", [lambda p: None, torch.optim.LBFGS, lambda p: torch.nn.Linear(1, 1)])
def test_no_optimizer(wrong):
    with pytest.raises(ConfigError):
        make_optimizer(wrong, parameters(), 1e-3, 0.0)


def test_unwritable_state_is_refused():
    trained = parameters()
    optimizer = make_optimizer("sgd", trained, 1e-3, 0.0)
    optimizer.state[trained[0]]["closure"] = object()
    with pytest.raises(TrainingError, match="a checkpoint cannot store"):
        pack_optimizer(optimizer)
