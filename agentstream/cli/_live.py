"""How a run looks in a terminal: what is done scrolls up for good, what is under way is redrawn below it.

What comes in: items and lanes of a board. What goes out: coloured output of any width from 40 columns. It does not know
events or files. One accent for each agent, used for nothing else; green, yellow and red only for states.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.segment import Segment
from rich.spinner import Spinner
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from agentstream.cli._board import Board, Item, Lane, rows_of
from agentstream.cli._printer import ending, label

__all__ = ("LivePrinter",)

_ACCENTS: Final = ("dodger_blue1", "medium_orchid", "dark_turquoise", "hot_pink", "slate_blue1", "sandy_brown")
_MOST_CODE: Final = 40
_MOST_OUTPUT: Final = 20
_MOST_ROWS: Final = 12
_MOST_LANES: Final = 4
_MOST_PLAN: Final = 8
_STATES: Final = {"finished": "green", "failed": "red", "stopped": "yellow"}
_STEPS: Final = {
    "pending": ("○", "dim"),
    "active": ("●", "yellow"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("–", "dim"),
}


class _Barred:
    """A renderable with a bar of the agent's colour on its left."""

    def __init__(self, inner: RenderableType, style: str) -> None:
        self._inner = inner
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bar = Segment("▎ ", console.get_style(self._style))
        inside = options.update_width(max(10, options.max_width - 2))
        for line in console.render_lines(self._inner, inside, pad=False):
            yield bar
            yield from line
            yield Segment.line()


class LivePrinter:
    """Draws to a console."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.board = Board()
        self._console = console
        self._clock = clock
        self._began = clock()
        self._accents: dict[str, str] = {}
        self._speaker = ""
        self._spinner = Spinner("dots", style="dim")
        self._notice = ""
        self._live = Live(console=console, auto_refresh=False, transient=True, get_renderable=self._under_way)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def refresh(self) -> None:
        """Draw what is under way."""
        if self._live.is_started:
            self._live.refresh()

    def notice(self, text: str) -> None:
        """Show `text` in the last line, in place of the last notice; empty takes it away. While paused it is a line."""
        if not self._live.is_started:
            self._console.print(Text(text, "yellow"))
            return
        self._notice = text
        self.refresh()

    def pause(self) -> None:
        """Take away what is under way: somebody types."""
        self._live.stop()

    def go_on(self) -> None:
        """Draw it again."""
        self._live.start()

    # --- what stays ---------------------------------------------------------------------------------------------------
    def show(self, item: Item, place: str = "") -> None:
        """Print an item above what is under way."""
        match item.kind:
            case "start":
                self._console.print(Text.assemble((item.title, "bold"), ("  ", ""), (item.text, "")))
            case "end" | "plan" | "step":  # the plan stands below, and at the end
                pass
            case "notice" if not item.agent:
                self._console.print(Text(item.text, "yellow"))
            case _:
                self._said(item, self._body(item, place))
        self.refresh()

    def _said(self, item: Item, body: RenderableType) -> None:
        accent = self._accent(item.agent)
        name = label(item.inv, item.agent)
        if name != self._speaker:
            self._speaker = name
            self._console.print()
            self._console.print(Text(f"● {name}", Style.parse(f"bold {accent}")))
        self._console.print(_Barred(body, accent))

    def _body(self, item: Item, place: str) -> RenderableType:
        match item.kind:
            case "thinking":
                return Text(item.text, "dim italic")
            case "code":
                return _code(item.text, item.title)
            case "call":
                return Text.assemble((item.title, "bold"), f"({item.text})")
            case "output":
                return Text(_cut(item.text, _MOST_OUTPUT), "dim")
            case "errors" | "failure":
                return Text(_cut(item.text, _MOST_OUTPUT), "red")
            case "table":
                return _table(item.text, place or item.title)
            case "file":
                made = item.text or (item.artifact.mime if item.artifact else "file")
                return Text.assemble(("made ", "dim"), place or made)
            case "verdict":
                return _verdict(item)
            case _:
                return Text(item.text)

    def _accent(self, agent: str) -> str:
        return self._accents.setdefault(agent, _ACCENTS[len(self._accents) % len(_ACCENTS)])

    # --- what is under way --------------------------------------------------------------------------------------------
    def _under_way(self) -> RenderableType:
        board = self.board
        if board.terminal is not None:
            return Text("")
        parts: list[RenderableType] = [Text("")]
        if board.plan:
            parts += [_step_line(n, step.title, step.status) for n, step in enumerate(board.plan[:_MOST_PLAN], 1)]
            if len(board.plan) > _MOST_PLAN:
                parts.append(Text(f"    … {len(board.plan) - _MOST_PLAN} more", "dim"))
        lanes = [lane for lane in board.lanes.values() if lane.shown]
        if lanes:
            free = self._console.height - len(parts) - 4
            rows = max(1, min(8, free // min(len(lanes), _MOST_LANES) - 2))
            parts += [self._panel(lane, rows) for lane in lanes[:_MOST_LANES]]
        if len(lanes) > _MOST_LANES:
            others = ", ".join(label(lane.inv, lane.agent) for lane in lanes[_MOST_LANES:])
            parts.append(Text(f"  also at work: {others}", "dim", overflow="ellipsis", no_wrap=True))
        parts.append(self._status())
        return Group(*parts)

    def _panel(self, lane: Lane, rows: int) -> Panel:
        accent = self._accent(lane.agent)
        lines = lane.tail.rstrip().split("\n")[-rows:]
        body = Text("\n".join(lines), "" if lane.tail else "dim", overflow="ellipsis", no_wrap=True)
        title = Text.assemble((label(lane.inv, lane.agent), f"bold {accent}"), (f" · {lane.doing or 'working'}", "dim"))
        title.truncate(max(20, self._console.width - 8), overflow="ellipsis")
        return Panel(body if lane.tail else Text("…", "dim"), title=title, title_align="left", box=ROUNDED,
                     border_style=accent, padding=(0, 1))  # fmt: skip

    def _status(self) -> RenderableType:
        seconds = self._clock() - self._began
        text = self._notice or f"{seconds:.0f} s · {self.board.events:,} events · Ctrl-C stops"
        line = Table.grid(padding=(0, 1))
        line.add_row(self._spinner, Text(text, "yellow" if self._notice else "dim", overflow="ellipsis", no_wrap=True))
        return line

    # --- the end ------------------------------------------------------------------------------------------------------
    def finish(self, files: Sequence[tuple[str, str]], hints: Sequence[tuple[str, str]]) -> None:
        """Print the plan as it ended, the answer, what was kept, and what can be done next."""
        board, console = self.board, self._console
        word, text = ending(board)
        state = _STATES.get(word, "yellow")
        if board.plan:
            console.print()
            console.print(Group(*(_step_line(n, step.title, step.status) for n, step in enumerate(board.plan, 1))))
        console.print()
        title = "Answer" if word == "finished" else f"The run {word}"
        console.print(
            Panel(
                Text(text or "(nothing)"),
                title=Text(title, f"bold {state}"),
                title_align="left",
                box=ROUNDED,
                border_style=state,
                padding=(1, 2),
            )
        )
        seconds = self._clock() - self._began
        facts = [Text.assemble((word, state), f" after {seconds:.1f} s"), Text(f"{board.events:,} events")]
        if board.verdicts[1]:
            facts.append(Text(f"{board.verdicts[0]} of {board.verdicts[1]} checks passed"))
        console.print()
        ended = Text(" · ", "dim").join(facts)
        run = Text(board.run, "dim")
        _facts(console, [*((kind, Text(place)) for kind, place in files), ("run", run), ("", ended)])
        if hints:
            console.print()
            _facts(console, [(what, Text(how)) for what, how in hints])


def _facts(console: Console, rows: Iterable[tuple[str, Text]]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(f"  {name}", value)
    console.print(grid)


def _step_line(number: int, title: str, status: str) -> Text:
    mark, style = _STEPS.get(status, _STEPS["pending"])
    line = Text.assemble((f"  {mark} ", style), (f"{number}. ", "dim"), (title, style if status != "done" else ""))
    line.overflow, line.no_wrap = "ellipsis", True
    return line


def _code(text: str, tool: str) -> RenderableType:
    lines = text.split("\n")
    shown = "\n".join(lines[:_MOST_CODE])
    parts: list[RenderableType] = [Text(tool, "bold dim")]
    parts.append(Syntax(shown, _lexer(tool, text), theme="ansi_dark", background_color="default", word_wrap=True))
    if len(lines) > _MOST_CODE:
        parts.append(Text(f"… {len(lines) - _MOST_CODE} more lines", "dim"))
    return Group(*parts)


def _lexer(tool: str, text: str) -> str:
    if "sql" in tool.lower():
        return "sql"
    return "bash" if text.startswith("#!/bin/") or tool in ("bash", "shell", "sh") else "python"


def _table(text: str, place: str) -> RenderableType:
    rows, total = rows_of(text, _MOST_ROWS + 1)
    if not rows:
        return Text.assemble(("made ", "dim"), place)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for n, name in enumerate(rows[0]):
        numeric = all(_is_number(row[n]) for row in rows[1:] if n < len(row))
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="ellipsis")
    for row in rows[1:]:
        table.add_row(*(Text(cell) for cell in row[: len(rows[0])]))
    more = [Text(f"… {total - len(rows)} more rows", "dim")] if total > len(rows) else []
    return Group(table, *more, Text(place, "dim"))


def _verdict(item: Item) -> RenderableType:
    mark, word, style = ("✓", "accepted", "green") if item.ok else ("✗", "rejected", "red")
    head = Text.assemble((f"{mark} {word}", f"bold {style}"), f"  {item.title}" if item.title else "")
    return Group(head, Padding(Text(item.text, "dim"), (0, 0, 0, 2))) if item.text else head


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return cell in ("", "-")
    return True


def _cut(text: str, most: int) -> str:
    lines = text.split("\n")
    return text if len(lines) <= most else "\n".join([*lines[:most], f"… {len(lines) - most} more lines"])
