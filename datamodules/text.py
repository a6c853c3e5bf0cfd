"""Datamodule whose batches are windows of tokens from a text corpus."""

import os
from collections.abc import Iterator

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.datamodules.corpora import Corpus, StdlibCorpus
from zoo.datamodules.resumable import ResumableLoader
from zoo.datamodules.text_encoder import TextEncoder
from zoo.datamodules.token_cache import TokenCache
from zoo.datamodules.tokenizers import TokenizerSource, TrainedBPE
from zoo.datamodules.zoo_datamodule import ZooDataModule
from zoo.errors import ZooError
from zoo.paths import expanded
from zoo.token_texts import decoded_tokens


class TextDataModule(ZooDataModule):
    """Next-token prediction on a corpus that is tokenized once and memory-mapped.

    A batch depends only on (seed, step, rank). Resuming is therefore exact, no two ranks get the same window, and the
    global batches do not depend on the number of ranks.

    Args:
        corpus: Source of documents. By default Python's standard library, which needs no download.
        tokenizer: Source of the tokenizer. By default BPE with 4,096 tokens, trained on the corpus.
        context_length: Number of tokens per sequence, T.
        batch_size: Sequences per batch over all devices together. With gradient accumulation, each accumulation step
            takes one such batch.
        val_fraction: Share of documents held out for validation.
        test_fraction: Share of documents held out for testing.
        seed: Seed for the order of the training windows.
        prompts: Texts that `predict` continues.
        cache_dir: Folder of the token caches. Default $ZOO_CACHE or ~/.cache/superposition-zoo.
        special_tokens: Whether the name of a special token in a document or prompt, such as <|endoftext|>, is read as
            that token. By default it is read as ordinary text.
        max_lost: Largest share of the text, in bytes, that the tokenizer may lose: text for which it has no token or
            only its unknown token. White space between words does not count.

    Raises:
        ZooError: If an argument is out of range, or the corpus, tokenizer or cache is unusable.
    """

    batches = "tokens"

    def __init__(
        self,
        corpus: Corpus | None = None,
        tokenizer: TokenizerSource | None = None,
        context_length: int = 256,
        batch_size: int = 16,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        seed: int = 0,
        prompts: list[str] = ["import "],  # noqa: B006 - shown by --help, never mutated
        cache_dir: str | None = None,
        special_tokens: bool = False,
        max_lost: float = 0.01,
    ) -> None:
        super().__init__()
        for name, value in (("context_length", context_length), ("batch_size", batch_size)):
            if value < 1:
                raise ZooError(f"{name} is {value}; it must be at least 1")
        if min(val_fraction, test_fraction) <= 0 or val_fraction + test_fraction >= 1:
            raise ZooError(f"val_fraction {val_fraction} and test_fraction {test_fraction} leave a split empty")
        if seed < 0:
            raise ZooError(f"data.seed is {seed}; it must not be negative")
        if not 0 <= max_lost <= 1:
            raise ZooError(f"max_lost is {max_lost}; it is a share, from 0 to 1")
        if not prompts or not all(prompts):
            raise ZooError(f"prompts is {prompts}; give at least one text, and none that is empty")
        self.source = tokenizer or TrainedBPE()
        self.context_length, self.batch_size = context_length, batch_size
        self.seed, self.prompts = seed, prompts
        root = expanded(cache_dir or os.environ.get("ZOO_CACHE") or "~/.cache/superposition-zoo")
        fractions = (val_fraction, test_fraction)
        self.cache = TokenCache(root, corpus or StdlibCorpus(), self.source, *fractions, special_tokens, max_lost)

    @property
    def vocab_size(self) -> int:
        """Number of tokens V, known before any text is read."""
        return self.source.vocab_size

    def prepare_data(self) -> None:
        """Tokenize the corpus, or check the token cache that an earlier run wrote."""
        self.cache.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Open the token cache."""
        meta = self.cache.meta
        self.corpus_fingerprint: str = meta["corpus_fingerprint"]
        need, have = (self.batch_size + 2) * self.context_length, meta["splits"]["train"]["tokens"]
        if have < need:
            raise ZooError(
                f"the training split has {have} tokens; one batch of {self.batch_size} x {self.context_length} tokens "
                f"needs {need}; lower batch_size or context_length"
            )
        self.row_counts = torch.from_numpy(self.cache.token_counts())  # (V,) int64, training split
        self.tokenizer: Tokenizer = self.cache.tokenizer()
        self.row_labels = decoded_tokens(self.tokenizer, self.vocab_size)

    def train_dataloader(self) -> "TokenLoader":
        """Return a loader of shuffled windows. In each epoch, the windows start at another random offset."""
        rank, world_size = self._ranks()
        tokens = self.cache.tokens("train")
        return TokenLoader(tokens, self.context_length, self.batch_size, self.seed, rank, world_size)

    def val_dataloader(self) -> "EvaluationLoader":
        """Return a loader of every token of the validation split once, in windows in a fixed random order."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> "EvaluationLoader":
        """Return a loader of every token of the test split once, in windows in a fixed random order."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Return a loader of one prompt per batch, (1, T)."""
        encoder = TextEncoder(self.tokenizer, self.cache.special_tokens, self.source.end_of_text)
        batches = []
        for prompt in self.prompts:
            (encoded,) = encoder.encode([prompt])
            if not len(encoded.ids):
                raise ZooError(f"the tokenizer has no token for any part of prompt {prompt!r}; give another prompt")
            if missing := encoded.lost + encoded.unknown:
                size = len(prompt.encode())
                rank_zero_info(f"note: the tokenizer loses {missing} of the {size} bytes of prompt {prompt!r}")
            batches.append({"input_ids": torch.from_numpy(encoded.ids)[None]})
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def _evaluation_loader(self, split: str) -> "EvaluationLoader":
        tokens, token_bytes = self.cache.tokens(split), self.cache.token_bytes(split)
        return EvaluationLoader(tokens, self.context_length, self.batch_size, *self._ranks(), token_bytes)

    def _ranks(self) -> tuple[int, int]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self.batch_size % world_size:
            raise ZooError(
                f"batch_size {self.batch_size} (over all devices) is not a multiple of the number of devices, "
                f"{world_size}"
            )
        return rank, world_size


class TokenLoader(ResumableLoader):
    """Endless batches of training windows, whose order is shuffled again in every epoch.

    Args:
        tokens: Token ids (N,).
        context_length: Number of tokens per window, T.
        batch_size: Windows per global batch.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes; each gets batch_size / world_size windows of every global batch.
    """

    def __init__(
        self, tokens: np.ndarray, context_length: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__()
        self.tokens, self.context_length, self.batch_size, self.seed = tokens, context_length, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.n_windows = (len(tokens) - 1) // context_length - 1  # one fewer leaves room for an offset below T
        self._order: tuple[int, np.ndarray, int] = (-1, np.empty(0), 0)

    def __len__(self) -> int:
        return self.n_windows // self.batch_size

    def batch(self, step: int) -> dict[str, Tensor]:
        """Return this rank's part of global batch `step`: `input_ids` and `targets`, (B / world_size, T) int64."""
        epoch, index = divmod(step, len(self))
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self._order = (epoch, rng.permutation(self.n_windows), int(rng.integers(self.context_length)))
        _, order, offset = self._order
        share = self.batch_size // self.world_size
        first = index * self.batch_size + self.rank * share
        starts = order[first : first + share] * self.context_length + offset
        windows = np.stack([self.tokens[s : s + self.context_length + 1] for s in starts]).astype(np.int64)
        return {"input_ids": torch.from_numpy(windows[:, :-1]), "targets": torch.from_numpy(windows[:, 1:])}


class EvaluationLoader:
    """Evaluation batches that hold every next-token prediction of a split once, in windows of T tokens.

    The windows of a batch are divided among the ranks. Padding has target -100. The windows come in a fixed random
    order, so that the first few batches are a random sample of the split.

    Args:
        tokens: Token ids (N,).
        context_length: Number of tokens per window, T.
        batch_size: Windows per global batch.
        rank: Rank of this process.
        world_size: Number of processes.
        token_bytes: Number of bytes of the text that each token stands for, (N,). If given, batches also hold
            `target_bytes` (B, T) int64, the bytes of every target, which are 0 at padding.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        context_length: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        token_bytes: np.ndarray | None = None,
    ) -> None:
        self.token_bytes = token_bytes
        self.tokens, self.context_length, self.batch_size = tokens, context_length, batch_size
        self.rank, self.world_size = rank, world_size
        self.n_windows = -(-(len(tokens) - 1) // context_length)

    def __len__(self) -> int:
        return -(-self.n_windows // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        T, share = self.context_length, self.batch_size // self.world_size
        order = np.random.default_rng(0).permutation(self.n_windows)
        for first in range(0, self.n_windows, self.batch_size):
            input_ids, targets = np.zeros((share, T), np.int64), np.full((share, T), -100, np.int64)
            target_bytes = np.zeros((share, T), np.int64)
            mine = order[first : first + self.batch_size][self.rank * share : (self.rank + 1) * share]
            for row, window in enumerate(mine):
                here = slice(window * T, (window + 1) * T + 1)
                tokens = self.tokens[here]
                input_ids[row, : len(tokens) - 1] = tokens[:-1]
                targets[row, : len(tokens) - 1] = tokens[1:]
                if self.token_bytes is not None:
                    target_bytes[row, : len(tokens) - 1] = self.token_bytes[here][1:]
            batch = {"input_ids": torch.from_numpy(input_ids), "targets": torch.from_numpy(targets)}
            yield batch if self.token_bytes is None else {**batch, "target_bytes": torch.from_numpy(target_bytes)}
