"""Tasks that learn dictionaries of an embedding's rows and of null models, and functions that compare the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from zoo.matrices import PLANTED_SPARSITY, TRAINED_ON
from zoo.shared_tasks.rows import Rows, datamodule
from zoo.study import Result, Results, Task, Work


@dataclass(frozen=True)
class LearnDictionaries(Task):
    """Learn dictionaries of one matrix at descending penalties.

    Args:
        rows: Rows of the embedding.
        matrix: The embedding or one of its null models, see `zoo.matrices.MATRICES`.
        seed: Seed of the held-out rows and the initial atoms.
        draw: Seed of the null model.
        n_atoms: Number of atoms of every dictionary.
        penalties: Penalties, descending.
        dictionary_steps: Steps at every penalty; each step codes all training rows.
        frequency_power: Rows are weighted by p^frequency_power, with their token's frequency p.
        at_l0: Number of atoms per row (L0) at which matrices are compared.
        gauged: Number of held-out rows whose gauge norm is computed.
        sparsity: Number of atoms in a planted row.
        noise: Share of the planted rows' variance that is noise.
        only_if_aside: Whether to return an empty result if no rows look untrained.
    """

    version: ClassVar[int] = 2  # since 2, atoms that may have negative codes match true atoms of either sign

    rows: Rows
    matrix: str
    seed: int
    draw: int
    n_atoms: int
    penalties: tuple[float, ...]
    dictionary_steps: int
    frequency_power: float
    at_l0: int = 16
    gauged: int = 50
    sparsity: int = PLANTED_SPARSITY
    noise: float = 0.0
    only_if_aside: bool = False

    def needs(self) -> Sequence[Task]:
        """The rows and, with `only_if_aside`, the task that finds untrained rows."""
        aside = self.rows.untrained if self.only_if_aside else None
        return [self.rows, aside] if aside else [self.rows]

    def do(self, work: Work) -> Result:
        """Return a line per penalty, and the `atoms` at all penalties with random rows last, (P + 1, K, D)."""
        from zoo.analysis.baselines import refuse_trivial_dictionary
        from zoo.analysis.dictionaries import learn

        if self.only_if_aside and self.rows.untrained and not work[self.rows.untrained]["untrained"]:
            return {"lines": []}
        data = self.data(work[self.rows])
        refuse_trivial_dictionary(self.n_atoms, len(data.train_rows))
        shared = (self.penalties, self.dictionary_steps, self.at_l0, self.gauged, self.seed)
        learned = learn(data, self.n_atoms, *shared)
        return {"lines": learned.lines, "atoms": learned.atoms, "effective_rows": data.effective_rows}

    def seconds(self) -> float:
        """Return the time that `benchmarks.embedding_study_cost` measured."""
        V, K, (_, D) = self.rows.number, self.n_atoms, self.rows.source.shape(self.rows.step)
        coded = V * self.dictionary_steps + min(V, 2 * TRAINED_ON)
        per_penalty = coded * K * (2e-8 + 4e-11 * D) + 4e-11 * K**3 * self.dictionary_steps
        return 2 + len(self.penalties) * per_penalty + 2 * self.gauged * (1e-3 + 1.2e-9 * K * D**2)

    def data(self, rows: Result) -> Any:
        """Return the datamodule of the matrix."""
        return datamodule(
            rows,
            self.matrix,
            self.n_atoms,
            self.draw,
            self.sparsity,
            self.noise,
            batch_size=None,
            frequency_power=self.frequency_power,
            seed=self.seed,
        )


@dataclass(frozen=True)
class UnlearnedDictionaries(Task):
    """Compute errors with atoms that were not learned: random directions, random tokens, the most frequent tokens."""

    rows: Rows
    matrix: str
    seed: int
    draw: int
    n_atoms: int
    frequency_power: float

    def needs(self) -> Sequence[Task]:
        """The rows."""
        return [self.rows]

    def seconds(self) -> float:
        """Return about what it took for 49,122 rows and 2,304 atoms, scaled to other sizes."""
        return 1 + 1.4e-7 * self.rows.number * self.n_atoms

    def do(self, work: Work) -> Result:
        """Return a line for every kind of atoms and every L0."""
        from zoo.analysis.dictionaries import unlearned

        settings: dict[str, Any] = {"batch_size": None, "frequency_power": self.frequency_power, "seed": self.seed}
        data = datamodule(work[self.rows], self.matrix, self.n_atoms, self.draw, **settings)
        return {"lines": unlearned(data, self.n_atoms, self.seed)}


def pursued_error(result: Result) -> float:
    """Return the smallest held-out FVU over penalties of learned atoms, with codes by matching pursuit.

    Args:
        result: Result of `LearnDictionaries`.
    """
    return min(float(line["fvu_pursued"]) for line in result["lines"])


def at_l0(points: np.ndarray, l0: float) -> float:
    """Return the error at an L0 on a curve of (L0, error), (n, 2): linear in log L0 between points, NaN outside."""
    points = points[points[:, 0] > 0]
    if not len(points):
        return float("nan")
    x, y = np.log(points[:, 0]), points[:, 1]
    return float(np.interp(np.log(l0), x, y, left=np.nan, right=np.nan))


def likeness(a: Results, one: LearnDictionaries, other: LearnDictionaries) -> list[float]:
    """Return the mean of the largest |cosine| between two seeds' atoms, at every penalty and last for random rows."""
    import torch

    from zoo.metrics import mean_max_cosine

    pairs = zip(a[one]["atoms"], a[other]["atoms"], strict=True)
    return [mean_max_cosine(torch.from_numpy(x), torch.from_numpy(y), signed=False).item() for x, y in pairs]
