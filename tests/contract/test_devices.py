"""Every model as if it were on an accelerator: nothing is made on the CPU in between, and no training step waits for the device.

Torch's fake tensors have a device and no numbers. An operation on tensors of two devices raises, and so does a look at a number, for
which the host would have to wait. What they cannot show are the native kernels of a real device, its speed and its rounding.

The device is "meta", as a CPU build of torch cannot differentiate through fake tensors on "cuda"; to the library it is one that is
not the CPU.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch._dynamo  # before functions of torch that it keeps are patched below
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pushforward import distributions, models, numerics, transforms
from pushforward.training.ema import WeightAverage
from pushforward.training.gradients import gradients
from pushforward.training.sources import Batch
from pushforward.transforms import Step

from .cases import MODELS, ModelCase
from .cases.kinds import f
from .tools import ROWS, context_of, data_of, one_of_each_class

DEVICE = torch.device("meta")
LOOKS = (DataDependentOutputException, DynamicOutputShapeException)
SHOWN = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) > (2, 13), reason="torch 2.15 makes such tensors without an error"
)

OPTIONS = [
    f("CNF", "dopri5", lambda: models.CNF(2, hidden=(8,), solver="dopri5")),
    f(
        "CNF",
        "penalties, recompute",
        lambda: models.CNF(2, hidden=(8,), steps=2, kinetic_weight=0.1, jacobian_weight=0.1, recompute=True),
    ),
    f("CNF", "flow matching", lambda: models.CNF(2, hidden=(8,), steps=2, objective="flow-matching")),
    f(
        "CNF",
        "optimal pairing",
        lambda: models.CNF(2, hidden=(8,), steps=2, objective="flow-matching", pairing="optimal"),
    ),
    f(
        "RectangularFlow",
        "probes",
        lambda: models.RectangularFlow(3, 2, volume="probes", layers=1, hidden=(8,), latent_layers=1),
    ),
    f("BernsteinFlow", "dropout", lambda: models.BernsteinFlow(2, layers=1, hidden=(8,), dropout=0.1)),
    f("RealNVP", "reversible", lambda: reversible(models.RealNVP(2, hidden=(8,)))),
]
"""Ways to train that no case of the contract takes."""
CASES = [*MODELS, *OPTIONS]

WAITS_IN_TRAINING = {
    "CNF[dopri5]": "each step of the solver is as long as the error of the one before allows",
    "CNF[optimal pairing]": "noise and data are paired by SciPy",
    "RectangularFlow[probes]": "conjugate gradients end when the residual of every row is small",
    "ResidualFlow[roulette, context]": "how many terms of the series are computed is drawn, and the host computes them",
    "ImageResidualFlow[roulette]": "the same",
}
NO_GRAPH = {
    "CNF[dopri5]": "as in training",
    "Flow[circle]": "von Mises noise is drawn by rejection until every number is accepted",
    "Flow[torus]": "the same",
}
"""Models whose training steps wait for the device, and those that cannot be captured as a CUDA graph, and why.

Iterations that end when a residual is small (decoding ``InvertibleResidual``, roots of monotone functions) read values only outside graphs,
where they end early. The flag that decides the kind of ``CyGen``'s and ``TwoStep``'s likelihoods is looked at by ``evaluate`` and
``log_prob``, which no test here can check: it is not read on "meta"."""


def reversible(model: models.Model) -> models.Model:
    model.chain.set_reversible()
    return model


class Waits(Exception):
    """A copy between host and device."""


class Watch(TorchDispatchMode):
    """Refuses copies between host and device, for which the host waits."""

    COPIES = {
        getattr(torch.ops.aten, name)
        for name in ("_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_", "index_select")
    }

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.ops.aten.exponential_.default:
            kwargs.pop("generator", None)  # its fake kernel takes none
        found = func(*args, **kwargs)
        if func.overloadpacket in self.COPIES:
            devices = {t.device.type for t in tree_leaves((args, kwargs, found)) if isinstance(t, Tensor)}
            if len(devices) > 1 and not kwargs.get("non_blocking"):
                raise Waits(f"{func} between {' and '.join(sorted(devices))}")
        return found


class Generator(torch.Generator):
    """A generator that claims to be on the device, which a CPU build of torch cannot make."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        made.place = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.place


def autocast(kind: str, *options: Any, **more: Any) -> Any:
    """Torch has no autocast on "meta"."""
    return contextlib.nullcontext() if kind == DEVICE.type else AUTOCAST(kind, *options, **more)


AUTOCAST = torch.autocast


def there(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=DEVICE)


def move(model: nn.Module) -> None:
    """The model to the device, as ``to`` would bring it there."""
    moved: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                if id(weight) not in moved:
                    moved[id(weight)] = nn.Parameter(there(weight), weight.requires_grad)
                module._parameters[name] = moved[id(weight)]
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else there(buffer)


@contextmanager
def pretended(*, graph: bool = False) -> Iterator[None]:
    """Inside, tensors are fake, and generators and constants may be on the device.

    Args:
        graph: as while a CUDA graph is captured. Of a search that then cannot end early, two steps show what all would.
    """
    before = torch._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(torch, "autocast", autocast)
        patch.setattr(torch, "is_autocast_enabled", lambda kind: False)
        patch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
        patch.setattr(numerics.tracing, "_constants", Kept())
        if graph:
            patch.setattr(numerics.tracing, "is_capturing", lambda: True)
            patch.setitem(numerics.monotone_root.__kwdefaults__, "steps", 2)
            patch.setitem(inspect.unwrap(numerics.contraction_root).__kwdefaults__, "compiled_steps", 2)
        torch._C._set_only_lift_cpu_tensors(True)  # a tensor of Python's numbers is then a copy to the device, as it is
        try:
            with FakeTensorMode(allow_non_fake_inputs=False), Watch():
                yield
        finally:
            torch._C._set_only_lift_cpu_tensors(before)


class Kept(dict):
    """Constants that the device has already."""

    def get(self, key: Any, default: None = None) -> Tensor:
        values, dtype, _ = key
        return there(torch.tensor(values, dtype=dtype))


def ready(case: ModelCase) -> tuple[models.Model, Tensor, Tensor | None]:
    """The case's model with its state set, and rows and contexts for it."""
    torch.manual_seed(0)
    model = case.make().float()
    x, context = data_of(case, model, dtype=torch.float32), context_of(model, dtype=torch.float32)
    model.initialize(x, context)
    return model, x, context


def train(model: models.Model, x: Tensor, context: Tensor | None = None) -> None:
    """A training step without its optimizer, with everything moved to the device."""
    move(model)
    loss = model.train().loss(there(x), context if context is None else there(context), generator=Generator(DEVICE))
    assert loss.device == DEVICE
    if loss.requires_grad:
        loss.backward()


def use(model: models.Model, x: Tensor, context: Tensor | None = None) -> None:
    """Scores and samples, with everything moved to the device."""
    move(model.eval())
    context = None if context is None else there(context)
    with torch.no_grad():
        assert model(there(x), context).device == DEVICE
    one = None if context is None else context[0]
    assert model.sample(3, one, generator=Generator(DEVICE)).device == DEVICE


def refused(case: ModelCase, known: dict[str, str]) -> Any:
    """What must raise where the case is known to look at numbers."""
    return pytest.raises((*LOOKS, Waits)) if str(case) in known else contextlib.nullcontext()


@pytest.mark.parametrize("case", one_of_each_class(CASES), ids=str)
def test_a_training_step_stays_on_its_device_and_never_waits(case):
    everything = ready(case)
    with pretended(), refused(case, WAITS_IN_TRAINING):
        train(*everything)


@pytest.mark.parametrize("case", one_of_each_class(CASES), ids=str)
def test_scores_and_samples_can_be_captured_as_a_graph(case):
    everything = ready(case)
    with pretended(graph=True), refused(case, NO_GRAPH):
        use(*everything)


@pytest.mark.parametrize("case", {case.name: case for case in CASES}.values(), ids=str)
def test_scores_and_samples_stay_on_their_device(case, monkeypatch):
    """Outside a graph other code runs, up to the first read of a value, which is allowed."""
    everything = ready(case)
    for module in ("base", "validation"):
        monkeypatch.setattr(f"pushforward.models.{module}.may_check_values", lambda *_: False)
    with pretended(), contextlib.suppress(*LOOKS):
        use(*everything)


def test_fit_never_waits_for_a_batch():
    model, x = models.MAF(3, layers=2, hidden=(8,)), torch.randn(ROWS, 3)
    with pretended():
        move(model.train())
        weights = list(model.parameters())
        average, optimizer = WeightAverage(weights, 0.99), torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True)
        for step in (1, 2):
            loss, norm = gradients(
                model, weights, Batch(there(x), None, 0, 0), noise=Generator(DEVICE), clip=1.0, amp=False
            )
            optimizer.step()
            average.update(step)
    assert loss.device == norm.device == DEVICE


def test_the_lists_name_cases():
    assert {*WAITS_IN_TRAINING, *NO_GRAPH} <= {str(case) for case in CASES}


# A transform that is not fit for a device must be caught -----------------------------------------------------------------------


class Shift(transforms.Transform):
    """x + 1, in a way that a test chooses."""

    autoregressive_order = "any"

    def __init__(self, add: Callable[[Tensor], Tensor]) -> None:
        super().__init__(2)
        self.add = add

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Any = None) -> Step:
        return Step(self.add(x), self.zero_log_det(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Any = None) -> Tensor:
        return z


@pytest.mark.parametrize(
    ("add", "error"),
    [
        (lambda x: x + torch.ones(2), FakeTensorDeviceMismatchError),
        (lambda x: x + 1 if x.sum() > 0 else x, LOOKS),
        (lambda x: x[torch.arange(len(x))] + 1, Waits),
        (lambda x: (x.cpu() + 1).to(x.device), Waits),
        pytest.param(lambda x: x + x.new_tensor([1.0, 1.0]), AssertionError, marks=SHOWN),
        pytest.param(lambda x: x + torch.tensor([1.0, 1.0], device=x.device), AssertionError, marks=SHOWN),
    ],
)
def test_operations_that_wait_or_leave_the_device_are_detected(add, error):
    model = models.Flow(transforms.Chain(transforms.Affine(2, trainable=True), Shift(add)), distributions.Normal(2))
    with pretended(), pytest.raises(error):
        train(model, torch.randn(ROWS, 2))


def test_operations_that_stay_on_the_device_pass():
    model = models.Flow(
        transforms.Chain(transforms.Affine(2, trainable=True), Shift(lambda x: x + torch.ones_like(x))),
        distributions.Normal(2),
    )
    with pretended():
        train(model, torch.randn(ROWS, 2))


# What is given up for it -------------------------------------------------------------------------------------------------


def test_values_are_read_only_where_no_step_waits():
    here = torch.zeros(3)
    assert numerics.may_check_values(here)
    assert numerics.may_check_values(here, training=True)
    far = torch.empty(3, device=DEVICE)
    assert numerics.may_check_values(far)
    assert not numerics.may_check_values(far, training=True)


def test_values_are_not_read_while_a_graph_is_captured(monkeypatch):
    assert numerics.is_eager()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not numerics.is_eager()
    assert not numerics.may_check_values(torch.zeros(3))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert numerics.is_eager()


def test_without_reading_values_nan_shows_in_the_loss(monkeypatch):
    for module in ("base", "validation"):
        monkeypatch.setattr(f"pushforward.models.{module}.may_check_values", lambda *_: False)
    model, x = models.MAF(2, hidden=(8,)).train(), torch.randn(ROWS, 2)
    assert torch.isfinite(model.loss(x))
    x[1, 0] = torch.nan
    assert torch.isnan(model.loss(x))
    x[1, 0] = torch.inf
    assert model.loss(x) == torch.inf


def test_without_reading_values_a_failed_inverse_shows_in_the_gradient(monkeypatch):
    monkeypatch.setattr("pushforward.transforms.reversible.may_check_values", lambda *_, **__: False)
    model, x = reversible(models.RealNVP(2, hidden=(8,))), torch.randn(ROWS, 2)
    model.loss(x).backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)
    model.zero_grad()
    monkeypatch.setattr(transforms.Coupling, "invert_with_graph", lambda self, z, context: UNDO(self, z + 1, context))
    model.loss(x).backward()
    assert any(torch.isnan(weight.grad).any() for weight in model.parameters() if weight.grad is not None)


UNDO = transforms.Coupling.invert_with_graph


def test_constants_are_made_once_for_a_device():
    made = numerics.constant((1.0, 2.0), torch.float64, DEVICE)
    assert made is numerics.constant((1.0, 2.0), torch.float64, DEVICE)
    assert (made.device, made.dtype, made.shape) == (DEVICE, torch.float64, (2,))
    here = numerics.constant((1.0, 2.0), torch.float64, torch.device("cpu"))
    assert here is not numerics.constant((1.0, 2.0), torch.float64, torch.device("cpu"))
    assert here.tolist() == [1, 2]
    with FakeTensorMode():  # what a tracer sees is of no use to others
        fake = numerics.constant((3.0,), torch.float64, torch.device("cuda"))
    assert isinstance(fake, FakeTensor)
    assert not any(isinstance(value, FakeTensor) for value in numerics.tracing._constants.values())
