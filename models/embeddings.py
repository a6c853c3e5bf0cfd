"""Initial token embeddings of a GPT-2: random rows of several kinds, or rows derived from another model's embedding."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from zoo import null_models
from zoo.described import Described
from zoo.errors import ZooError
from zoo.source import embedding


class Embedding(Described, ABC):
    """Initial rows of a token embedding.

    Args:
        seed: Seed of the random rows. By default they depend on the run's own seed.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    @abstractmethod
    def rows(self, vocab_size: int, d_model: int) -> Tensor:
        """Return the initial embedding, (vocab_size, d_model) float32.

        Raises:
            ZooError: If rows of this shape cannot be made.
        """

    def _generator(self) -> torch.Generator | None:
        return None if self.seed is None else torch.Generator().manual_seed(self.seed)


class GaussianEmbedding(Embedding):
    """Rows with independent N(0, std²) coordinates. This is also GPT-2's own initialisation.

    Args:
        std: Standard deviation of every coordinate.
        seed: Seed of the random rows. By default they depend on the run's own seed.
    """

    def __init__(self, std: float = 0.02, seed: int | None = None) -> None:
        super().__init__(seed)
        if std <= 0:
            raise ZooError(f"std is {std}; it must be positive")
        self.std = std

    def rows(self, vocab_size: int, d_model: int) -> Tensor:
        """See `Embedding.rows`."""
        return null_models.gaussian(vocab_size, d_model, self._generator(), self.std)


class LowCoherenceEmbedding(Embedding):
    """Random rows of equal length, redrawn until no two have |cosine| above a bound.

    Args:
        max_cosine: The bound, above 0 and at most 1. Without a bound, the largest |cosine| of random rows is about
            sqrt(4 ln(V) / D).
        std: Standard deviation of Gaussian rows of the same length: every row has length std * sqrt(D).
        seed: Seed of the random rows. By default they depend on the run's own seed.
    """

    def __init__(self, max_cosine: float, std: float = 0.02, seed: int | None = None) -> None:
        super().__init__(seed)
        self.max_cosine, self.std = max_cosine, std
        self.reached: float | None = None

    def rows(self, vocab_size: int, d_model: int) -> Tensor:
        """See `Embedding.rows`; also stores the largest |cosine| between the rows in `self.reached`."""
        rows, self.reached = null_models.low_coherence(vocab_size, d_model, self.max_cosine, self._generator())
        return rows * self.std * d_model**0.5


class CopiedEmbedding(Embedding):
    """Unchanged copy of another checkpoint's embedding.

    Args:
        source: What `zoo.embedding` takes: the name of a pretrained checkpoint (listed by `python -m zoo list`), a
            folder or file, or hf:org/repo[/folder or file][@revision].
        step: Training step, for a source that holds several. By default the last.
        tensor: Name of the tensor; by default the token embedding, if its name is a usual one.
    """

    def __init__(self, source: str, step: int | None = None, tensor: str | None = None) -> None:
        super().__init__()
        self.source, self.step, self.tensor = source, step, tensor

    def rows(self, vocab_size: int, d_model: int) -> Tensor:
        """See `Embedding.rows`."""
        W = embedding(self.source, self.step, self.tensor)
        if W.shape != (vocab_size, d_model):
            raise ZooError(
                f"the embedding of {self.source} is {W.shape[0]} x {W.shape[1]}; the model requires "
                f"{vocab_size} x {d_model} (vocab_size x d_model)"
            )
        return W


class _DerivedEmbedding(CopiedEmbedding):
    """Random rows that keep one property of another checkpoint's embedding.

    Args:
        source: What `zoo.embedding` takes: the name of a pretrained checkpoint (listed by `python -m zoo list`), a
            folder or file, or hf:org/repo[/folder or file][@revision].
        step: Training step, for a source that holds several. By default the last.
        seed: Seed of the random rows. By default they depend on the run's own seed.
        tensor: Name of the tensor; by default the token embedding, if its name is a usual one.
    """

    def __init__(
        self, source: str, step: int | None = None, seed: int | None = None, tensor: str | None = None
    ) -> None:
        super().__init__(source, step, tensor)
        self.seed = seed


class NormMatchedEmbedding(_DerivedEmbedding):
    """Rows in isotropic random directions. Every token's row has the norm of its row in another checkpoint.

    Args:
        source: What `zoo.embedding` takes: the name of a pretrained checkpoint (listed by `python -m zoo list`), a
            folder or file, or hf:org/repo[/folder or file][@revision].
        step: Training step, for a source that holds several; the last by default.
        seed: Seed of the random rows. By default they depend on the run's own seed.
        tensor: Name of the tensor; by default the token embedding, if its name is a usual one.
    """

    def rows(self, vocab_size: int, d_model: int) -> Tensor:
        """See `Embedding.rows`."""
        return null_models.norm_matched(super().rows(vocab_size, d_model), self._generator())


class CovarianceMatchedEmbedding(_DerivedEmbedding):
    """Gaussian rows with the mean and covariance of another checkpoint's embedding.

    Args:
        source: What `zoo.embedding` takes: the name of a pretrained checkpoint (listed by `python -m zoo list`), a
            folder or file, or hf:org/repo[/folder or file][@revision].
        step: Training step, for a source that holds several; the last by default.
        seed: Seed of the random rows. By default they depend on the run's own seed.
        tensor: Name of the tensor; by default the token embedding, if its name is a usual one.
    """

    def rows(self, vocab_size: int, d_model: int) -> Tensor:
        """See `Embedding.rows`."""
        return null_models.covariance_matched(super().rows(vocab_size, d_model), self._generator())


class PermutedEmbedding(_DerivedEmbedding):
    """Rows of another checkpoint's embedding, assigned to the tokens at random.

    Args:
        source: What `zoo.embedding` takes: the name of a pretrained checkpoint (listed by `python -m zoo list`), a
            folder or file, or hf:org/repo[/folder or file][@revision].
        step: Training step, for a source that holds several; the last by default.
        seed: Seed of the random rows. By default they depend on the run's own seed.
        tensor: Name of the tensor; by default the token embedding, if its name is a usual one.
    """

    def rows(self, vocab_size: int, d_model: int) -> Tensor:
        """See `Embedding.rows`."""
        return null_models.permuted_rows(super().rows(vocab_size, d_model), self._generator())


def row_mask(rows: str | list[int], vocab_size: int) -> Tensor:
    """Return a mask of the embedding rows that a description selects, (vocab_size,) bool.

    Args:
        rows: "all", "none", a list of token ids, or ids and ranges such as "0-255,300,512-", which include both ends.
        vocab_size: Number of rows V.

    Raises:
        ZooError: If the description cannot be read or selects a row that does not exist.
    """
    mask = torch.zeros(vocab_size, dtype=torch.bool)
    if rows in ("all", "none"):
        return mask.fill_(rows == "all")
    parts = [str(i) for i in rows] if isinstance(rows, list) else rows.split(",")
    for part in parts:
        try:
            first, dash, last = part.strip().partition("-")
            start, stop = int(first), (int(last or vocab_size - 1) if dash else int(first)) + 1
        except ValueError:
            raise ZooError(f"rows {rows!r}: {part!r} is not a token id, a range like 0-255, 'all' or 'none'") from None
        if not 0 <= start < stop <= vocab_size:
            raise ZooError(f"rows {rows!r}: {part!r} is not within the vocabulary, 0-{vocab_size - 1}")
        mask[start:stop] = True
    return mask
