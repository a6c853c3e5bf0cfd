"""Text files in common formats."""

import bz2
import gzip
import json
import lzma
import zipfile

import pyarrow
import pyarrow.parquet

from supported import Case

TITLE = "Corpora"
INTRODUCTION = (
    "This is how `LocalFiles` reads a folder. The case of file endings does not matter, and every file is read once. "
    "When the text is tokenized, one line names or counts what was not read."
)
TEXTS = ["first", "zweites — mit\nUmlaut: ü", 'third, with "quotes"\n\n\nand blank lines', "4"]
LINES = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS))


def plain(name, content=TEXTS[1], encoding="utf-8"):
    """Writes a text file, from whose content the one document `TEXTS[1]` is to be read."""

    def make(folder):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return [TEXTS[1]]

    return make


def rows(name, content, texts=TEXTS):
    """Writes a file of several rows."""

    def make(folder):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return texts

    return make


def beside(name, content=b"\x89PNG\0"):
    """Writes a text file and another file, which is left out."""

    def make(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return plain("a.txt")(folder)

    return make


def table(separator):
    """Rows as a spreadsheet writes them."""
    quoted = ['"' + text.replace('"', '""') + '"' for text in TEXTS]
    return "\r\n".join([f"id{separator}text", *(f"{i}{separator}{text}" for i, text in enumerate(quoted))]) + "\r\n"


def parquet(folder):
    """A Parquet file with a dictionary of texts, as pandas' categories are stored."""
    pyarrow.parquet.write_table(
        pyarrow.table({"n": range(4), "text": pyarrow.array(TEXTS).dictionary_encode()}), folder / "a.parquet"
    )
    return TEXTS


def changing_columns(folder):
    """JSON lines of 13 MB whose other columns change type, appear late and are null at first."""
    filling = "x" * 2**20
    early, late = {"meta": None, "kind": 3}, {"meta": {"deep": [1]}, "kind": "three", "late": True}
    texts = [f"{i} {filling}" for i in range(13)]
    lines = (json.dumps({"text": text, **(early if i < 11 else late)}) + "\n" for i, text in enumerate(texts))
    (folder / "a.jsonl").write_text("".join(lines))
    return texts


def linked(folder):
    """A file, a link to it, a link to a file outside, and a link to the folder itself."""
    outside = folder.with_name("outside.txt")
    outside.write_text("outside")
    (folder / "b.txt").symlink_to(outside)
    (folder / "c.txt").symlink_to(folder / "a.txt")
    (folder / "loop").symlink_to(folder)
    return [*plain("a.txt")(folder), "outside"]


def copied(folder):
    """A file and its copy."""
    return plain("a.txt")(folder) + plain("a (copy).txt")(folder)


def zipped(folder):
    """A zip archive alone."""
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a.txt", TEXTS[1])


def zstandard(text):
    """Text in two frames of Zstandard."""
    codec = pyarrow.Codec("zstd")
    return b"".join(codec.compress(part, asbytes=True) for part in (text[:9].encode(), text[9:].encode()))


NULLS = '{"text": "first"}\n{"text": null}\n{"text": " "}\n{"text": "4"}\n'
CASES = [
    Case(".txt", plain("a.txt"), "reads it as one document, or splits it by `separator`"),
    Case(".md", plain("a.md"), "reads it as .txt"),
    Case(".TXT", plain("a.TXT"), "reads it as .txt"),
    Case("a byte order mark at the start", plain("a.txt", "\ufeff" + TEXTS[1]), "drops the mark"),
    Case("lines that end in CR LF", plain("a.txt", TEXTS[1].replace("\n", "\r\n")), "reads line ends as \\n"),
    Case(".txt.gz", plain("a.txt.gz", gzip.compress(TEXTS[1].encode())), "reads it"),
    Case(".txt.bz2", plain("a.txt.bz2", bz2.compress(TEXTS[1].encode())), "reads it"),
    Case(".txt.xz", plain("a.txt.xz", lzma.compress(TEXTS[1].encode())), "reads it"),
    Case(".txt.zst of several frames", plain("a.txt.zst", zstandard(TEXTS[1])), "reads it"),
    Case(
        "a truncated compressed file", plain("a.txt.gz", gzip.compress(TEXTS[1].encode())[:-9]),
        "refuses it, naming the file", r"a\.txt\.gz cannot be read",
    ),
    Case("an empty file", beside("b.txt", b""), "counts it as an empty document and excludes it"),
    Case(
        "Latin-1", plain("a.txt", "naïve", "latin-1"),
        "refuses it, naming the byte", r"a\.txt is not UTF-8 text: byte 2",
    ),
    Case(
        "UTF-16", plain("a.txt", "text", "utf-16"),
        "refuses it, saying how to convert it", r"a\.txt is not UTF-8 text but UTF-16",
    ),
    Case(
        "UTF-16 without a mark", plain("a.txt", "text", "utf-16-le"),
        "refuses it, naming the byte", r"a\.txt is not text: byte 1 is NUL",
    ),
    Case(".jsonl", rows("a.jsonl", LINES), "reads one field"),
    Case(".JSONL", rows("a.JSONL", LINES), "reads it as .jsonl"),
    Case(".ndjson", rows("a.ndjson", LINES), "reads it as .jsonl"),
    Case(".jsonl with a byte order mark", rows("a.jsonl", "\ufeff" + LINES), "drops the mark"),
    Case(".jsonl.gz", rows("a.jsonl.gz", gzip.compress(LINES.encode())), "reads it as .jsonl"),
    Case(
        "JSON lines of more than 10 MB whose other columns change type, appear late or are null", changing_columns,
        "reads it: only the text column matters",
    ),
    Case("JSON lines in .json", rows("a.json", LINES), "reads one field"),
    Case("a JSON array of objects", rows("a.json", json.dumps([{"text": t} for t in TEXTS], indent=1)), "reads it"),
    Case("a JSON array of texts", rows("a.json", json.dumps(TEXTS)), "reads it"),
    Case(
        "JSON objects over several lines", rows("a.json", "\n".join(json.dumps({"text": t}, indent=1) for t in TEXTS)),
        "reads them",
    ),
    Case("null and blank texts", rows("a.jsonl", NULLS, ["first", "4"]), "excludes and counts them, names the first"),
    Case(
        "a row without the field", rows("a.jsonl", LINES + '{"id": 9}\n'),
        "refuses it, naming row and fields", r"a\.jsonl, row 5: no field 'text'; its fields are \['id'\]",
    ),
    Case(
        "a row whose text is a number", rows("a.jsonl", LINES + '{"text": 9}\n'),
        "refuses it, naming the row", r"a\.jsonl, row 5: field 'text' holds 9, which is not text",
    ),
    Case(
        "half a surrogate pair", rows("a.jsonl", LINES + '{"text": "a\\ud800"}\n'),
        "refuses it, naming the row", r"a\.jsonl, row 5: character 1 is half of a surrogate pair",
    ),
    Case(
        "a damaged line of JSON", rows("a.jsonl", LINES + '{"text": \n'),
        "refuses it, naming the line", r"a\.jsonl cannot be read: line 5 is not JSON",
    ),
    Case(".parquet", parquet, "reads one column"),
    Case(".csv", rows("a.csv", table(",")), "reads one column"),
    Case(".CSV with a byte order mark", rows("a.CSV", "\ufeff" + table(",")), "reads one column, drops the mark"),
    Case(".tsv", rows("a.tsv", table("\t")), "reads one column"),
    Case(
        ".csv without the column", rows("a.csv", table(";")),
        "refuses it, showing the first line", r"a\.csv has no column 'text'; its first line is \['id;text'\]",
    ),
    Case(
        "a row of .csv with too many fields", rows("a.csv", table(",") + "5,five,more\r\n"),
        "refuses it, naming the row", r"a\.csv, row 5 has 3 fields; the first line has 2",
    ),
    Case("a file with another ending", beside("picture.png"), "excludes it and names it"),
    Case(".zip next to text", beside("b.zip"), "excludes it and names it"),
    Case(".zip alone", zipped, "refuses the folder, naming it", r"no folder or pattern with text files.*a\.zip"),
    Case("hidden files", beside(".git/notes.txt"), "excludes them and names them"),
    Case("a backup that an editor made", beside("a.txt~", b"older"), "excludes it and names it"),
    Case("a link to a file", linked, "reads the file once; links to folders are excluded and named"),
    Case("a copy of a file", copied, "reads both into the same split, and says how many copies there are"),
]  # fmt: skip
