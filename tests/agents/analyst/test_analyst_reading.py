"""Files as people upload them: what is read, how it is understood, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentstream.errors import InvalidInput
from team_loading import load

reading, values = load("analyst", "reading"), load("analyst", "values")


def shape_of(tmp_path: Path, data: bytes, name: str = "data.csv") -> Any:
    """What the team knows of a file with these bytes."""
    (tmp_path / name).write_bytes(data)
    return reading.shape_of(reading.read_table(tmp_path / name))


@pytest.mark.parametrize(
    ("data", "encoding", "delimiter"),
    [
        (b"a,b\n1,2\n", "utf-8", ","),
        (b"a;b\n1,5;2\n", "utf-8", ";"),
        (b"a\tb\n1\t2\n", "utf-8", "\t"),
        (b"a|b\n1|2\n", "utf-8", "|"),
        ("\ufeffa,b\nä,2\n".encode(), "utf-8-sig", ","),
        ("a,b\nä,2\n".encode("latin-1"), "cp1252", ","),
        ("a,b\nä,2\n".encode("utf-16"), "utf-16", ","),
        (b'a,b\n"x;y;z",2\n"p;q;r",3\n', "utf-8", ","),
        (b"a\n1\n2\n", "utf-8", ","),
    ],
)
def test_encoding_and_delimiter_are_found(tmp_path: Path, data: bytes, encoding: str, delimiter: str) -> None:
    """The usual encodings and delimiters are told apart."""
    shape = shape_of(tmp_path, data)
    assert (shape.encoding, shape.delimiter) == (encoding, delimiter)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"  \n\n", "is empty"),
        (b"a,b\n", "a header and no rows"),
        (b"1,2\n3,4\n", "no header"),
        (b"a,b\n1,2\n1,2,3\n", "row 2 has 3 fields, the header has 2"),
        (b"a,b,c\n1\n1\n1\n", "fewer fields than the header"),
        (b'a,b\n"1,2\n', "is not CSV: line"),
        (b'{"a": 1}', "HTML, XML or JSON"),
        (b"<html>", "HTML, XML or JSON"),
        (b"PK\x03\x04rest", "Excel workbook"),
        (b"%PDF-1.7", "a PDF document"),
        (b"a,b\n\x00\x01,2\n", "not a text file"),
        (b"title\n" + b"This is a long text " * 20 + b"\n", "one column of long text"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    """A file that is no table is refused with the reason."""
    with pytest.raises(InvalidInput, match=words):
        shape_of(tmp_path, data)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    """A path without a file is named by its last part only."""
    with pytest.raises(InvalidInput, match=r"^there is no file none\.csv$"):
        reading.read_table(tmp_path / "none.csv")
    with pytest.raises(InvalidInput, match="is a folder"):
        reading.read_table(tmp_path)


def test_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file above the bound is refused before it is decoded."""
    monkeypatch.setattr(reading, "MAX_BYTES", 1024)
    with pytest.raises(InvalidInput, match="larger than"):
        shape_of(tmp_path, b"a,b\n" + b"1,2\n" * 500)


@pytest.mark.parametrize(
    ("cells", "kind", "missing", "unreadable"),
    [
        (["1", "2", "-3.5", "1e3"], "number", 0, 0),
        (["1", "", "NA", "-"], "number", 3, 0),
        (["$1,200.50", "$3"], "number", 0, 0),
        (["12 %", "3 %"], "number", 0, 0),
        (["01234", "00123"], "text", 0, 0),
        (["NA", "EU", ""], "text", 1, 0),
        (["2024-01-31", "2024-02-29"], "date", 0, 0),
        (["2024-01-31T10:00:00Z", "2024-02-29 11:00:00.5+02:00"], "text", 0, 0),
        (["31.01.2024", "1.2.2024"], "date", 0, 0),
        (["1/31/2024", "12/1/2024"], "date", 0, 0),
        (["31/1/2024", "12/1/2024"], "date", 0, 0),
        (["Jan 31, 2024", "Feb 1, 2024"], "date", 0, 0),
        (["yes", "no"], "text", 0, 0),
        (["", ""], "empty", 2, 0),
        (["1"] * 99 + ["x"], "number", 0, 1),
        (["1"] * 90 + ["x"] * 10, "text", 0, 0),
    ],
)
def test_kind_of_a_column(tmp_path: Path, cells: list[str], kind: str, missing: int, unreadable: int) -> None:
    """Numbers, dates and text are told apart; a code with leading zeros is text, `NA` in text is a word."""
    rows = "".join(f'"{cell}",x\n' for cell in cells)
    column = shape_of(tmp_path, f"c,d\n{rows}".encode()).columns[0]
    assert (column.kind, column.missing, column.unreadable) == (kind, missing, unreadable)


def test_decimal_comma_holds_for_the_whole_file(tmp_path: Path) -> None:
    """In a file that writes 12,5 a value of 1.234 is one thousand two hundred thirty-four; elsewhere it is not."""
    german = shape_of(tmp_path, b"a;b\n12,5;1.234\n3,25;2.500\n")
    english = shape_of(tmp_path, b"a;b\n12.5;1.234\n3.25;2.500\n")
    assert (german.columns[1].minimum, english.columns[1].minimum) == (1234, 1.234)


def test_dates_that_read_both_ways_are_marked(tmp_path: Path) -> None:
    """Days up to twelve fit both orders: the shape says so, so that the answer can."""
    assert shape_of(tmp_path, b"d,x\n1/2/2024,1\n3/4/2024,1\n").columns[0].ambiguous
    assert not shape_of(tmp_path, b"d,x\n1/20/2024,1\n3/4/2024,1\n").columns[0].ambiguous


def test_names_become_unique(tmp_path: Path) -> None:
    """Blank, doubled and padded names get names of their own."""
    shape = shape_of(tmp_path, b" a ,a,,b\n1,2,3,4\n")
    assert [column.name for column in shape.columns] == ["a", "a 2", "column 3", "b"]
    assert shape.renamed


def test_short_rows_are_filled_up(tmp_path: Path) -> None:
    """A few cut rows count as missing values."""
    shape = shape_of(tmp_path, b"a,b\n" + b"1,2\n" * 20 + b"3\n")
    assert [column.missing for column in shape.columns] == [0, 1]


@pytest.mark.parametrize(
    ("text", "decimal", "number"),
    [
        ("1,234.5", ".", 1234.5),
        ("1.234,5", ",", 1234.5),
        ("12", ",", 12),
        ("€ 3", ".", 3),
        ("1,2", ".", None),
        ("1.2", ",", None),
        ("1_000", ".", None),
        ("inf", ".", None),
        ("٣", ".", None),
    ],
)
def test_numbers_are_read_by_their_mark(text: str, decimal: str, number: float | None) -> None:
    """A number that does not fit the column's decimal mark is none, and neither is what only Python reads as one."""
    assert values.read_number(text, decimal) == number
