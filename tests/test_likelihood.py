"""Kinds, measures and likelihoods: the join table, every error, and units."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from pushforward.errors import KindError, PushforwardError
from pushforward.likelihood import (
    REAL,
    UNIT,
    Counting,
    Extended,
    Kind,
    Lebesgue,
    LogLik,
    Manifold,
    Measure,
    Mixed,
    Support,
    join,
    require_log_prob,
)

E, U, L, P, S, N = Kind  # exact, unbiased, lower, upper, estimate, unnormalized

# Written out by hand: the weakest statement that both terms imply for their sum.
JOIN = [
    # E  U  L  P  S  N
    [E, U, L, P, S, N],  # EXACT: neutral
    [U, U, L, P, S, N],  # UNBIASED
    [L, L, L, S, S, N],  # LOWER_BOUND: with UPPER_BOUND nothing is left
    [P, P, S, P, S, N],  # UPPER_BOUND
    [S, S, S, S, S, N],  # ESTIMATE
    [N, N, N, N, N, N],  # UNNORMALIZED: absorbs
]


def loglik(value=(-1.0, -2.0), kind=E, measure: Measure | None = None, **more) -> LogLik:
    return LogLik(torch.tensor(value, dtype=torch.float64), kind, measure or Lebesgue(2), **more)


@pytest.mark.parametrize(("row", "column"), list(itertools.product(range(6), range(6))))
def test_join_table(row, column):
    kinds = list(Kind)
    assert (kinds[row] | kinds[column]) is JOIN[row][column]


def test_join_is_a_semilattice():
    for a, b, c in itertools.product(Kind, repeat=3):
        assert a | b is b | a
        assert (a | b) | c is a | (b | c)
        assert a | a is a


def test_join_of_many():
    assert join() is E
    assert join(E, U, L) is L
    assert join(L, E, P) is S
    assert join(L, N, P) is N


def test_measures_are_values():
    assert Lebesgue(3) == Lebesgue(3)
    assert hash(Lebesgue(3)) == hash(Lebesgue(3))
    assert Lebesgue(3) != Counting(3)
    assert Lebesgue(3) != Lebesgue(2)
    assert Manifold(2, 3) != Manifold(2, 4)
    assert Mixed(0, 3) == Counting(3)
    assert Mixed(3, 0) == Lebesgue(3)
    assert Mixed(1, 2) != Mixed(2, 1)
    assert Manifold(2, 3) != Extended(2, 3)


@pytest.mark.parametrize(
    ("measure", "text"),
    [
        (Lebesgue(3), "Lebesgue(3)"),
        (Counting(784), "Counting(784)"),
        (Mixed(1, 2), "Mixed(1 continuous, 2 counted)"),
        (Manifold(2, 3), "Manifold(2, 3)"),
        (Extended(5, 3), "Extended(5, 3)"),
    ],
)
def test_measures_as_text(measure, text):
    assert str(measure) == text


def test_supports():
    assert str(REAL) == "the reals"
    assert str(Support(0, math.inf)) == "(0, inf)"
    x = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.1])
    assert UNIT.contains(x).tolist() == [False, True, True, True, False]
    assert REAL.contains(torch.tensor([-math.inf, math.inf])).all()
    increasing = Support(within="increasing")
    assert increasing.contains(torch.tensor([0.0, 0.5, 0.5, 0.4, 2.0])).tolist() == [True, True, True, False, True]
    assert UNIT.covers(Support(0.2, 0.7))
    assert not UNIT.covers(Support(0.5, 2.0))
    assert not UNIT.covers(Support(-1.0, 0.5))
    assert UNIT.covers(Support(0, 1, "increasing"))
    assert not Support(0, 1, "increasing").covers(UNIT)
    # The name says which transforms are right there; the measure is that of any manifold of this dimension.
    assert Manifold(2, 3, "sphere") == Manifold(2, 3)


class TestUnits:
    def test_uniform_bytes_have_eight_bits(self):
        # p = 256^-D over D bytes
        value = torch.full((3,), -784 * math.log(256.0), dtype=torch.float64)
        bits = LogLik(value, E, Counting(784)).bits_per_dim()
        torch.testing.assert_close(bits, torch.full((3,), 8.0, dtype=torch.float64), rtol=1e-14, atol=0)

    def test_a_fair_coin_has_one_bit(self):
        assert loglik([math.log(0.5)], measure=Counting(1)).bits_per_dim().item() == pytest.approx(1.0, abs=1e-15)

    @pytest.mark.parametrize("kind", [E, U, L])
    def test_bits_of_discrete_data(self, kind):
        got = loglik([-2 * math.log(2.0)], kind, Counting(2)).bits_per_dim()
        assert got.item() == pytest.approx(1.0, abs=1e-15)

    @pytest.mark.parametrize("kind", [P, S, N])
    def test_bits_refuse_weak_kinds(self, kind):
        with pytest.raises(KindError, match=kind.value):
            loglik(kind=kind, measure=Counting(2)).bits_per_dim()

    @pytest.mark.parametrize("measure", [Lebesgue(2), Mixed(1, 1)])
    def test_bits_refuse_densities(self, measure):
        with pytest.raises(KindError, match="nats_per_dim"):
            loglik(measure=measure).bits_per_dim()

    @pytest.mark.parametrize("measure", [Manifold(1, 2), Extended(3, 2)])
    def test_bits_refuse_other_spaces(self, measure):
        with pytest.raises(KindError, match="residual"):
            loglik(measure=measure).bits_per_dim()

    @pytest.mark.parametrize("kind", [E, U, L, P, S])
    @pytest.mark.parametrize("measure", [Lebesgue(2), Counting(2), Mixed(1, 1)])
    def test_nats_per_dim(self, kind, measure):
        assert loglik([-3.0], kind, measure).nats_per_dim().item() == 1.5

    @pytest.mark.parametrize(("kind", "measure"), [(E, Manifold(1, 2)), (E, Extended(3, 2)), (N, Lebesgue(2))])
    def test_nats_refuse(self, kind, measure):
        with pytest.raises(KindError, match="value"):
            loglik(kind=kind, measure=measure).nats_per_dim()


class TestDifference:
    @pytest.mark.parametrize(("a", "b"), [*itertools.product([E, U, L, P, S], repeat=2), (N, N)])
    def test_on_one_measure(self, a, b):
        assert (loglik([3.0], a) - loglik([1.0], b)).tolist() == [2.0]

    @pytest.mark.parametrize(
        ("a", "b"),
        [
            (Lebesgue(2), Counting(2)),
            (Lebesgue(2), Lebesgue(3)),
            (Lebesgue(2), Mixed(1, 1)),
            (Manifold(1, 2), Lebesgue(2)),
            (Manifold(1, 2), Manifold(1, 3)),
            (Extended(3, 2), Lebesgue(3)),
        ],
    )
    def test_refused_across_measures(self, a, b):
        with pytest.raises(KindError, match="units") as caught:
            loglik(measure=a) - loglik(measure=b)
        assert str(a) in str(caught.value)
        assert str(b) in str(caught.value)

    @pytest.mark.parametrize("other", [E, U, L, P, S])
    def test_refused_against_unnormalized(self, other):
        with pytest.raises(KindError, match="unknown constant"):
            loglik(kind=N) - loglik(kind=other)
        with pytest.raises(KindError, match="unknown constant"):
            loglik(kind=other) - loglik(kind=N)

    def test_with_anything_else_is_a_type_error(self):
        with pytest.raises(TypeError):
            loglik() - 1.0
        with pytest.raises(TypeError):
            loglik() - torch.zeros(2)


class TestLogProb:
    @pytest.mark.parametrize("measure", [Lebesgue(2), Counting(2), Mixed(1, 1)])
    def test_allowed(self, measure):
        assert loglik([1.0], E, measure).require_log_prob().tolist() == [1.0]

    @pytest.mark.parametrize("kind", [U, L, P, S, N])
    def test_refused_unless_exact(self, kind):
        with pytest.raises(KindError, match=r"evaluate\(x\)") as caught:
            require_log_prob(kind, Lebesgue(2))
        assert kind.value in str(caught.value)

    @pytest.mark.parametrize("measure", [Manifold(1, 2), Extended(3, 2)])
    def test_refused_off_the_data_space(self, measure):
        with pytest.raises(KindError, match=r"evaluate\(x\)") as caught:
            loglik(measure=measure).require_log_prob()
        assert str(measure) in str(caught.value)

    def test_kind_errors_are_type_errors(self):
        assert issubclass(KindError, TypeError)
        assert issubclass(KindError, PushforwardError)


class TestLogLik:
    def test_repr(self):
        assert repr(loglik()) == "LogLik(an exact value on Lebesgue(2), shape (2,), mean -1.5 nats)"
        assert "a lower bound value" in repr(loglik(kind=L))
        assert "an unbiased" in repr(loglik(kind=U))

    def test_repr_of_an_empty_batch(self):
        assert "shape (0,)" in repr(LogLik(torch.zeros(0), E, Lebesgue(1)))

    def test_frozen(self):
        with pytest.raises(AttributeError):
            loglik().value = torch.zeros(2)  # type: ignore[misc]

    def test_terms_default_to_none_and_cannot_be_written(self):
        with pytest.raises(TypeError):
            loglik().terms["a"] = torch.zeros(2)  # type: ignore[index]
