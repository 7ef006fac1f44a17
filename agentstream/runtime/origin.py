"""What it takes to start a run again in another process.

What comes in: the arguments of a start. What goes out: a record that travels beside `run.started`, where only recovery
reads it, and from it the same ticket and task again. It does not know what was done since: that is the ledger's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

from agentstream.agent import File, RunOptions, Team
from agentstream.agent.schema import decode
from agentstream.errors import InvalidInput
from agentstream.events import Json
from agentstream.ports import RunRow, Store
from agentstream.runtime.execution import Ticket
from agentstream.runtime.files import uploaded_file

# Any stands for the task and result types of agents that only their users know.
__all__ = ("Handed", "Origin", "read_origin", "restore")


class Handed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that was handed in: the id of its upload, or where it lies on the machine that took the run."""

    name: str
    path: str = ""
    upload: str = ""
    mime: str = ""
    size: int = 0


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run, as it was started.

    Attributes:
        version: the team's. registered: the team was known by name, so that another process can have it, too.
        input: the task's JSON.
    """

    version: str
    input: msgspec.Raw
    registered: bool = False
    files: tuple[Handed, ...] = ()
    options: dict[str, Json] = {}

    @classmethod
    def of(
        cls,
        team: Team[Any, Any],
        input: msgspec.Raw,
        files: Sequence[File],
        options: RunOptions,
        *,
        registered: bool,
    ) -> Origin:
        """The record of a start."""
        handed = tuple(
            Handed(file.name, "" if file.upload else str(file.path), file.upload, file.mime, file.size)
            for file in files
        )
        plain = options.model_dump(mode="json", exclude_defaults=True)
        return cls(team.version, input, registered, handed, plain)


def read_origin(record: bytes) -> Origin | None:
    """The record of a start; None where there is none, or another version's."""
    try:
        return msgspec.json.decode(record, type=Origin) if record else None
    except msgspec.DecodeError:
        return None


async def restore(store: Store, work: Path, row: RunRow, origin: Origin, team: Team[Any, Any]) -> tuple[Ticket, object]:
    """The ticket and the task of a run, as its start had them.

    Raises:
        InvalidInput: a file is not there any more, or the input does not fit the team.
    """
    files = [await _file(store, work, row.facts.owner, handed) for handed in origin.files]
    task = decode(team.agent.types()[0], msgspec.json.decode(origin.input))
    options = RunOptions.model_validate(origin.options)
    ticket = Ticket(
        row.run,
        row.incarnation,
        row.facts.owner,
        row.facts.session,
        files=tuple(files),
        metadata=options.metadata,
        options=options,
    )
    return ticket, task


async def _file(store: Store, work: Path, owner: str, handed: Handed) -> File:
    if handed.upload:
        return await uploaded_file(store, owner, handed.upload, work)
    path = Path(handed.path)
    if not await anyio.Path(path).is_file():
        raise InvalidInput(
            f"the file {handed.name!r} of the run is not on this machine: where runs may move, hand files in as uploads"
        )
    return File(handed.name, path, handed.mime, handed.size)
