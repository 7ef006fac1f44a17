"""Code that runs in a sandbox: state from step to step, live output, a file that becomes an artifact, a look outside.

    python examples/sandboxed_code.py

It needs Linux, bubblewrap and `agentstream[exec]`; without them it says what is missing. No model is needed: the steps
are written here. With one, `ctx.generate(question, tools=[code_tool(session)])` would write them.
"""

from __future__ import annotations

from agentstream import Agent, Context, ToolError, run_sync
from agentstream.agent.code import code_tool
from agentstream.agent.code.jupyter import JupyterRunner
from agentstream.events import AnyEvent, ArtifactCreated, ToolFailed, ToolOutput

STEPS = (
    "import statistics\nnumbers = [3, 1, 4, 1, 5, 9, 2, 6]\nprint(len(numbers), 'numbers')",
    "mean = statistics.mean(numbers)\nopen('mean.txt', 'w').write(f'{mean}\\n')\nprint('mean', mean)",
    "open('/etc/passwd').read()",
    "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)",
    "mean * 2",
)


class Programmer(Agent[str, str]):
    """Runs one step after the other; a step that fails is not the end."""

    async def run(self, ctx: Context, task: str) -> str:
        answer = ""
        async with JupyterRunner(warm=0) as runner, runner.session() as session:
            python = code_tool(session)
            for step in STEPS:
                try:
                    answer = await ctx.tool(python, step)
                except ToolError:
                    await ctx.say("that is not allowed")
        return answer


def show(event: AnyEvent) -> None:
    match event:
        case ToolOutput(channel="stdout", text=text):
            print("printed:", text.strip())
        case ToolFailed(message=message):
            print("failed: ", message.strip().splitlines()[-1])
        case ArtifactCreated(name=name, size=size):
            print("kept:   ", name, size, "bytes")
        case _:
            pass


if __name__ == "__main__":
    print("answer: ", run_sync(Programmer(), "the mean, twice", on_event=show))
