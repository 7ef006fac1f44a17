"""The error tree: what its docstring draws is what there is, and programs may rely on the codes."""

from __future__ import annotations

import inspect
import re

import pytest

from agentstream import errors
from agentstream.errors import AgentStreamError


def _classes() -> dict[str, type[AgentStreamError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, AgentStreamError)
    }


def _drawn() -> dict[str, str]:
    """Return class → parent, as the docstring's tree shows them."""
    tree: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)(?: |$)", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        del above[depth:]
        tree[found[2]] = above[-1] if above else ""
        above.append(found[2])
    return tree


def test_the_drawn_tree_is_the_tree() -> None:
    """Every class is drawn under its parent, and every drawn class exists."""
    real = {name: cls.__mro__[1].__name__ if cls is not AgentStreamError else "" for name, cls in _classes().items()}
    assert _drawn() == real


def test_the_drawing_names_the_second_parents() -> None:
    """Where a class is also one of Python's own errors, the tree says so."""
    for name, cls in _classes().items():
        also = [base.__name__ for base in cls.__bases__ if not issubclass(base, AgentStreamError)]
        line = next(line for line in (errors.__doc__ or "").splitlines() if re.search(rf"\b{name}\b", line))
        for base in also:
            assert cls is AgentStreamError or f"(also {base})" in line


def test_everything_is_exported_once_in_order() -> None:
    """`__all__` is complete, sorted and without doubles."""
    assert list(errors.__all__) == sorted(_classes())


def test_codes_are_unique_and_stay() -> None:
    """A program may compare codes: each class has its own, in snake_case, and none changes between releases."""
    codes = {name: cls.code for name, cls in _classes().items()}
    assert len(set(codes.values())) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes.values())
    assert {name: codes[name] for name in ("InvalidInput", "EmitAfterEnd", "Fenced", "StreamBroken", "RunGone")} == {
        "InvalidInput": "invalid_input",
        "EmitAfterEnd": "emit_after_end",
        "Fenced": "fenced",
        "StreamBroken": "llm_stream_broken",
        "RunGone": "run_gone",
    }


def test_every_status_is_an_error_of_http() -> None:
    """An edge may answer with `status` as it stands; what may be repeated is no mistake of the caller's."""
    for cls in _classes().values():
        assert 400 <= cls.status <= 599
        assert not (cls.retryable and cls.status in (400, 404, 409, 413, 422))


_MADE = {
    "RunFailedError": lambda: errors.RunFailedError("agent_error", "it broke"),
    "RunStoppedError": lambda: errors.RunStoppedError("user_stop", "enough"),
    "AgentFailedError": lambda: errors.AgentFailedError("executor.2", "agent_error", "it broke"),
}


@pytest.mark.parametrize("name", errors.__all__)
def test_each_can_be_raised_and_shows_its_detail(name: str) -> None:
    """Each is made of one sentence (or of the facts it carries), keeps it as `detail`, and says its class's name."""
    cls = _classes()[name]
    error = _MADE[name]() if name in _MADE else cls("one sentence", details={"a": 1})
    with pytest.raises(cls) as raised:
        raise error
    assert raised.value.detail in str(raised.value)
    assert raised.value.name == name
    if name not in _MADE:
        assert raised.value.details == {"a": 1}


def test_pythons_own_except_clauses_catch_what_they_should() -> None:
    """Who catches ValueError, TypeError or TimeoutError need not know our tree."""
    assert issubclass(errors.InvalidInput, ValueError)
    assert issubclass(errors.InvalidCursor, ValueError)
    assert issubclass(errors.NotSerializable, TypeError)
    assert issubclass(errors.LLMTimeout, TimeoutError)
    assert issubclass(errors.ToolTimeout, TimeoutError)


def test_details_are_a_copy() -> None:
    """What the raiser does with its mapping afterwards changes nothing."""
    facts = {"a": 1}
    error = errors.InvalidInput("no", details=facts)
    facts["a"] = 2
    assert error.details == {"a": 1}


def test_a_models_error_names_its_provider() -> None:
    """The provider, its status and the wait that it asked for travel with the error."""
    error = errors.LLMRateLimited("slow down", provider="openai", http_status=429, retry_after=2.5)
    assert str(error) == "openai: slow down"
    assert (error.provider, error.http_status, error.retry_after, error.retryable) == ("openai", 429, 2.5, True)
