"""Reads a delimited text file with the standard library, and says what it is like.

What comes in: the path of a file that somebody uploaded. What goes out: its rows as text and its `Shape`, or
`InvalidInput` with the reason why it cannot be read as a table. It does not know the question, pandas or agents.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from agentstream.errors import InvalidInput

from . import values
from .query import Column, Shape

__all__ = ("MAX_BYTES", "MAX_COLUMNS", "Table", "read_table", "shape_of")

MAX_BYTES: Final = 64 * 1024 * 1024
"""Largest file; the planner and the verifier hold its cells in memory (about 100 bytes a cell that is not repeated)."""

MAX_COLUMNS: Final = 500
_MAX_FIELD: Final = 128 * 1024
_LISTED_VALUES: Final = 200
_LISTED_CHARS: Final = 80
_SNIFFED_ROWS: Final = 200
_DELIMITERS: Final = (",", ";", "\t", "|")

# What people upload instead of CSV, by its first bytes.
_OTHER_FORMATS: Final = {
    b"PK\x03\x04": "a zip archive or an Excel workbook: save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save the sheet as CSV",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"PAR1": "a Parquet file: save it as CSV",
    b"SQLite": "an SQLite database: export a table as CSV",
}
_BOMS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True, slots=True)
class Table:
    """A file's cells as text: `rows` are as long as `names`; blank lines are left out."""

    file: str
    names: tuple[str, ...]
    rows: list[tuple[str, ...]]
    encoding: str
    delimiter: str
    renamed: bool

    def cells(self, name: str) -> list[str]:
        """One column, stripped."""
        place = self.names.index(name)
        return [row[place].strip() for row in self.rows]


def read_table(path: Path, name: str = "") -> Table:
    """Read a whole file; blocking.

    Args:
        name: what the file is called in the result and in errors; the path's own name without it.

    Raises:
        InvalidInput: the file is missing, empty, too large, not text, not a table, or has no data rows.
    """
    name = name or path.name
    text, encoding = _decode(_bytes(path, name), name)
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    shared: dict[str, str] = {}  # most values of a table repeat: each is kept once
    try:
        header = next((row for row in reader if row), [])
        names, renamed = _names(header, name)
        rows = list(_rows(reader, names, name, shared))
    except csv.Error as error:
        raise InvalidInput(f"{name} is not CSV: line {reader.line_num}: {error}") from error
    if not rows:
        raise InvalidInput(f"{name} has a header and no rows")
    return Table(name, names, rows, encoding, delimiter, renamed)


def _bytes(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InvalidInput(f"there is no file {name}") from error
    except IsADirectoryError as error:
        raise InvalidInput(f"{name} is a folder: name a CSV file") from error
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{name} is larger than {MAX_BYTES // 1024 // 1024} MiB")
    if not data.strip():
        raise InvalidInput(f"{name} is empty")
    for magic, what in _OTHER_FORMATS.items():
        if data.startswith(magic):
            raise InvalidInput(f"{name} is not CSV but {what}")
    return data


def _decode(data: bytes, name: str) -> tuple[str, str]:
    encodings = [encoding for bom, encoding in _BOMS if data.startswith(bom)] or ["utf-8", "cp1252", "latin-1"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _CONTROL.search(text):
            break
        if text.lstrip()[:1] in ("<", "{", "["):
            raise InvalidInput(f"{name} is not CSV: it looks like HTML, XML or JSON")
        return text, encoding
    raise InvalidInput(f"{name} is not a text file: name a CSV file")


def _delimiter(text: str) -> str:
    """The mark that cuts the first rows into the same number (above one) of fields most often; `,` where none does."""
    best, best_score = ",", (0.0, 0)
    head = text[: _SNIFFED_ROWS * 2_000]
    for delimiter in _DELIMITERS:
        widths: Counter[int] = Counter()
        reader = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
        try:
            for row in reader:
                widths[len(row)] += bool(row)
                if reader.line_num > _SNIFFED_ROWS:
                    break
        except csv.Error:
            continue
        width, count = widths.most_common(1)[0]
        score = (round(count / max(1, widths.total()), 2), width)
        if width > 1 and score > best_score:
            best, best_score = delimiter, score
    return best


def _names(header: list[str], name: str) -> tuple[tuple[str, ...], bool]:
    if len(header) > MAX_COLUMNS:
        raise InvalidInput(f"{name} has {len(header)} columns, more than {MAX_COLUMNS}")
    if header and all(values.read_number(text.strip(), ".") is not None for text in header):
        raise InvalidInput(f"{name} has no header: its first line must name the columns")
    names: list[str] = []
    for place, text in enumerate(header, 1):
        plain = " ".join(text.split())[:_LISTED_CHARS] or f"column {place}"
        unique = next(
            candidate
            for candidate in (plain, *(f"{plain} {n}" for n in range(2, len(header) + 2)))
            if candidate not in names
        )
        names.append(unique)
    return tuple(names), names != header


def _rows(
    reader: Iterator[list[str]], names: tuple[str, ...], name: str, shared: dict[str, str]
) -> Iterator[tuple[str, ...]]:
    width, short = len(names), 0
    number = 0
    for number, row in enumerate((row for row in reader if row), 1):
        if len(row) > width:
            raise InvalidInput(f"{name} is not a table: row {number} has {len(row)} fields, the header has {width}")
        short += len(row) < width
        padded = [*row, *[""] * (width - len(row))]
        yield tuple([shared.setdefault(text, text) for text in padded])
    # A few cut rows happen in real files and count as missing values; many mean that this is no table.
    if short > max(1, number // 10):
        raise InvalidInput(f"{name} is not a table: {short} of its {number} rows have fewer fields than the header")
    if width == 1 and any(len(text) > _MAX_FIELD // 1024 for text in shared):
        raise InvalidInput(f"{name} is not a table: it has one column of long text")


# --- shape ------------------------------------------------------------------------------------------------------------
def shape_of(table: Table) -> Shape:
    """What the table is like: one pass over each column."""
    comma = table.delimiter != "," and any(values.surely_comma(set(table.cells(name))) for name in table.names)
    prefer: Literal[".", ","] = "," if comma else "."
    return Shape(
        file=table.file,
        rows=len(table.rows),
        encoding=table.encoding,
        delimiter=table.delimiter,
        columns=tuple(_column(name, table.cells(name), prefer) for name in table.names),
        renamed=table.renamed,
    )


def _column(name: str, cells: list[str], prefer: Literal[".", ","]) -> Column:
    filled = [text for text in cells if not values.is_missing(text, number=True)]
    numbers = values.number_style(filled, prefer)
    if numbers is not None:
        return _numbers(name, len(cells), filled, numbers)
    filled = [text for text in cells if not values.is_missing(text)]
    if not filled:
        return Column(name=name, kind="empty", missing=len(cells))
    dates = values.date_style(filled)
    if dates is not None:
        return _dates(name, len(cells), filled, dates)
    counts = Counter(filled)
    listed = [text for text, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    short = len(listed) <= _LISTED_VALUES and all(len(text) <= _LISTED_CHARS for text in listed)
    missing = len(cells) - len(filled)
    return Column(name=name, kind="text", missing=missing, distinct=len(counts), values=tuple(listed) if short else ())


def _numbers(name: str, rows: int, filled: list[str], style: values.NumberStyle) -> Column:
    read = {number for text in set(filled) if (number := values.read_number(text, style.decimal)) is not None}
    return Column(
        name=name,
        kind="number",
        missing=rows - len(filled),
        unreadable=style.unreadable,
        distinct=len(read),
        minimum=min(read),
        maximum=max(read),
        whole=all(number.is_integer() for number in read),
        decimal=style.decimal,
        decorated=style.decorated,
    )


def _dates(name: str, rows: int, filled: list[str], style: values.DateStyle) -> Column:
    read = {date for text in set(filled) if (date := values.read_date(text, style.format, style.chars)) is not None}
    return Column(
        name=name,
        kind="date",
        missing=rows - len(filled),
        unreadable=style.unreadable,
        distinct=len(read),
        minimum=min(read).isoformat(),
        maximum=max(read).isoformat(),
        date_format=style.format,
        date_chars=style.chars,
        ambiguous=style.ambiguous,
    )
