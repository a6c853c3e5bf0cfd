"""Corpora: sources of text. A corpus yields documents in a fixed order and has a fingerprint of its content."""

import hashlib
import os
import re
import sysconfig
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from zoo.datamodules import text_files
from zoo.described import Described
from zoo.errors import ZooError
from zoo.paths import expanded


class Corpus(Described, ABC):
    """Text as a sequence of documents.

    Attributes:
        skipped: Null and empty texts that the last complete iteration over `documents` left out, one entry per kind,
            such as "2 null texts (first: a.jsonl, row 3)".
    """

    skipped: Sequence[str] = ()

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Yield the documents, in an order that depends only on the corpus.

        Raises:
            ZooError: If the corpus cannot be read.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a string that identifies the content and changes whenever the content changes."""

    def left_out(self) -> list[str]:
        """Return the paths of files and folders that were found but are not read."""
        return []


class StdlibCorpus(Corpus):
    """The source code of Python's standard library, with its docstrings. Every file is one document.

    Every installation of Python has these files: about 500, 10 MB in all, the same for the same Python version. Tests,
    graphical programs and generated build files are excluded, because some systems do not ship them.
    """

    SKIPPED = re.compile(
        "__pycache__|(site|dist)-packages|tests?|idlelib|tkinter|turtledemo|ensurepip|lib2to3|distutils"
        "|lib-dynload|config-.*"
    )

    def documents(self) -> Iterator[str]:
        """See `Corpus.documents`."""
        for path in self._paths():
            yield path.read_text("utf-8")

    def fingerprint(self) -> str:
        """See `Corpus.fingerprint`."""
        return _hash_files(self._paths())

    def _paths(self) -> list[Path]:
        files: list[Path] = []
        for folder, subfolders, names in os.walk(sysconfig.get_path("stdlib")):
            subfolders[:] = [name for name in subfolders if not self.SKIPPED.fullmatch(name)]
            generated = ("_sysconfigdata", "sitecustomize")
            files += [Path(folder, n) for n in names if n.endswith(".py") and not n.startswith(generated)]
        return sorted(files)


class LocalFiles(Corpus):
    """Local files of plain text, JSON, tables or Parquet, compressed or not. The file ending gives the format.

    The endings are .txt and .md for plain text, .jsonl, .ndjson, .json, .csv, .tsv and .parquet, in small or capital
    letters. Compressed files have the additional ending .gz, .bz2, .xz or .zst. A file with another ending is read as
    plain text if `paths` names the file itself or a pattern with that ending. All other files in a folder are not read,
    and a note reports them. Every file is read once, even if several paths or links lead to it.

    Args:
        paths: Files, folders or patterns such as data/*.txt.
        separator: String that separates documents within a plain text file, such as "\\n\\n\\n" for two blank lines. By
            default each plain text file is one document.
        text_field: Field or column that holds the text in .jsonl, .ndjson, .json, .csv, .tsv and .parquet files.
    """

    def __init__(self, paths: list[str], separator: str | None = None, text_field: str = "text") -> None:
        self.paths, self.separator, self.text_field = paths, separator, text_field

    def documents(self) -> Iterator[str]:
        """See `Corpus.documents`."""
        kept = _Documents()
        for path in self._files()[0]:
            in_rows = text_files.ending(path) in text_files.ROWS
            for number, text in enumerate(text_files.texts(path, self.text_field), 1):
                if kept.is_one(text, f"{path}, row {number}" if in_rows else str(path)):
                    yield from self._pieces(text) if not in_rows and self.separator else [text]
        self.skipped = kept.skipped()

    def fingerprint(self) -> str:
        """See `Corpus.fingerprint`."""
        files = self._files()[0]
        endings = [(text_files.ending(p), p.suffix.lower()) for p in files]
        return f"{_hash_files(files)}:{endings}:{self.separator!r}:{self.text_field}"

    def left_out(self) -> list[str]:
        """See `Corpus.left_out`."""
        return list(map(str, self._files()[1]))

    def _pieces(self, text: str) -> list[str]:
        return [piece for piece in text.split(self.separator) if piece.strip()]

    def _files(self) -> tuple[list[Path], list[Path]]:
        """Return the files that are read, each once, and the other files that folders and patterns lead to."""
        files: dict[Path, Path] = {}  # resolved path -> path by which the file was found
        left_out: list[Path] = []
        for pattern in self.paths:
            found, others = _find(expanded(pattern))
            if not found:
                names = f"; files with other endings were found: {some(others)}" if others else ""
                raise ZooError(f"corpus path {pattern!r} is no file, and no folder or pattern with text files{names}")
            for path in found:
                files.setdefault(path.resolve(), path)
            left_out += others
        return list(files.values()), [p for p in dict.fromkeys(left_out) if p.resolve() not in files]


def _find(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the files that a path, folder or pattern leads to: those to read and the others, both sorted."""
    if path.is_dir():
        return text_files.files_of(path)
    if path.is_file():
        return [path], []
    matches = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    names_ending = path.suffix != "" and not set(path.suffix) & set("*?[")
    read: list[Path] = []
    left_out: list[Path] = []
    for match in matches:
        hidden = any(part.startswith(".") and part not in path.parts for part in match.parts)
        is_text = names_ending or text_files.ending(match) in text_files.ENDINGS
        (read if is_text and match.is_file() and not hidden else left_out).append(match)
    return read, left_out


class HubDataset(Corpus):
    """A data set on the Hugging Face hub, or a local folder with the layout of one.

    Args:
        name: Name on the hub, such as roneneldan/TinyStories, or a local folder.
        config: Name of the data set's configuration, if it has several.
        split: Split of the data set to read. The datamodule splits its documents again into training, validation and
            test.
        text_field: Field that holds the text.
        revision: Branch, tag or commit. By default the main branch.
        streaming: Whether documents are read as they arrive. By default the whole data set is downloaded first.
        max_documents: Number of documents after which reading stops. By default all documents are read.
    """

    def __init__(
        self,
        name: str,
        config: str | None = None,
        split: str = "train",
        text_field: str = "text",
        revision: str | None = None,
        streaming: bool = False,
        max_documents: int | None = None,
    ) -> None:
        self.name, self.config, self.split, self.text_field = name, config, split, text_field
        self.revision, self.streaming, self.max_documents = revision, streaming, max_documents

    def documents(self) -> Iterator[str]:
        """See `Corpus.documents`."""
        source, kept = f"data set {self.name!r}", _Documents()
        texts = enumerate(self._texts(source), 1)
        yield from islice((t for n, t in texts if kept.is_one(t, f"{source}, row {n}")), self.max_documents)
        self.skipped = kept.skipped()

    def fingerprint(self) -> str:
        """See `Corpus.fingerprint`.

        The fingerprint of a hub data set consists of its name, its revision and the settings that choose what is read;
        it does not change when a branch moves. The fingerprint of a local folder includes a hash of its content.
        """
        options = (self.name, self.config, self.split, self.text_field, self.revision, self.max_documents)
        folder = Path(self.name)
        content = _hash_files(sorted(p for p in folder.rglob("*") if p.is_file())) if folder.is_dir() else ""
        return f"{options!r}{content}"

    def _texts(self, source: str) -> Iterator[str | None]:
        """Yield the text of every row, None for a null."""
        import datasets

        options = {"split": self.split, "revision": self.revision, "streaming": self.streaming}
        try:
            for number, row in enumerate(datasets.load_dataset(self.name, self.config, **options), 1):
                if self.text_field not in row:
                    raise ZooError(f"{source} has no field {self.text_field!r}; its fields are {sorted(row)}")
                yield text_files.check_text(row[self.text_field], self.text_field, f"{source}, row {number}")
        except ZooError:
            raise
        except Exception as error:
            hint = "; LocalFiles can read text files in a folder" if Path(self.name).is_dir() else ""
            raise ZooError(f"{source} cannot be read: {_cause(error)}{hint}") from error


class _Documents:
    """Filter that drops null and empty texts, and counts them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def is_one(self, text: str | None, where: str) -> TypeGuard[str]:
        if text and not text.isspace():
            return True
        kind = "null text" if text is None else "empty document"
        self._counts[kind] += 1
        self._first.setdefault(kind, where)
        return False

    def skipped(self) -> list[str]:
        return [f"{n} {kind}{'s' * (n > 1)} (first: {self._first[kind]})" for kind, n in self._counts.items()]


def _cause(error: BaseException) -> str:
    """Return the first line of the message of the exception that started a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]


def _hash_files(paths: list[Path]) -> str:
    """Return the SHA-256 of the files' contents, in order."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as f:
            total.update(hashlib.file_digest(f, "sha256").digest())
    return total.hexdigest()


def some(names: Iterable[Any], shown: int = 3) -> str:
    """Return the first few names, and the number of further names, as text."""
    names = list(map(str, names))
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
