"""Readers of text files: plain text, JSON, tables and Parquet, compressed or not."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from zoo.errors import ZooError

TEXT, JSON, TABLES, PARQUET = (".txt", ".md"), (".jsonl", ".ndjson", ".json"), (".csv", ".tsv"), (".parquet",)
ROWS = (*JSON, *TABLES, *PARQUET)
ENDINGS = (*TEXT, *ROWS)
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
READ = f"{', '.join(ENDINGS)}, and these compressed: {', '.join(COMPRESSED)}"
BOM = "\ufeff"
SPACE = re.compile(r"\s*")
HEAD = 8000  # first bytes that are searched for a NUL; as in git, it marks a binary file


def ending(path: Path) -> str:
    """Return the ending that gives the format of a file, in lower case; the ending of a compression is ignored."""
    name = Path(path.name.lower())
    return (name.with_suffix("") if name.suffix in COMPRESSED else name).suffix


def files_of(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files below a folder whose endings mark text, and the other files and folders there, both sorted.

    Hidden files, hidden folders, links to folders and broken links are among the others.

    Raises:
        OSError: If a folder cannot be opened.
    """

    def refuse(error: OSError) -> None:
        raise error

    read: list[Path] = []
    left_out: list[Path] = []
    for place, subfolders, names in os.walk(folder, onerror=refuse):
        entered = [s for s in subfolders if not s.startswith(".") and not Path(place, s).is_symlink()]
        left_out += [Path(place, s) for s in subfolders if s not in entered]
        subfolders[:] = entered
        for path in (Path(place, name) for name in names):
            is_text = ending(path) in ENDINGS and not path.name.startswith(".") and path.is_file()
            (read if is_text else left_out).append(path)
    return sorted(read), sorted(left_out)


def texts(path: Path, field: str) -> Iterator[str | None]:
    """Yield the texts of a file: one for every row, None for a null. A plain text file is one text.

    Args:
        path: The file.
        field: Field or column that holds the text; ignored for plain text.

    Raises:
        ZooError: If the file cannot be read, or a row has no text in the field.
    """
    readers = {**dict.fromkeys(JSON, _json_rows), **dict.fromkeys(TABLES, _table_rows), ".parquet": _parquet_rows}
    reader = readers.get(ending(path))
    try:
        with _open(path) as file:
            if path.stat().st_size == 0 or reader is None:
                yield _plain_text(file.read(), path)
                return
            for number, text in enumerate(reader(file, path, field), 1):
                yield check_text(text, field, f"{path}, row {number}")
    except ZooError:
        raise
    except Exception as error:
        raise ZooError(f"{path} cannot be read: {str(error).partition(chr(10))[0] or type(error).__name__}") from error


def check_text(text: Any, field: str, where: str) -> str | None:
    """Return the text of a row, or None for a null.

    Raises:
        ZooError: If the value is not text.
    """
    if not isinstance(text, str | None):
        raise ZooError(f"{where}: field {field!r} holds {reprlib.repr(text)}, which is not text")
    if text is not None and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ZooError(f"{where}: character {error.start} is half of a surrogate pair, which is not text") from None
    return text


def _open(path: Path) -> BinaryIO:
    def zstd(path: Path) -> Any:
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")

    opened: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": zstd}.get(path.suffix.lower(), open)
    return opened(path) if path.suffix.lower() in COMPRESSED else path.open("rb")


def _plain_text(content: bytes, path: Path) -> str:
    nul = content[:HEAD].find(b"\0")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ZooError(f"{path} is not UTF-8 text but UTF-16; convert it, for example with iconv -f UTF-16 -t UTF-8")
    if nul >= 0:
        raise ZooError(f"{path} is not text: byte {nul} is NUL; supported are {READ}")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ZooError(f"{path} is not UTF-8 text: byte {error.start} cannot be decoded") from None
    return text.removeprefix(BOM).replace("\r\n", "\n").replace("\r", "\n")


def _json_rows(file: BinaryIO, path: Path, field: str) -> Iterator[Any]:
    for number, row in enumerate(_json_values(file), 1):
        if isinstance(row, dict) and field not in row:
            raise ZooError(f"{path}, row {number}: no field {field!r}; its fields are {sorted(row)}")
        yield row[field] if isinstance(row, dict) else row


def _json_values(file: BinaryIO) -> Iterator[Any]:
    """Yield the rows of a JSON file: one per line, or arrays and objects over several lines."""
    for number, line in enumerate(file, 1):
        text = line.decode().strip() if number > 1 else line.decode("utf-8-sig").strip()
        if not text:
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            if number > 1:
                raise ValueError(f"line {number} is not JSON: {error}") from None
            yield from _json_document(text + file.read().decode())
            return
        yield from value if isinstance(value, list) else [value]


def _json_document(text: str) -> Iterator[Any]:
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        value, place = decoder.raw_decode(text, place)
        yield from value if isinstance(value, list) else [value]
        place = cast(re.Match[str], SPACE.match(text, place)).end()


def _table_rows(file: BinaryIO, path: Path, field: str) -> Iterator[Any]:
    csv.field_size_limit(2**31 - 1)
    lines = io.TextIOWrapper(file, "utf-8-sig", newline="")
    rows = csv.reader(lines, "excel-tab" if ending(path) == ".tsv" else "excel", strict=True)
    header = next(rows, [])
    if field not in header:
        raise ZooError(f"{path} has no column {field!r}; its first line is {reprlib.repr(header)}")
    column = header.index(field)
    for number, row in enumerate((row for row in rows if row), 1):
        if len(row) != len(header):
            raise ZooError(f"{path}, row {number} has {len(row)} fields; the first line has {len(header)}")
        yield row[column]


def _parquet_rows(file: BinaryIO, path: Path, field: str) -> Iterator[Any]:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(file)
    if field not in table.schema_arrow.names:
        raise ZooError(f"{path} has no field {field!r}; its fields are {sorted(table.schema_arrow.names)}")
    for batch in table.iter_batches(batch_size=1024, columns=[field]):
        yield from batch.column(0).to_pylist()
