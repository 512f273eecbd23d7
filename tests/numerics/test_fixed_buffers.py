"""A state dict of a model with another order or mask of the coordinates is refused; PyTorch checks only shapes."""

import copy

import pytest
import torch

from pushforward import distributions, models
from pushforward.transforms import Chain, Coupling, MaskedAutoregressive


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        (lambda: Coupling(4, mask=(0, 1), hidden=(8,)), lambda: Coupling(4, mask=(1, 3), hidden=(8,))),
        (lambda: Coupling(4, hidden=(8,)), lambda: Coupling(4, flip=True, hidden=(8,))),
        (lambda: MaskedAutoregressive(4, hidden=(8,)), lambda: MaskedAutoregressive(4, order="reverse", hidden=(8,))),
    ],
    ids=["mask", "flip", "order"],
)  # fmt: skip
def test_a_state_dict_of_another_order_is_refused(saved, loaded):
    state = saved().state_dict()
    saved().load_state_dict(state)
    with pytest.raises(
        RuntimeError, match="another order or mask of the coordinates: build the model with the arguments"
    ):
        loaded().load_state_dict(state)
    with pytest.raises(RuntimeError, match="another order or mask"):
        loaded().load_state_dict(state, strict=False)


def test_other_shapes_and_missing_buffers_are_left_to_torch():
    state = Coupling(4, hidden=(8,)).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch for kept"):
        Coupling(6, hidden=(8,)).load_state_dict(state)
    del state["kept"]
    Coupling(4, hidden=(8,)).load_state_dict(state, strict=False)


def test_a_model_on_the_meta_device_takes_what_it_is_given():
    flow = models.Flow(Chain(Coupling(4, mask=(0, 3), hidden=(8,))), distributions.Normal(4))
    with torch.device("meta"):
        other = models.Flow(Chain(Coupling(4, hidden=(8,))), distributions.Normal(4))
    other.load_state_dict(copy.deepcopy(flow.state_dict()), assign=True)
    assert next(iter(other.chain)).kept.tolist() == [0, 3]
