"""Errors as problem documents."""

from __future__ import annotations

import json

import pytest

from agentstream import errors
from agentstream.answer import ProblemAnswer, problem_of
from answer.asking import ask

pytestmark = pytest.mark.anyio

ALL = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.promise("W-problem")
def test_every_error_has_a_document() -> None:
    """Status and code of each error class are in its document, and codes differ."""
    made = [
        error for error in ALL if error not in (errors.RunFailedError, errors.RunStoppedError, errors.AgentFailedError)
    ]
    for error in made:
        problem = problem_of(error("what to do"))
        assert (problem.status, problem.code, problem.detail) == (error.status, error.code, "what to do")
        assert problem.type == f"urn:agentstream:problem:{error.code}"
        assert 400 <= problem.status < 600
    assert len({error.code for error in ALL}) == len(ALL)


@pytest.mark.promise("W-problem")
async def test_answer() -> None:
    """The answer is problem+json with details and further headers; HEAD gets the same without its body."""
    error = errors.InvalidInput("no", details={"parameter": "x"})
    got = await ask(ProblemAnswer(error, [(b"allow", b"GET")]))
    assert json.loads(got.body) == {
        "type": "urn:agentstream:problem:invalid_input",
        "title": "Invalid input",
        "status": 422,
        "code": "invalid_input",
        "detail": "no",
        "details": {"parameter": "x"},
    }
    assert got.headers["content-type"] == "application/problem+json"
    assert got.headers["allow"] == "GET"
    assert got.clean
    head = await ask(ProblemAnswer(error), method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (422, b"", got.headers["content-length"])


@pytest.mark.promise("W-problem")
async def test_foreign_errors_say_nothing() -> None:
    """Of an error that is not ours neither text, type nor traceback is shown; what may be tried again says when."""
    got = await ask(ProblemAnswer(ValueError("sk-secret")))
    assert got.status == 500
    assert b"sk-secret" not in got.body
    assert b"ValueError" not in got.body
    assert json.loads(got.body)["code"] == "internal"
    again = await ask(ProblemAnswer(errors.Overloaded("full", details={"odd": object()})))
    assert (again.status, again.headers["retry-after"]) == (503, "2")
    assert "details" not in json.loads(again.body)
