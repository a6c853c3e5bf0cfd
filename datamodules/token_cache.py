"""Cache of a tokenized corpus on disk. It is written once, checked before use and memory-mapped."""

import hashlib
import json
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from lightning.pytorch.utilities import rank_zero_info
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from tokenizers import Tokenizer

from zoo.datamodules.corpora import Corpus, some
from zoo.datamodules.text_encoder import TextEncoder
from zoo.datamodules.tokenizers import TokenizerSource
from zoo.errors import ZooError
from zoo.paths import make_folder

SPLITS = ("train", "val", "test")
EVALUATED = ("val", "test")
FILES = (
    *(f"{split}.bin" for split in SPLITS),
    *(f"{split}_bytes.bin" for split in EVALUATED),
    *("token_counts.npy", "tokenizer.json"),
)
FORMAT = 3
BATCH_DOCUMENTS, BATCH_CHARACTERS = 256, 2**22  # tokenized at once; the last may exceed them
COPIES = 0.01  # share of documents above which a note reports copies
NOT_LEARNED = ("lost", "unknown", "spaces")  # bytes of the text that no token stands for


class TokenCache:
    """A corpus as token ids, split by document into train, val and test.

    The folder is named by a hash of the corpus's content, the tokenizer and the split, so that a change of any of them
    leads to a new cache. It holds `train.bin`, `val.bin`, `test.bin` (little-endian uint16, or uint32 for vocabularies
    over 65,536), `val_bytes.bin` and `test_bytes.bin` (little-endian uint32: bytes of the text that each token stands
    for), `token_counts.npy`, `tokenizer.json` and `meta.json`. The last file holds the sizes of the splits, the amount
    of text that was left out, and the SHA-256 of every file and of its own content. The folder is written under another
    name, under a lock, and renamed when it is complete.

    Args:
        root: Folder of all caches.
        corpus: Source of documents.
        source: Source of the tokenizer.
        val_fraction: Share of documents held out for validation.
        test_fraction: Share of documents held out for testing.
        special_tokens: Whether names of special tokens in a document are read as these tokens, see `TextEncoder`.
        max_lost: Largest share of the text, in bytes, that the tokenizer may lose: text for which it has no token or
            only its unknown token. White space between words does not count.
    """

    def __init__(
        self,
        root: Path,
        corpus: Corpus,
        source: TokenizerSource,
        val_fraction: float,
        test_fraction: float,
        special_tokens: bool = False,
        max_lost: float = 0.01,
    ) -> None:
        self.corpus, self.source = corpus, source
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.special_tokens, self.max_lost = special_tokens, max_lost
        self.corpus_fingerprint = hashlib.sha256(corpus.fingerprint().encode()).hexdigest()
        key = f"{FORMAT} {self.corpus_fingerprint} {source.fingerprint()} {val_fraction} {test_fraction}"
        key += " special tokens" * special_tokens
        self.folder = root / f"tokens-{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def prepare(self) -> None:
        """Write the cache or, if it exists, check every byte of it. Then report what it leaves out of the text.

        Raises:
            ZooError: If the corpus is unusable, the cache is damaged, or the tokenizer loses too much of the text.
        """
        make_folder(self.folder.parent, "data.cache_dir, or by ZOO_CACHE in the environment")
        with FileLock(f"{self.folder}.lock"):
            if self.folder.exists():
                self._verify()
            else:
                self._make()
        self._report()

    def _make(self) -> None:
        partial = self.folder.with_name(f"{self.folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            self._write(partial)
            os.replace(partial, self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _report(self) -> None:
        """Print what is left out of the text, and raise an error if the tokenizer loses too much."""
        meta = self.meta
        if left_out := self.corpus.left_out():
            rank_zero_info(f"note: {len(left_out)} files or folders of the corpus are not read: {some(left_out)}")
        if meta["skipped"]:
            rank_zero_info(f"note: the corpus has {' and '.join(meta['skipped'])}, which are left out")
        n_documents = sum(split["documents"] for split in meta["splits"].values())
        if meta["copies"] > COPIES * n_documents:
            rank_zero_info(
                f"note: {meta['copies']} of {n_documents} documents are copies of others; copies are in the same split"
            )
        whole, lost, unknown, spaces = (
            sum(split[key] for split in meta["splits"].values()) for key in ("bytes", *NOT_LEARNED)
        )
        share = (lost + unknown) / max(whole, 1)
        told = (
            f"the tokenizer loses {100 * share:.2g} % of the text: of {whole:,} bytes it has no token for {lost:,} and "
            f"only its unknown token for {unknown:,}"
        )
        if share > self.max_lost:
            raise ZooError(f"{told}; use another tokenizer, or a larger data.max_lost than {self.max_lost:g}")
        if share:
            rank_zero_info(f"note: {told}")
        if spaces:
            rank_zero_info(
                f"note: the tokenizer leaves out white space, {100 * spaces / whole:.2g} % of the text; bits per byte "
                "count only the other bytes"
            )

    @property
    def meta(self) -> dict[str, Any]:
        """Content of `meta.json`: token and byte counts of every split, what was left out, and the files' hashes."""
        try:
            meta = json.loads((self.folder / "meta.json").read_text("utf-8"))
            for name in FILES:
                meta["sha256"][name]
            for split in SPLITS:
                [meta["splits"][split][key] for key in ("tokens", "bytes", *NOT_LEARNED)]
            meta["corpus_fingerprint"], meta["skipped"], meta["copies"]
            if meta.pop("own_sha256") != _digest(meta):
                raise ValueError
            return meta
        except (OSError, ValueError, KeyError, TypeError):
            raise self._damaged("meta.json") from None

    def tokens(self, split: str) -> np.ndarray:
        """Return the memory-mapped token ids of a split, (N,) uint16 or uint32."""
        return np.memmap(self.folder / f"{split}.bin", self._dtype, mode="r")

    def token_bytes(self, split: str) -> np.ndarray:
        """Return, memory-mapped, the bytes of text that each token of val or test stands for, (N,) uint32."""
        return np.memmap(self.folder / f"{split}_bytes.bin", "<u4", mode="r")

    def token_counts(self) -> np.ndarray:
        """Return how often each token occurs in the training split, (V,) int64."""
        return np.load(self.folder / "token_counts.npy", allow_pickle=False)

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer that made the tokens."""
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    @property
    def _dtype(self) -> str:
        return "<u2" if self.source.vocab_size <= 2**16 else "<u4"

    def _split(self, document: str) -> str:
        """Return the split of a document. It depends only on the text, so that copies are in the same split."""
        u = _number(document) / 2**64
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
            tokenizer.no_truncation()
            tokenizer.no_padding()
            encoder = TextEncoder(tokenizer, self.special_tokens, self.source.end_of_text)
            stats, counts, copies = self._write_tokens(folder, documents, encoder)
        self._check_splits({split: stats[split]["documents"] for split in SPLITS})
        np.save(folder / "token_counts.npy", counts)
        tokenizer.save(str(folder / "tokenizer.json"))
        meta = {
            "format": FORMAT,
            "corpus_fingerprint": self.corpus_fingerprint,
            "splits": stats,
            "skipped": list(self.corpus.skipped),
            "copies": copies,
            "sha256": {name: _sha256(folder / name) for name in FILES},
        }
        meta["own_sha256"] = _digest(meta)
        (folder / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")

    def _training_documents(self, documents: Iterable[str]) -> Iterator[str]:
        """Yield the documents of the training split. After the last document, raise an error if a split is empty."""
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
                    "(LocalFiles can split files at a separator) or larger fractions"
                )

    def _write_tokens(
        self, folder: Path, documents: Iterable[str], encoder: TextEncoder
    ) -> tuple[dict[str, dict[str, int]], np.ndarray, int]:
        """Write the tokens of the splits.

        Returns:
            The sizes of the splits, the token counts of the training split (V,), and the number of documents that are
            copies of others.
        """
        stats = {split: dict.fromkeys(("documents", "tokens", "bytes", *NOT_LEARNED), 0) for split in SPLITS}
        counts = np.zeros(self.source.vocab_size, np.int64)
        digests = array("Q")  # hashes of all documents that are not empty
        with ExitStack() as stack:
            files = {name: stack.enter_context((folder / name).open("wb")) for name in FILES if name.endswith(".bin")}
            for batch in _batches(documents):
                for document, encoded in zip(batch, encoder.encode(batch), strict=True):
                    split = self._split(document)
                    ids = np.append(encoded.ids, encoder.end).astype(self._dtype)
                    files[f"{split}.bin"].write(ids.tobytes())
                    if split in EVALUATED:
                        files[f"{split}_bytes.bin"].write(np.append(encoded.n_bytes, 0).astype("<u4").tobytes())
                    else:
                        counts += np.bincount(ids, minlength=len(counts))
                    stats[split]["documents"] += 1
                    stats[split]["tokens"] += len(ids)
                    stats[split]["bytes"] += len(document.encode())
                    for key in NOT_LEARNED:
                        stats[split][key] += getattr(encoded, key)
                    if document:
                        digests.append(_number(document))
        return stats, counts, len(digests) - len(np.unique(np.frombuffer(digests, np.uint64)))

    def _verify(self) -> None:
        digests = self.meta["sha256"]
        for name in FILES:
            path = self.folder / name
            if not path.is_file() or _sha256(path) != digests[name]:
                raise self._damaged(name)

    def _damaged(self, name: str) -> ZooError:
        return ZooError(f"token cache {self.folder} is damaged: {name}; delete the folder to rebuild it")


def _number(document: str) -> int:
    """Return a hash of a document, an integer below 2**64."""
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big")


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
