"""Files handed in with a run.

What comes in: paths, or ids of uploads. What goes out: `File`s whose path is readable on this machine. It does not know
what is in a file. A name from outside never becomes a path: uploads lie under names of ours.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import anyio

from agentstream.agent import File
from agentstream.errors import BodyTooLarge, InvalidInput
from agentstream.ports import UPLOADS, Store

__all__ = ("clean_name", "keep_upload", "local_file", "local_files", "uploaded_file")

_MAX_NAME = 128


def clean_name(name: str) -> str:
    """The last part of a path from outside, without control characters; `file` if nothing is left."""
    last = PurePosixPath(PureWindowsPath(name).as_posix()).name
    return "".join(char for char in last if char.isprintable())[-_MAX_NAME:] or "file"


def local_file(path: str | Path) -> File:
    """A file of this machine, as it is.

    Raises:
        InvalidInput: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"there is no file {path.name!r}: give the path of a file", details={"file": path.name})
    return File(path.name, path.resolve(), _mime(path.name), path.stat().st_size)


async def keep_upload(store: Store, owner: str, name: str, data: bytes, mime: str, limit: int) -> str:
    """Keep uploaded bytes; returns the id to pass in `files`.

    Raises:
        BodyTooLarge: above `limit` bytes. InvalidInput: no bytes at all.
    """
    if len(data) > limit:
        raise BodyTooLarge(f"the file has {len(data):,} bytes; at most {limit:,} are taken")
    if not data:
        raise InvalidInput("the file is empty")
    name = clean_name(name)
    return await store.put(UPLOADS + owner, data, mime or _mime(name), name=name)


async def uploaded_file(store: Store, owner: str, id_: str, folder: Path) -> File:
    """An upload, written below `folder` where agents can read it.

    Raises:
        InvalidInput: there is no such upload.
    """
    blob = await store.get(UPLOADS + owner, id_)
    if blob is None:
        shown = id_[:64]
        raise InvalidInput(f"there is no uploaded file {shown!r}: upload it with POST /files", details={"file": shown})
    suffix = PurePosixPath(blob.name).suffix[:16]
    path = anyio.Path(folder / f"{blob.id}{suffix if suffix.isascii() and suffix[1:].isalnum() else ''}")
    if not await path.exists():
        await path.write_bytes(blob.data)
    return File(blob.name, Path(path), blob.mime, len(blob.data), upload=id_)


def local_files(paths: Sequence[str | Path | File]) -> list[File]:
    """Every path as a `File`."""
    return [path if isinstance(path, File) else local_file(path) for path in paths]


def _mime(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
