"""Tokens on disk: written once, fingerprinted, memory-mapped, checked before use."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from tokenizers import Tokenizer

from zoo.datamodules.corpora import Corpus
from zoo.datamodules.tokenizers import TokenizerSource, end_of_text_id
from zoo.errors import ZooError

SPLITS = ("train", "val", "test")
FILES = (*(f"{split}.bin" for split in SPLITS), "token_counts.npy", "tokenizer.json")
FORMAT = 2


class TokenCache:
    """A corpus as token ids, split by document into train, val and test.

    The folder is named by a hash of the corpus's content, the tokenizer and the split, so a change of any of them
    makes a new cache. It holds `train.bin`, `val.bin`, `test.bin` (little-endian uint16, or uint32 for vocabularies
    over 65,536), `token_counts.npy`, `tokenizer.json` and `meta.json` with every file's SHA-256 and its own. It is
    written to a neighbouring folder and renamed when complete, under a lock.

    Args:
        root: Folder of all caches.
        corpus: Source of documents.
        source: Source of the tokenizer.
        val_fraction: Share of documents held out for validation.
        test_fraction: Share of documents held out for testing.
    """

    def __init__(
        self, root: Path, corpus: Corpus, source: TokenizerSource, val_fraction: float, test_fraction: float
    ) -> None:
        self.corpus, self.source = corpus, source
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.corpus_fingerprint = hashlib.sha256(corpus.fingerprint().encode()).hexdigest()
        key = f"{FORMAT} {self.corpus_fingerprint} {source.fingerprint()} {val_fraction} {test_fraction}"
        self.folder = root / f"tokens-{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def prepare(self) -> None:
        """Write the cache if there is none, and check every byte of it if there is.

        Raises:
            ZooError: If the corpus is unusable or the cache is damaged.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.folder}.lock"):
            if self.folder.exists():
                return self._verify()
            partial = self.folder.with_name(f"{self.folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                self._write(partial)
                os.replace(partial, self.folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    @property
    def meta(self) -> dict[str, Any]:
        """Token and byte counts of every split, and the files' hashes."""
        try:
            meta = json.loads((self.folder / "meta.json").read_text("utf-8"))
            for name in FILES:
                meta["sha256"][name]
            for split in SPLITS:
                meta["splits"][split]["tokens"], meta["splits"][split]["bytes"]
            meta["corpus_fingerprint"]
            if meta.pop("own_sha256") != _digest(meta):
                raise ValueError
            return meta
        except (OSError, ValueError, KeyError, TypeError):
            raise self._damaged("meta.json") from None

    def tokens(self, split: str) -> np.ndarray:
        """Memory-mapped token ids of a split, (N,) uint16 or uint32."""
        return np.memmap(self.folder / f"{split}.bin", self._dtype, mode="r")

    def token_counts(self) -> np.ndarray:
        """How often each token occurs in the training split, (V,) int64."""
        return np.load(self.folder / "token_counts.npy", allow_pickle=False)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer the tokens were made with."""
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    @property
    def _dtype(self) -> str:
        return "<u2" if self.source.vocab_size <= 2**16 else "<u4"

    def _split(self, document: str) -> str:
        """A document's split depends on its text alone, so equal documents never straddle two splits."""
        digest = hashlib.sha256(document.encode("utf-8", "surrogatepass")).digest()
        u = int.from_bytes(digest[:8], "big") / 2**64
        return "val" if u < self.val_fraction else "test" if u < self.val_fraction + self.test_fraction else "train"

    def _write(self, folder: Path) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, transient=True) as progress:
            training = progress.add_task("making the tokenizer: documents", total=None)
            documents = progress.track(self.corpus.documents(), task_id=training)
            tokenizer = self.source.tokenizer(self._training_documents(documents))
            progress.remove_task(training)
            tokenizing = progress.add_task("tokenizing: documents", total=None)
            documents = progress.track(self.corpus.documents(), task_id=tokenizing)
            stats, counts = self._write_tokens(folder, documents, tokenizer)
        self._check_splits({split: stats[split]["documents"] for split in SPLITS})
        np.save(folder / "token_counts.npy", counts)
        tokenizer.save(str(folder / "tokenizer.json"))
        meta = {
            "format": FORMAT,
            "corpus_fingerprint": self.corpus_fingerprint,
            "splits": stats,
            "sha256": {name: _sha256(folder / name) for name in FILES},
        }
        meta["own_sha256"] = _digest(meta)
        (folder / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")

    def _training_documents(self, documents: Iterable[str]) -> Iterator[str]:
        """The training split's documents; if all are read and a split turns out to be empty, that is the error."""
        splits: Counter[str] = Counter()
        for document in documents:
            split = self._split(document)
            splits[split] += 1
            if split == "train":
                yield document
        self._check_splits(splits)

    def _check_splits(self, splits: Mapping[str, int]) -> None:
        for split in SPLITS:
            if not splits.get(split):
                raise ZooError(
                    f"no document fell into the {split} split ({sum(splits.values())} documents in all, val_fraction "
                    f"{self.val_fraction}, test_fraction {self.test_fraction}); use more or smaller documents "
                    "(LocalFiles has a separator) or larger fractions"
                )

    def _write_tokens(
        self, folder: Path, documents: Iterable[str], tokenizer: Tokenizer
    ) -> tuple[dict[str, dict[str, int]], np.ndarray]:
        """Write the splits' tokens; returns their sizes and the training split's token counts (V,)."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        end = end_of_text_id(tokenizer)
        stats = {split: {"documents": 0, "tokens": 0, "bytes": 0} for split in SPLITS}
        counts = np.zeros(self.source.vocab_size, np.int64)
        with ExitStack() as stack:
            files = {split: stack.enter_context((folder / f"{split}.bin").open("wb")) for split in SPLITS}
            for batch in _batches(iter(documents)):
                encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
                for document, encoding in zip(batch, encodings, strict=True):
                    split = self._split(document)
                    ids = np.array([*encoding.ids, end], self._dtype)
                    files[split].write(ids.tobytes())
                    stats[split]["documents"] += 1
                    stats[split]["tokens"] += len(ids)
                    stats[split]["bytes"] += len(document.encode("utf-8", "surrogatepass"))
                    if split == "train":
                        counts += np.bincount(ids, minlength=len(counts))
        return stats, counts

    def _verify(self) -> None:
        digests = self.meta["sha256"]
        for name in FILES:
            path = self.folder / name
            if not path.is_file() or _sha256(path) != digests[name]:
                raise self._damaged(name)

    def _damaged(self, name: str) -> ZooError:
        return ZooError(f"token cache {self.folder} is damaged: {name}; delete the folder to rebuild it")


def _batches(documents: Iterator[str], size: int = 256) -> Iterator[list[str]]:
    while batch := list(islice(documents, size)):
        yield batch


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
