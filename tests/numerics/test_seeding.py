"""Seeds for a block: the global generators have the caller's state again at its end, those of CUDA too."""

import pytest
import torch

from pushforward.numerics import seeded


def test_the_numbers_follow_from_the_seed_and_the_state_is_the_callers_again():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with pytest.raises(KeyError), seeded(1):
        assert torch.equal(torch.rand(3), first)
        raise KeyError
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """CUDA as PyTorch calls it: the seeds that it is given, and the state of its one device."""
    found: dict[str, object] = {"seeds": [], "state": torch.tensor([1])}

    def seed_all(seed: int) -> None:
        found["seeds"].append(seed)  # pyright: ignore[reportAttributeAccessIssue]
        found["state"] = torch.tensor([seed])

    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: found["state"])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: found.update(state=state))
    return found


def test_devices_that_have_not_started_start_with_the_seed_of_the_caller(
    cuda: dict[str, object], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    torch.manual_seed(123)
    with seeded(7):
        assert cuda["seeds"] == [123, 7]
    assert cuda["seeds"] == [123, 7, 123]


def test_devices_that_have_started_have_their_state_again(cuda: dict[str, object], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with seeded(7):
        assert cuda["state"] == torch.tensor([7])
    assert cuda["state"] == torch.tensor([1])
    assert cuda["seeds"] == [7]
