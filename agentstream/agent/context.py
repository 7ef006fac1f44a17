"""The context: what an agent holds while it runs.

What comes in: the verbs of an agent. What goes out: events, calls of other agents, recorded steps, tool calls and model
answers. It does not know how the run is kept, who reads it, or on which loop it runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, overload

import anyio
import anyio.lowlevel
from typing_extensions import TypeVar

from agentstream.agent import asking, generation, tool_calls
from agentstream.agent.asking import Answered
from agentstream.agent.engine import Call, Engine, File, Recalled
from agentstream.agent.keys import Keys, code_version
from agentstream.agent.schema import decode, result_type
from agentstream.bus import Document, Emitter, Keeper, Source
from agentstream.errors import AgentFailedError, AgentStreamError, EmitAfterEnd, InvalidInput, StoreError
from agentstream.events import Json, StepFailed, StepFinished, StepStarted

if TYPE_CHECKING:
    from agentstream.agent.asking import Question
    from agentstream.agent.contract import Agent
    from agentstream.agent.generation import Prompt, Reply
    from agentstream.agent.options import Budget
    from agentstream.agent.tools import Tool
    from agentstream.llm import LLM
    from agentstream.llm.messages import Message

# Any stands for the task and result types of agents that only their users know.
__all__ = ("Context", "safe_failure")

_MOST_HISTORY: Final = 1000

_MAX_MESSAGE: Final = 4000
"""Characters of a failure's message: however long it is, the event that ends an invocation must fit."""

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")
P = ParamSpec("P")


class Context(Emitter):
    """Everything an agent may do. Made by the runtime, one an invocation.

    Attributes:
        keys: gives out the keys of recorded units; library code only.
    """

    def __init__(
        self,
        engine: Engine,
        source: Source,
        agent: Agent[Any, Any],
        *,
        inv: str,
        key: str,
        keeper: Keeper,
        document: Document,
    ) -> None:
        super().__init__(source, agent=agent.name, inv=inv, keeper=keeper, document=document, role=agent.role)
        self._engine = engine
        self._agent = agent
        self.keys = Keys(key)
        self._scope = key

    # --- facts --------------------------------------------------------------------------------------------------------
    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._engine.run_id

    @property
    def session(self) -> str:
        """The session that the run belongs to, or empty."""
        return self._engine.session

    @property
    def owner(self) -> str:
        """Who started the run, or empty."""
        return self._engine.owner

    @property
    def attempt(self) -> int:
        """Which attempt of the run this is, from 1; more than 1 after a takeover."""
        return self._engine.attempt

    @property
    def files(self) -> Sequence[File]:
        """The files handed in with the run."""
        return self._engine.files

    @property
    def metadata(self) -> Mapping[str, Json]:
        """What the starter of the run attached to it."""
        return self._engine.metadata

    @property
    def llm(self) -> LLM:
        """The agent's own model, raw: `async with ctx.llm.stream(request) as stream`. `generate` does more.

        Raises:
            NoModelConfigured: it is not configured.
        """
        return self._engine.model(self._agent.model, self.inv)

    def model(self, name: str = "") -> LLM:
        """A configured model by name; the agent's own without one.

        Raises:
            NoModelConfigured: it is not configured.
        """
        return self._engine.model(name or self._agent.model, self.inv)

    @property
    def agent_tools(self) -> Sequence[Tool[..., Any]]:
        """The tools of the agent's class: what `generate` offers by default."""
        return self._agent.tools

    # --- other agents -------------------------------------------------------------------------------------------------
    async def call(self, agent: Agent[I, O], task: I, *, budget: Budget | None = None) -> O:
        """Run another agent and wait for its result.

        Args:
            budget: what it and everything that it calls may spend on models, as a part of what this agent may.

        Raises:
            AgentFailedError: it failed; catch it to go on without. `failure` is `budget` where its budget was used up.
        """
        key = self._key(agent, task)
        await self._source.settle()
        return await self._engine.call(self, agent, task, key, budget)

    async def start(self, agent: Agent[I, O], task: I) -> Call[O]:
        """Start another agent beside this one. What is still open when this agent returns is awaited."""
        key = self._key(agent, task)
        await self._source.settle()
        return await self._engine.begin(self, agent, task, key)

    async def map(self, agent: Agent[I, O], tasks: Iterable[I], *, limit: int | None = None) -> list[O]:
        """Run `agent` on every task at once, at most `limit` at a time; results in the order of the tasks.

        Raises:
            AgentFailedError: the first that failed; the others are stopped. InvalidInput: a limit below 1.
        """
        if limit is not None and limit < 1:
            raise InvalidInput("limit is how many run at once, at least 1; without it all do")
        todo = list(tasks)
        # Keys are given out in the order of the tasks, before anything runs: arrival must not decide.
        keys = [self._key(agent, task) for task in todo]
        await self._source.settle()
        results: dict[int, O] = {}
        failures: list[Exception] = []
        limiter = anyio.CapacityLimiter(limit if limit is not None else max(1, len(todo)))

        async def one(index: int) -> None:
            async with limiter:
                try:
                    results[index] = await self._engine.call(self, agent, todo[index], keys[index])
                except Exception as error:  # noqa: BLE001  (the first goes on to the caller, below)
                    failures.append(error)
                    group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for index in range(len(todo)):
                group.start_soon(one, index)
        if failures:
            raise failures[0]
        return [results[index] for index in range(len(todo))]

    def _key(self, agent: Agent[Any, Any], task: object) -> str:
        if not isinstance(getattr(agent, "name", None), str):
            wrong = type(agent).__name__
            raise InvalidInput(f"an agent is expected, not {wrong}; make one of a function with as_agent")
        return self.keys.current.next(agent.name, task)

    # --- recorded work ------------------------------------------------------------------------------------------------
    @overload
    async def step(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        *args: object,
        key: str | None = None,
        version: str | None = None,
    ) -> T: ...
    @overload
    async def step(
        self, name: str, fn: Callable[..., T], *args: object, key: str | None = None, version: str | None = None
    ) -> T: ...
    async def step(
        self,
        name: str,
        fn: Callable[..., object],
        *args: object,
        key: str | None = None,
        version: str | None = None,
    ) -> object:
        """Run `fn(*args)` as a recorded unit: after a crash a finished step is not executed again.

        Args:
            fn: a coroutine function, or a plain function that does not block (it runs on the loop; use a tool for one
                that blocks). Its result must be something that JSON can hold.
            key: identifies the step instead of its name and arguments.
            version: identifies the code instead of a digest of it.

        Raises:
            NotSerializable: the result cannot be recorded.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()  # an agent that is stopped begins no further step
        step_key = key or self.keys.current.next(name, list(args))
        version = version or code_version(fn)
        past = await self.recall("step", step_key, version)
        if past.done:
            return decode(result_type(fn), past.value)
        step = self.new_id()
        self._engine.step_began()
        try:
            await self.emit(StepStarted(step, name=name, key=step_key, version=version, attempt=past.attempt))
            await self.flush()  # accepted before the function runs: each attempt is visible before it acts (P11)
            with self._engine.step_clock(name), self.keys.within(step_key):
                result = fn(*args)
                if inspect.isawaitable(result):
                    result = await result
            await self.record(StepFinished(step), result)
            await self.flush()
        except (StoreError, EmitAfterEnd):  # the log takes nothing more
            raise
        except Exception as error:
            code, message = safe_failure(error)
            await self.emit(StepFailed(step, code=code, message=message))
            raise
        finally:
            self.close_one(step)  # if it still is open: its caller was cancelled
            self._engine.step_ended()
        return result

    async def recall(self, kind: Literal["agent", "step", "tool", "ask"], key: str, version: str) -> Recalled:
        """What an earlier attempt of the run recorded of a unit of this invocation; library code only.

        Raises:
            StepChanged: it was recorded by another version of the code.
        """
        return await self._engine.recall(kind, self._scope, key, version)

    async def tool(self, tool: Tool[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a tool: validated, timed, shown in the stream and recorded.

        Raises:
            ToolError: the tool failed; `ToolTimeout` where it took too long. InvalidInput: the arguments do not fit.
        """
        return await tool_calls.call_tool(self, tool, args, kwargs)

    # --- people -------------------------------------------------------------------------------------------------------
    @overload
    async def ask(self, prompt: str, *, expires: float | None = None) -> str: ...
    @overload
    async def ask(self, prompt: str, schema: type[T], *, expires: float | None = None) -> T: ...
    async def ask(self, prompt: str, schema: type[Any] = str, *, expires: float | None = None) -> Any:
        """Ask a person and wait for the answer. While it waits the agent takes no place and the run's clocks stand.

        Args:
            schema: the type of the answer: a pydantic model, dataclass, TypedDict or built-in type; text without it.
            expires: seconds after which the question is closed; without it the question stays open as long as the run.

        Raises:
            InputExpiredError: nobody answered in time. InvalidInput: an empty prompt, or a type without a JSON schema.
        """
        return await asking.ask(self, prompt, schema, expires)

    async def put_question(self, question: Question) -> Answered:
        """Ask a person; library code only: `ask` knows types, and tools ask for leave by themselves."""
        past = await self.recall("ask", question.key, "")
        if past.done:
            return Answered(past.value)
        await self._source.settle()
        return await self._engine.ask(self, question)

    async def allow(self, tool: str, call: str, arguments: Json, key: str) -> None:
        """Ask a person for leave to make a tool call; library code only.

        Raises:
            ToolDeniedError: it was not given.
        """
        await asking.allow(self, tool, call, arguments, key)

    async def history(self, limit: int = 50) -> list[Message]:
        """What was said in the session before this run: the inputs and final outputs of its earlier runs, oldest first.

        Args:
            limit: the most messages, 1 to 1,000: the newest ones. Each is cut after 32,000 characters.

        Raises:
            InvalidInput: another limit. StoreDown: the store does not answer.
        """
        if not 1 <= limit <= _MOST_HISTORY:
            raise InvalidInput(f"limit is a number of messages from 1 to {_MOST_HISTORY:,}")
        return await self._engine.history(limit)

    # --- models -------------------------------------------------------------------------------------------------------
    @overload
    async def generate(
        self, prompt: Prompt, *, tools: Sequence[Tool[..., Any]] | None = None, model: str | None = None
    ) -> Reply[str]: ...
    @overload
    async def generate(
        self,
        prompt: Prompt,
        *,
        output: type[T],
        tools: Sequence[Tool[..., Any]] | None = None,
        model: str | None = None,
    ) -> Reply[T]: ...
    async def generate(
        self,
        prompt: Prompt,
        *,
        output: type[Any] | None = None,
        tools: Sequence[Tool[..., Any]] | None = None,
        model: str | None = None,
    ) -> Reply[Any]:
        """Ask the model: streams its answer as events, runs the tools it calls, and retries with marks.

        Args:
            prompt: text, or the messages of a conversation.
            output: the type of the answer; it is validated, and repaired at most twice.
            tools: what the model may call; the agent's own by default.
            model: a configured model's name; the agent's own by default.

        Raises:
            LLMError: no answer. LLMValidationError: no answer of that type. NoModelConfigured: no such model.
        """
        reply = await generation.generate(self, prompt, output=output, tools=tools, model=model)
        self._engine.spent(reply.usage)
        return reply


def safe_failure(error: BaseException) -> tuple[str, str]:
    """The code and the message of a failure as everybody may see it: our own errors say what they say, of a user's
    exception only the class is told; the rest is in the process's log."""
    if isinstance(error, AgentFailedError):
        return error.failure, str(error.message)[:_MAX_MESSAGE]
    if isinstance(error, AgentStreamError):
        return error.code, str(error.detail)[:_MAX_MESSAGE]
    return "agent_error", f"{type(error).__name__} was raised; the log of the process has the cause"
