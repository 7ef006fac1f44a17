"""Logs to read from: lines as the bus lays them out, and a run in a memory store that a test writes step by step.

Comes in: what an agent did, in short calls. Goes out: lines, chunks and a `Writer`.
It deliberately does not know the bus: the layout of a line is written out here once more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from agentstream.ports import Chunk, RunFacts, Tail
from agentstream.store import MemoryStore

RUN = "Run0000000000000000001"
AT = 1_789_000_000_000
TERMINALS = {"run.finished": "finished", "run.failed": "failed", "run.stopped": "stopped"}


class Script:
    """Collects numbered lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._agent_seq: dict[str, int] = {}

    def add(self, kind: str, inv: str = "", **fields: Any) -> Script:
        """Add one event; `inv` empty makes it run-level."""
        seq = len(self.lines) + 1
        envelope: dict[str, Any] = {"seq": seq, "at": AT + seq, "type": kind}
        if inv:
            self._agent_seq[inv] = self._agent_seq.get(inv, 0) + 1
            envelope |= {"agent": inv.rpartition(".")[0], "inv": inv, "agent_seq": self._agent_seq[inv]}
        self.lines.append(json.dumps(envelope | fields, ensure_ascii=False, separators=(",", ":")).encode())
        return self

    def text(self, inv: str, *texts: str, block: str = "") -> Script:
        """Add text deltas of one block."""
        for text in texts:
            self.add("text.delta", inv, block=block or f"{inv}.1", text=text)
        return self


def small_run() -> list[bytes]:
    """Three agents, text of several bytes a character, tools, and a terminal: about twenty events."""
    script = Script().add("run.started", run=RUN, team="t", input="q")
    for agent in ("planner", "executor", "verifier"):
        script.add("agent.started", f"{agent}.1", role=agent).add("text.started", f"{agent}.1", block=f"{agent}.1.1")
    script.text("planner.1", "Größe ", "日本", "語 🙂")
    script.text("executor.1", 'say "hi"\n', "\u2028x").text("planner.1", " end").text("executor.1", "\r\n\\", "z")
    script.add("tool.output", "executor.1", call="executor.1.2", channel="stdout", text="1")
    script.add("tool.output", "executor.1", call="executor.1.2", channel="stdout", text="2")
    for agent in ("planner", "executor", "verifier"):
        script.add("text.finished", f"{agent}.1", block=f"{agent}.1.1").add("agent.finished", f"{agent}.1", result=None)
    return script.add("run.finished", output={"ok": True}).lines


def chunks_of(lines: Sequence[bytes], sizes: Iterable[int]) -> list[Chunk]:
    """The lines as chunks of these sizes; what is left over is one chunk more."""
    chunks: list[Chunk] = []
    done = 0
    for size in (*sizes, len(lines)):
        part = lines[done : done + size]
        if part:
            kind = json.loads(part[-1])["type"]
            body = b"".join(line + b"\n" for line in part)
            chunks.append(Chunk(done + 1, done + len(part), body, ends=TERMINALS.get(kind, "")))
            done += len(part)
    return chunks


class Writer:
    """Writes prepared chunks of one run into a store."""

    def __init__(self, store: MemoryStore, chunks: Sequence[Chunk], run: str = RUN) -> None:
        self.store = store
        self.run = run
        self.left = list(chunks)
        self.incarnation = ""
        self._epoch = 0

    async def write(self, count: int | None = None) -> None:
        """Append the next `count` chunks, or all."""
        for _ in range(len(self.left) if count is None else count):
            chunk = self.left.pop(0)
            if chunk.first == 1:
                created = await self.store.create(self.run, "", "", chunk, facts=RunFacts(team="t"))
                self.incarnation = created.incarnation
                if not chunk.ends:
                    lease = await self.store.take(self.run, "writer")
                    assert lease is not None
                    self._epoch = lease.epoch
            else:
                await self.store.append(self.run, self._epoch, chunk.first - 1, chunk)

    def cursor(self, seq: int) -> str:
        """The id of event `seq`."""
        return f"{self.run}.{self.incarnation}.{seq}"


class LossyLog:
    """A log that can be replaced or cut under its readers, as a store after a power loss or a restore."""

    def __init__(self, chunks: Sequence[Chunk], incarnation: str = "aaaaaa") -> None:
        self.chunks = list(chunks)
        self.incarnation = incarnation
        self.ended = bool(chunks and chunks[-1].ends)

    async def read(self, run: str, after: int, *, max_bytes: int = 262_144) -> list[Chunk]:
        """One chunk at a time."""
        return [chunk for chunk in self.chunks if chunk.last > after][:1]

    async def tail(self, run: str) -> Tail:
        """Where it stands now."""
        first = self.chunks[0].first if self.chunks else 1
        return Tail(self.incarnation, 1, first, self.chunks[-1].last if self.chunks else 0, self.ended)

    async def changed(self, run: str, after: int) -> None:
        """Nobody waits here: a test changes the log between two reads."""
        raise AssertionError("the reader waits although the log has ended or changed")
