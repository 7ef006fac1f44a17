"""A run and its resumable stream in a FastAPI handler.

    uvicorn --app-dir examples fastapi_app:app
    curl -N 'http://127.0.0.1:8000/plan?goal=ship+it'

The page at / follows the run with the browser's own EventSource, which comes back by itself when the connection breaks.
"""

from __future__ import annotations

import anyio
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from agentstream import Agent, Context, Runtime, Team

PAGE = """<!doctype html><meta charset="utf-8"><title>one stream</title><pre id="out"></pre><script>
const out = document.getElementById("out");
const events = new EventSource("plan?goal=ship+it");
events.onmessage = message => {
  const event = JSON.parse(message.data);
  out.textContent += `${event.seq} ${event.inv ?? "run"} ${event.type} ${event.text ?? ""}\\n`;
  if (event.type.startsWith("run.f")) events.close();
};
</script>"""


class Planner(Agent[str, list[str]]):
    """Names the steps, one after the other."""

    role = "planner"

    async def run(self, ctx: Context, task: str) -> list[str]:
        steps = ["write", "test", task]
        for step in steps:
            await ctx.say(step)
            await anyio.sleep(0.05)
        return steps


team = Team("planner", Planner())
runtime = Runtime(teams=[team])
app = FastAPI(lifespan=runtime.lifespan)


@app.get("/")
def page() -> HTMLResponse:
    """A page that follows a run."""
    return HTMLResponse(PAGE)


@app.get("/plan")
async def plan(request: Request, goal: str) -> Response:
    """Start a run and stream it, or go on with the one that `Last-Event-ID` names."""
    return await runtime.respond(request, team, goal)
