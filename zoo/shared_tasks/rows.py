"""Tasks that select the rows of an embedding for a study, and base classes and functions for such studies."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jsonargparse.typing import NonNegativeInt

from zoo.errors import ZooError
from zoo.matrices import null_model
from zoo.paths import expanded
from zoo.row_choice import RowChoice, chosen_rows
from zoo.source import Source
from zoo.study import Result, Study, Task, Work

if TYPE_CHECKING:
    import torch

    from zoo.datamodules import EmbeddingRowsDataModule

WORD_STARTS = ("\u2581", "\u0120")  # SentencePiece's and byte-level BPE's marks of a leading space
LEAST_ROWS, LEAST_DIMENSIONS = 40, 4


@dataclass(frozen=True)
class UntrainedRows(Task):
    """Find the rows that look untrained in any of several runs at one step, and read the tokens of all rows."""

    sources: tuple[Source, ...]
    step: int | None
    tokens: str | None = None  # file with the texts of the tokens, see `read_tokens`
    here = True

    def named_by(self) -> dict[str, Any]:
        """Return hashes of the rows of all runs, of the file of tokens, and of the tokenizer."""
        file = None if self.tokens is None else hashlib.sha256(_bytes(self.tokens)).hexdigest()
        tokenizer = None if self.tokens else self._tokenizer()
        told = hashlib.sha256(tokenizer.encode()).hexdigest() if tokenizer else None
        rows = [source.fingerprint(self.step) for source in self.sources]
        return {"rows": rows, "tokens": file, "tokenizer": told}

    def seconds(self) -> float:
        """Return a guess; most of the time is a search for the neighbours of all rows."""
        V, D = self.sources[0].shape(self.step)
        return 1 + 2e-11 * V * V * D * len(self.sources)

    def do(self, work: Work) -> Result:
        """Return for every row why it is excluded, or KEPT, (V,); tokens; counts (V,); and the evidence.

        Raises:
            ZooError: If runs have different shapes, or the numbers of tokens and rows do not fit.
        """
        import torch

        from zoo.untrained_rows import KEPT, NEVER_OCCURS, REASONS, untrained_rows

        first, matrices = self.sources[0], [source.embedding(self.step) for source in self.sources]
        V, D = matrices[0].shape
        tokens = read_tokens(self.tokens) if self.tokens else first.token_strings(self.step)
        n_tokens = V if tokens is None else len(tokens)
        if n_tokens > V or (self.tokens and n_tokens < V):
            turned = f"; the matrix has {D} columns, so it may be transposed" if n_tokens == D else ""
            what = f"there are {n_tokens} tokens for {V} rows{turned}"
            raise ZooError(f"{what}; give a --tokens file with one token per row")
        if tokens is not None:
            tokens = tokens + [f"row {i}" for i in range(n_tokens, V)]  # rows that belong to no token
        counts = first.row_counts(self.step, V)
        for source, W in zip(self.sources, matrices, strict=True):
            if W.shape != (V, D):
                raise ZooError(f"{source.name} has {list(W.shape)} rows and dimensions, but {first.name} has {[V, D]}")
        no_text = self._without_text()
        found = [untrained_rows(W, counts, tokens, no_text) for W in matrices]
        reasons = torch.stack([torch.where(f.untrained, f.reason, len(REASONS)) for f in found]).amin(0)
        reasons = torch.where(reasons == len(REASONS), KEPT, reasons)  # the first reason that applies in any run
        reasons[n_tokens:] = NEVER_OCCURS
        named = tokens or [f"row {i}" for i in range(V)]
        return {
            "reasons": reasons.numpy(),
            "tokens": tokens,
            "counts": None if counts is None else counts.numpy(),
            "n_tokens": V,
            "d_model": D,
            "untrained": int((reasons != KEPT).sum()),
            "never_occur": None if counts is None else int((counts == 0).sum()),
            "aside": {
                reason: [named[i] for i in (reasons == code).nonzero().squeeze(1).tolist()]
                for code, reason in enumerate(REASONS)
                if code != KEPT and (reasons == code).any()
            },
            "cluster_found": [not f.distance.isnan().any().item() for f in found],
            "random_start_norm": [None if f.norm != f.norm else f.norm for f in found],
            "auc": _aucs(found[0].distance, counts, tokens, no_text),
        }

    def _tokenizer(self) -> str | None:
        """Return the tokenizer of the first run; None if it has none or the hub cannot be reached."""
        try:
            return self.sources[0].tokenizer_json(self.step)
        except ZooError:  # a hub that cannot be reached
            return None

    def _without_text(self) -> "torch.Tensor | None":
        """Return which tokens occur in no tokenized text, (n_tokens,) bool; None without a tokenizer."""
        import torch
        from tokenizers import Tokenizer

        from zoo.token_texts import without_text

        text = _bytes(self.tokens).decode("utf-8-sig") if self.tokens else self._tokenizer()
        try:
            return torch.tensor(without_text(Tokenizer.from_str(text)), dtype=torch.bool) if text else None
        except Exception:  # the file is a list of tokens, not a tokenizer
            return None


@dataclass(frozen=True)
class Rows(Task):
    """Read rows of an embedding, with their tokens and counts.

    Args:
        source: The embedding.
        step: Training step.
        untrained: Task that finds the rows that look untrained; None if no rows are excluded.
        keep: Whether to keep the rows that look untrained.
        at_most: Largest number of rows; None for all. If rows that look untrained are kept, the same share of them is
            added.
        choice: How they are chosen if there are more, see `zoo.row_choice`.
        some: Number of random rows among these; None for all.
    """

    source: Source
    step: int | None
    untrained: UntrainedRows | None = None
    keep: bool = False
    at_most: int | None = None
    choice: RowChoice = "random"
    some: int | None = None
    here = True

    @property
    def number(self) -> int:
        """Number of rows, including untrained rows that may be excluded."""
        V = self.source.shape(self.step)[0]
        return min(V, *(limit for limit in (self.at_most, self.some) if limit is not None), V)

    def named_by(self) -> dict[str, Any]:
        """Return a hash of the embedding, and the settings that select its rows."""
        rows = {"rows": self.source.fingerprint(self.step), "untrained": self.untrained}
        return rows | {"keep": self.keep, "at_most": self.at_most, "choice": self.choice, "some": self.some}

    def needs(self) -> Sequence[Task]:
        """The task that finds the rows that look untrained, if there is one."""
        return [self.untrained] if self.untrained else []

    def seconds(self) -> float:
        """Return a guess."""
        return 1.0

    def do(self, work: Work) -> Result:
        """Return `W_E` (V, D), `tokens` and `counts` (V,).

        If the matrix is quantised, there is also `rounding`: the `kind` of numbers, and the error of the rounding as a
        share of the variance of the rows (`fvu`), or None if it is not known.

        Raises:
            ZooError: If there are too few rows or dimensions.
        """
        from zoo.untrained_rows import KEPT

        matrix, rounding = self.source.rounded_embedding(self.step)
        W = matrix.numpy()
        if self.untrained is None:
            counts = self.source.row_counts(self.step, len(W))
            tokens = self.source.token_strings(self.step)
            tokens = tokens and tokens + [f"row {i}" for i in range(len(tokens), len(W))]
            found = {"tokens": tokens, "reasons": np.full(len(W), KEPT)}
            found["counts"] = None if counts is None else counts.numpy()
        else:
            found = work[self.untrained]
        kept: np.ndarray = np.full(len(W), True) if self.keep else np.asarray(found["reasons"] == KEPT)
        if self.untrained is not None and (kept.sum() < LEAST_ROWS or W.shape[1] < LEAST_DIMENSIONS):
            untrained = f" ({int((~kept).sum())} of {len(W)} look untrained; --keep_untrained keeps them)"
            aside = "" if kept.all() else untrained
            raise ZooError(
                f"{self.source.name} has {int(kept.sum())} rows in {W.shape[1]} dimensions{aside}; at least "
                f"{LEAST_ROWS} rows in {LEAST_DIMENSIONS} dimensions are required"
            )
        known = None if found["counts"] is None else np.asarray(found["counts"])
        chosen = self._chosen(np.asarray(found["reasons"] == KEPT), known)
        texts = found["tokens"] and [found["tokens"][i] for i in chosen.tolist()]
        result = {"W_E": W[chosen], "tokens": texts} | ({} if known is None else {"counts": known[chosen]})
        if rounding is None:
            return result
        kept[:] = False
        kept[chosen] = True
        return result | {"rounding": {"kind": rounding.kind, "fvu": rounding.fvu(matrix, kept)}}

    def _chosen(self, trained: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
        """Return the indices of the chosen rows, ascending, given which rows look trained (V,) and counts (V,)."""
        chosen, others = trained.nonzero()[0], (~trained).nonzero()[0] if self.keep else np.zeros(0, np.int64)
        if self.at_most is not None and self.at_most < len(chosen):
            of_others = round(len(others) * self.at_most / len(chosen))
            chosen = chosen[
                chosen_rows(len(chosen), self.at_most, self.choice, None if counts is None else counts[chosen])
            ]
            others = others[chosen_rows(len(others), of_others, "random")]
        chosen = np.sort(np.concatenate((chosen, others)))
        return chosen if self.some is None else chosen[chosen_rows(len(chosen), self.some, "random")]


@dataclass(frozen=True)
class StudyOfRows(Study):
    """A study of one embedding's rows.

    Args:
        source: The embedding: a source that `zoo.embedding` accepts.
        step: Step of pretraining, for a source with several; by default the last.
        keep_untrained: Whether to keep rows that look untrained; by default they are excluded.
        other_runs: Other runs of the same pretraining; rows that look untrained in any of them are excluded.
        tokens: File with the rows' tokens, for a source without tokens: .txt with a token per line, or .json.
        tensor: Name of the tensor that is the embedding; by default the token embedding, if its name is a usual one.
    """

    source: str = "gpt2-mini.learned"
    step: NonNegativeInt | None = None
    keep_untrained: bool = False
    other_runs: tuple[str, ...] = ()
    tokens: str | None = None
    tensor: str | None = None
    aliases = {"embedding": "source"}  # noqa: RUF012

    @property
    def untrained(self) -> UntrainedRows:
        """The task that finds the rows that look untrained."""
        runs = tuple(opened(name, self.tensor) for name in (self.source, *self.other_runs))
        return UntrainedRows(runs, self.step, self.tokens)

    @property
    def rows(self) -> Rows:
        """The task that reads the rows to study."""
        return Rows(opened(self.source, self.tensor), self.step, self.untrained, self.keep_untrained)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows V, including untrained rows, and number of dimensions D."""
        return opened(self.source, self.tensor).shape(self.step)


def datamodule(
    rows: Result,
    matrix: str,
    n_atoms: int,
    draw: int,
    sparsity: int | None = None,
    noise: float = 0.0,
    **settings: Any,
) -> "EmbeddingRowsDataModule":
    """Return a datamodule of rows, or of a null model of these rows.

    Args:
        rows: Result of `Rows`.
        matrix: One of `zoo.matrices.MATRICES`.
        n_atoms: Number of atoms of the dictionary to be learned, see `zoo.matrices.null_model`.
        draw: Seed of the null model.
        sparsity: Number of atoms in every planted row.
        noise: Share of the planted rows' variance that is noise.
        settings: Further settings of `EmbeddingRowsDataModule`.
    """
    from zoo.datamodules import EmbeddingRowsDataModule

    planted = {} if sparsity is None else {"sparsity": sparsity}
    model = null_model(matrix, n_atoms, rows["W_E"].shape[1], draw, noise=noise, **planted)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npy"
        np.save(file, rows["W_E"])
        if rows["tokens"] is not None:
            file.with_suffix(".tokens.json").write_text(json.dumps(rows["tokens"]), "utf-8")
        if "counts" in rows:
            file.with_suffix(".token_counts.json").write_text(json.dumps(rows["counts"].tolist()), "utf-8")
        return EmbeddingRowsDataModule(str(file), null_model=model, **settings)


def opened(name: str, tensor: str | None = None) -> Source:
    """Open a source, and cache it for all tasks that name it, as long as its file does not change.

    Args:
        name: Name of the source.
        tensor: Name of the tensor that is the embedding; by default the token embedding.
    """
    path = Source.open(name).path
    return _opened(name, tensor, path.stat().st_mtime_ns if path and path.is_file() else None)


@lru_cache(256)
def _opened(name: str, tensor: str | None, changed: int | None) -> Source:
    return Source.open(name, tensor)


def refuse_trivial(name: str, n: int, V: int) -> None:
    """Raise an error if there are as many atoms n as training rows, which are nine tenths of V rows.

    Raises:
        ZooError: If n is at least 0.9 V. The message contains `name`, the name of the setting.
    """
    if n >= 0.9 * V:
        raise ZooError(
            f"{name} is {n}, but a tenth of the {V} rows is held out, and a dictionary with an atom for every training "
            "row has FVU 0 at L0 1; use fewer atoms"
        )


def read_tokens(file: str) -> list[str]:
    """Read a vocabulary from a tokenizer.json, a JSON list, a JSON object from tokens to ids, or lines of text.

    Raises:
        ZooError: If the file cannot be read as one of these.
    """
    path = expanded(file)
    try:
        text = _bytes(file).decode("utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else text.removesuffix("\n").split("\n")
    except ValueError as error:
        raise ZooError(f"--tokens {file} cannot be read: {' '.join(str(error).split())}") from None
    if isinstance(content, dict) and sorted(map(str, content.values())) == sorted(map(str, range(len(content)))):
        content = [token for token, _ in sorted(content.items(), key=lambda item: int(item[1]))]
    if isinstance(content, dict):
        from tokenizers import Tokenizer

        from zoo.token_texts import decoded_tokens

        try:
            return decoded_tokens(Tokenizer.from_str(text))
        except Exception as error:
            raise ZooError(f"--tokens {file} is not a valid tokenizer: {error}") from None
    if not isinstance(content, list) or not all(isinstance(token, str) for token in content):
        raise ZooError(f"--tokens {file} is not a list of texts")
    return [" " + token[1:] if token[:1] in WORD_STARTS else token for token in content]


def _bytes(file: str) -> bytes:
    try:
        return expanded(file).read_bytes()
    except OSError as error:
        raise ZooError(f"--tokens {file} cannot be read: {' '.join(str(error).split())}") from None


def _aucs(
    distance: "torch.Tensor", counts: "torch.Tensor | None", tokens: list[str] | None, no_text: "torch.Tensor | None"
) -> dict[str, list[float]]:
    """Return how well a small distance to the cluster predicts rows that are untrained for certain.

    For every kind of such rows: the area under the ROC curve, and the number of rows.
    """
    import torch

    from zoo.untrained_rows import area_under_curve, reserved_names

    if distance.isnan().any():
        return {}
    certain = {}
    if counts is not None:
        certain["tokens that never occur"] = counts == 0
    if tokens is not None:
        certain["reserved names"] = reserved_names(tokens)
    if no_text is not None:
        certain["tokens that no text has"] = torch.nn.functional.pad(no_text, (0, len(distance) - len(no_text)))
    return {name: [area_under_curve(-distance, rows), int(rows.sum())] for name, rows in certain.items() if rows.any()}
