"""A local limit on threads."""

import pytest
from threadpoolctl import threadpool_info

from pushforward.numerics.threads import one_thread


def threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info()]


def test_the_limit_ends_with_the_block() -> None:
    before = threads()
    with one_thread():
        assert set(threads()) <= {1}
    assert threads() == before
    with one_thread(when=False):
        assert threads() == before


def test_the_limit_ends_with_an_error() -> None:
    before = threads()
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert threads() == before
