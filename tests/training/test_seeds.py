from __future__ import annotations

import random

import numpy as np
import torch

from pushforward.training.seeds import Purpose, mix, preserved, seed_loading, seed_step


def test_seeds_are_distinct_and_valid():
    seeds = [mix(seed, purpose, index) for seed in range(-3, 20) for purpose in Purpose for index in range(100)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    ones = np.mean([bin(seed).count("1") for seed in seeds])
    assert abs(ones - 31.5) < 5 * np.sqrt(63 / 4 / len(seeds))  # each bit is a fair coin


def test_order_and_number_of_parts_matter():
    assert len({mix(1, 2), mix(2, 1), mix(1, 2, 0), mix(0, 1, 2)}) == 4


def test_global_state_is_left_alone():
    def drawn():
        return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002

    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = [drawn(), drawn()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    first = drawn()
    with preserved(torch.device("cpu")):
        seed_loading(5)
        inside = drawn()
        seed_loading(5)
        assert drawn() == inside
        seed_step(7, torch.device("cpu"))
    assert [first, drawn()] == expected
