"""Artifacts, put where people can open them.

What comes in: `artifact.created` events and the bytes that belong to them. What goes out: files in a folder of the
run, and their paths. It does not know how the bytes are fetched. A name from a run never becomes more than the last
part of a path, and nothing that was there is written over.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import tempfile
from pathlib import Path
from typing import Final

from agentstream.errors import InvalidInput
from agentstream.events import ArtifactCreated
from agentstream.runtime.files import clean_name

__all__ = ("Folder", "data_in")

DEFAULT: Final = "artifacts"
_MOST_SAME: Final = 1000


def data_in(artifact: ArtifactCreated) -> bytes | None:
    """The bytes that the event itself carries (text as it is, others in base64), or None."""
    if artifact.data is None:
        return None
    text = artifact.data.encode()
    if len(text) == artifact.size:
        return text
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return text


class Folder:
    """Where a run's artifacts go; made when the first one comes.

    Args:
        given: the folder to use; None: `artifacts/<run>` below the current one, or a temporary one where that may not
            be written.
    """

    def __init__(self, given: Path | None, run: str) -> None:
        self._given = given
        self._run = run
        self._path: Path | None = None
        self.files: list[tuple[str, Path]] = []

    def keep(self, artifact: ArtifactCreated, data: bytes) -> Path:
        """Write a file; its path, from the current folder where it lies below it.

        Raises:
            InvalidInput: the folder cannot be written.
        """
        name = (
            clean_name(artifact.name) if artifact.name else f"artifact{mimetypes.guess_extension(artifact.mime) or ''}"
        )
        try:
            self._path = self._path or self._make()
            path = _free(self._path / name.lstrip("."))
            path.write_bytes(data)
        except OSError as error:
            raise InvalidInput(
                f"artifacts cannot be written to {self._path or self._given}: {error.strerror}"
            ) from error
        self.files.append((_kind(artifact.mime), path))
        return path

    def _make(self) -> Path:
        path = self._given or Path(DEFAULT, self._run[:8])
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError:
            if self._given is not None:
                raise
            path = Path(tempfile.mkdtemp(prefix="agentstream-artifacts-"))
        return path


def _free(path: Path) -> Path:
    """The path, or one with a number where something is there already."""
    for n in range(2, _MOST_SAME):
        if not path.exists():
            return path
        path = path.with_name(f"{path.stem.rsplit('~', 1)[0]}~{n}{path.suffix}")
    return path


def _kind(mime: str) -> str:
    kind = mime.partition("/")[0]
    names = {"image": "picture", "text/csv": "table", "application/vnd.plotly.v1+json": "figure", "text/html": "page"}
    return names.get(mime) or names.get(kind) or "file"
