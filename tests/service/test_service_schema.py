"""Cases that schemathesis makes from the OpenAPI description: no 5xx, no hang, and answers as described."""

from __future__ import annotations

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (pip install schemathesis).")


@pytest.fixture(scope="module")
def schema(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def run(schema, cases: int) -> tuple[int, list[str]]:
    """So many cases of every operation: their number, and what went wrong."""
    from hypothesis import HealthCheck, Phase, given, settings

    total, problems = 0, []
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.startswith("/v2/repository/models") and operation.method == "post":
            continue  # these unload the models of the other cases; their own test has every role and name

        @given(case=operation.as_strategy())
        @settings(
            max_examples=cases, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
        )  # fmt: skip
        def one(case):
            nonlocal total
            total += 1
            answer = case.call(timeout=20)
            where = f"{case.method} {case.path} {answer.status_code}"
            if answer.status_code >= 500:
                problems.append(f"{where} {case.body!r:.300} {answer.text[:200]}")
            if answer.status_code >= 400 and not isinstance(answer.json().get("error"), str):
                problems.append(f"{where}: the body does not say why")

        one()
    return total, problems


def test_cases_of_every_operation(schema):
    total, problems = run(schema, 15)
    assert total > 150
    assert problems == []


@pytest.mark.slow
def test_ten_thousand_cases(schema):
    total, problems = run(schema, 1200)
    print(f"{total} cases")
    assert total >= 10_000
    assert problems == []
