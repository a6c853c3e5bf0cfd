"""Where text comes from. A corpus yields documents in a fixed order and names its content by a fingerprint."""

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
        skipped: What the last complete reading of `documents` did not yield, such as "2 null texts (first: a.jsonl, row
            3)".
    """

    skipped: Sequence[str] = ()

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """The documents, in an order that depends on nothing but the corpus.

        Raises:
            ZooError: If the corpus cannot be read.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A name for the content, which changes whenever the content does."""

    def left_out(self) -> list[str]:
        """Names of the files beside the corpus's that are not read."""
        return []


class StdlibCorpus(Corpus):
    """The source code and documentation of Python's own standard library, one file a document.

    It is found on every machine that runs Python: about 500 files and 10 MB, the same for everyone on one Python
    version. Tests, graphical programs and generated build files are left out, since some systems ship without them.
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
    """Files on this machine: text, JSON lines, tables or Parquet, told apart by their endings, compressed or not.

    Endings are .txt and .md for text, .jsonl, .ndjson, .json, .csv, .tsv and .parquet, in capitals too; behind them may
    stand .gz, .bz2, .xz or .zst. A file that is named, or found by a pattern that names its ending, is read as plain
    text if it has another ending. Whatever else lies in a folder is left out, and said to be. Every file is read once,
    however many paths and links lead to it.

    Args:
        paths: Files, folders or patterns such as data/*.txt.
        separator: Splits a text file into documents. By default each text file is one document; two blank lines
            between documents are written "\n\n\n".
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
        """The files that are read, each once, and what else the folders and patterns hold."""
        files: dict[Path, Path] = {}  # the real file: the path it was found by
        left_out: list[Path] = []
        for pattern in self.paths:
            found, others = _find(expanded(pattern))
            if not found:
                names = f"; what is there has other endings: {some(others)}" if others else ""
                raise ZooError(
                    f"corpus path {pattern!r}: no such file, and no folder or pattern with text files{names}"
                )
            for path in found:
                files.setdefault(path.resolve(), path)
            left_out += others
        return list(files.values()), [p for p in dict.fromkeys(left_out) if p.resolve() not in files]


def _find(path: Path) -> tuple[list[Path], list[Path]]:
    """What a path, folder or pattern leads to: files to read, and others, both in order."""
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
    """A data set on the Hugging Face hub, or a local folder laid out like one.

    Args:
        name: Name on the hub, such as roneneldan/TinyStories, or a local folder.
        config: Name of the data set's configuration, if it has several.
        split: Split to read; the zoo splits it again by document.
        text_field: Field that holds the text.
        revision: Branch, tag or commit.
        streaming: Read documents as they arrive instead of downloading the whole data set first.
        max_documents: Stop after so many documents.
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

        A hub data set is known by its name, revision and what is read of it; the hub is not asked whether a branch
        has moved since. A local folder is known by its content.
        """
        options = (self.name, self.config, self.split, self.text_field, self.revision, self.max_documents)
        folder = Path(self.name)
        content = _hash_files(sorted(p for p in folder.rglob("*") if p.is_file())) if folder.is_dir() else ""
        return f"{options!r}{content}"

    def _texts(self, source: str) -> Iterator[str | None]:
        """The text of every row, None for a null."""
        import datasets

        options = {"split": self.split, "revision": self.revision, "streaming": self.streaming}
        try:
            for number, row in enumerate(datasets.load_dataset(self.name, self.config, **options), 1):
                if self.text_field not in row:
                    raise ZooError(f"{source} has no text in field {self.text_field!r}; its fields are {sorted(row)}")
                yield text_files.check_text(row[self.text_field], self.text_field, f"{source}, row {number}")
        except ZooError:
            raise
        except Exception as error:
            hint = "; LocalFiles reads the text alone" if Path(self.name).is_dir() else ""
            raise ZooError(f"{source} cannot be read: {_cause(error)}{hint}") from error


class _Documents:
    """Tells documents from texts that are none, and counts these."""

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
    """The first line of what is at the bottom of an exception's chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]


def _hash_files(paths: list[Path]) -> str:
    """SHA-256 over the files' contents, in order."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as f:
            total.update(hashlib.file_digest(f, "sha256").digest())
    return total.hexdigest()


def some(names: Iterable[Any], shown: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = list(map(str, names))
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
