"""How much time work that nobody asked for may take."""

from __future__ import annotations

from pushforward.service.spare_time import SpareTime


def test_a_share_of_the_time_and_some_of_a_quiet_time():
    now = [0.0]
    spare = SpareTime(0.2, 2.0, clock=lambda: now[0])
    assert spare.available()
    spare.spend(3.0)  # 1 s more than there is
    now[0] = 4.9
    assert not spare.available()
    now[0] = 5.1
    assert spare.available()
    now[0] = 1e6  # a quiet time
    assert spare.available()
    spare.spend(2.0)
    assert not spare.available()
    spent = 0.0
    for _ in range(1000):  # a busy one, with tasks of 50 ms
        now[0] += 0.1
        if spare.available():
            spare.spend(0.05)
            spent += 0.05
    assert abs(spent - 0.2 * 100) <= 0.05 + 1e-9


def test_one_long_task_is_paid_back_in_bounded_time():
    now = [0.0]
    spare = SpareTime(0.2, 2.0, clock=lambda: now[0])
    spare.spend(1e6)
    now[0] = 10.1
    assert spare.available()
