"""Where text comes from. A corpus yields documents in a fixed order and names its content by a fingerprint."""

import glob
import hashlib
import os
import re
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from zoo.errors import ZooError


class Corpus(ABC):
    """Text as a sequence of documents."""

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """The documents, in an order that depends on nothing but the corpus.

        Raises:
            ZooError: If the corpus cannot be read.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A name for the content, which changes whenever the content does."""


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
    """Files on this machine: text, JSON lines or Parquet, told apart by their endings.

    Args:
        paths: Files, folders (searched for files with these endings) or patterns such as data/*.txt.
        separator: Splits a text file into documents. By default each text file is one document; two blank lines
            between documents are written "\n\n\n".
        text_field: Field that holds the text in .jsonl, .json and .parquet files.
    """

    ENDINGS = (".txt", ".md", ".jsonl", ".json", ".parquet")

    def __init__(self, paths: list[str], separator: str | None = None, text_field: str = "text") -> None:
        self.paths, self.separator, self.text_field = paths, separator, text_field

    def documents(self) -> Iterator[str]:
        """See `Corpus.documents`."""
        for path in self._files():
            if path.stat().st_size == 0:
                continue
            if path.suffix in (".jsonl", ".json", ".parquet"):
                builder, file = "parquet" if path.suffix == ".parquet" else "json", glob.escape(str(path))
                yield from _texts(str(path), self.text_field, builder, data_files=file, split="train", streaming=True)
            else:
                try:
                    text = path.read_text("utf-8")
                except UnicodeDecodeError as error:
                    raise ZooError(f"{path} is not UTF-8 text: byte {error.start} cannot be decoded") from None
                yield from filter(str.strip, text.split(self.separator) if self.separator else [text])

    def fingerprint(self) -> str:
        """See `Corpus.fingerprint`."""
        files = self._files()
        endings = [p.suffix for p in files]
        return f"{_hash_files(files)}:{endings}:{self.separator!r}:{self.text_field}"

    def _files(self) -> list[Path]:
        files: list[Path] = []
        for pattern in self.paths:
            path = Path(pattern).expanduser()
            if path.is_dir():
                found = [p for p in sorted(path.rglob("*")) if p.suffix in self.ENDINGS and p.is_file()]
            elif path.is_file():
                found = [path]
            else:
                matches = Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))
                found = sorted(p for p in matches if p.is_file())
            if not found:
                raise ZooError(f"corpus path {pattern!r}: no such file, and no folder or pattern with text files")
            files += found
        return files


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
        options = {"split": self.split, "revision": self.revision, "streaming": self.streaming}
        texts = _texts(f"data set {self.name!r}", self.text_field, self.name, self.config, **options)
        yield from islice(texts, self.max_documents)

    def fingerprint(self) -> str:
        """See `Corpus.fingerprint`.

        A hub data set is known by its name, revision and what is read of it; the hub is not asked whether a branch
        has moved since. A local folder is known by its content.
        """
        options = (self.name, self.config, self.split, self.text_field, self.revision, self.max_documents)
        folder = Path(self.name)
        content = _hash_files(sorted(p for p in folder.rglob("*") if p.is_file())) if folder.is_dir() else ""
        return f"{options!r}{content}"


def _texts(source: str, field: str, *arguments: Any, **options: Any) -> Iterator[str]:
    """One field of every row that `datasets.load_dataset` gives for the arguments."""
    import datasets

    try:
        for row in datasets.load_dataset(*arguments, **options):
            if not isinstance(row.get(field), str):
                raise ZooError(f"{source} has no text in field {field!r}; its fields are {sorted(row)}")
            yield row[field]
    except ZooError:
        raise
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise ZooError(f"{source} cannot be read: {first_line}") from error


def _hash_files(paths: list[Path]) -> str:
    """SHA-256 over the files' contents, in order."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as f:
            total.update(hashlib.file_digest(f, "sha256").digest())
    return total.hexdigest()
