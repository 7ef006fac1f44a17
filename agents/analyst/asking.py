"""How the analyst's roles reach a model, and the file that they work on.

What comes in: a context. What goes out: the configured language model or the rules in its place, answers from it, and
the run's data file. It does not know what is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, cast

import msgspec

from agentstream.agent import Context, File
from agentstream.agent.generation import GenerationHost, generate
from agentstream.errors import InvalidInput, NoModelConfigured
from agentstream.events import Json
from agentstream.llm import LLM, Message

from .offline import OfflineModel

__all__ = ("ask", "data_file", "messages", "model_of", "prompt")

T = TypeVar("T")

_PROMPTS = Path(__file__).with_name("prompts")


def prompt(name: str) -> str:
    """The text of one of the prompts beside this file."""
    return (_PROMPTS / f"{name}.md").read_text(encoding="utf-8")


def model_of(ctx: Context, *, rules: bool) -> LLM:
    """The model that the agent is to use: the configured one; the rules where there is none, or they were asked for."""
    if rules:
        return OfflineModel()
    try:
        return ctx.llm
    except NoModelConfigured:
        return OfflineModel()


def data_file(ctx: Context) -> File:
    """The one file of the run.

    Raises:
        InvalidInput: there is none, or there are several.
    """
    if len(ctx.files) != 1:
        given = "no file was" if not ctx.files else f"{len(ctx.files)} files were"
        raise InvalidInput(f"the analyst works on one CSV file, and {given} handed in: name one with --file")
    return ctx.files[0]


def messages(role: str, asked: dict[str, Json]) -> tuple[Message, ...]:
    """A role's prompt, and what it is asked as JSON: the same for every model."""
    return (Message("system", prompt(role)), Message("user", msgspec.json.encode(asked).decode()))


async def ask(ctx: Context, llm: LLM, conversation: tuple[Message, ...], output: type[T]) -> T:
    """The model's answer as `output`: streamed, recorded, tried and repaired as by `ctx.generate`.

    Raises:
        LLMError: no answer, or none of this type.
    """
    reply = await generate(cast("GenerationHost", _Host(ctx, llm)), conversation, output=output, tools=())
    return reply.output


class _Host:
    """The context, but with a model that is not configured by name."""

    def __init__(self, ctx: Context, llm: LLM) -> None:
        self._ctx = ctx
        self._llm = llm

    def model(self, name: str = "") -> LLM:  # noqa: ARG002  # there is only this one
        """The model."""
        return self._llm

    def __getattr__(self, name: str) -> object:
        return getattr(self._ctx, name)
