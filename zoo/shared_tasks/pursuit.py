"""Base class of studies that learn dictionaries of one embedding.

All these studies use the same settings, so they share the results.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from jsonargparse.typing import NonNegativeFloat, PositiveInt

from zoo.errors import ZooError
from zoo.matrices import PLANTED_SPARSITY
from zoo.row_choice import RowChoice
from zoo.shared_tasks.dictionaries import LearnDictionaries
from zoo.shared_tasks.rows import LEAST_ROWS, Rows, StudyOfRows, refuse_trivial
from zoo.study import AtLeastTwo

PENALTIES = (0.3, 0.2, 0.14, 0.1)
DICTIONARY_STEPS, FEWER_STEPS = 10, 5  # at every penalty; each step codes all training rows
MANY_CODES = 4_000_000  # rows x atoms from which on there are fewer steps
FEWER_ROWS = 10_000  # for everything but the comparison of the embedding with its covariance-matched null model
LEAST_ATOMS = 8


@dataclass(frozen=True)
class StudyOfDictionaries(StudyOfRows):
    """A study that learns dictionaries of one embedding's rows.

    Args:
        n_atoms: Number of atoms of a dictionary; by default 4 per dimension, but at most half the number of rows.
        frequency_power: Rows are weighted by p^frequency_power, with their token's frequency p.
        seeds: Number of seeds, that is, of dictionaries per matrix.
        max_rows: Largest number of rows from which dictionaries are learned, held-out rows included; by default all.
        row_choice: How these rows are chosen: stratified (evenly spaced in the order of frequency, or of the rows if
            frequencies are not known), most frequent, or random.
    """

    n_atoms: PositiveInt | None = None
    frequency_power: NonNegativeFloat = 0.0
    seeds: AtLeastTwo = 3
    max_rows: PositiveInt | None = None
    row_choice: RowChoice = "stratified"

    @property
    def atoms(self) -> int:
        """Number of atoms of a dictionary.

        Raises:
            ZooError: If there are too many atoms for the rows.
        """
        V, D = self.coded.number, self.shape[1]
        n = default_atoms(self.n_atoms, V, D)
        refuse_trivial("n_atoms", n, V)
        return n

    @property
    def coded(self) -> Rows:
        """The task that reads the rows from which dictionaries are learned."""
        return limited(self.rows, self.max_rows, self.row_choice)

    @property
    def few(self) -> Rows:
        """The task that reads rows for null models for which fewer rows suffice."""
        return fewer(self.coded, self.atoms)

    @property
    def at_l0(self) -> int:
        """Number of atoms per row (L0) at which errors are compared."""
        return compared_at(self.shape[1])

    @property
    def gauged(self) -> int:
        """Number of held-out rows whose gauge norm is computed."""
        return rows_gauged(self.shape[1], self.max_rows)

    def learn(
        self,
        matrix: str,
        n_atoms: int | None = None,
        rows: Rows | None = None,
        gauged: int | None = None,
        seeds: Iterable[int] | None = None,
        sparsity: int = PLANTED_SPARSITY,
        noise: float = 0.0,
        frequency_power: float | None = None,
        only_if_aside: bool = False,
    ) -> list[LearnDictionaries]:
        """Return tasks that learn dictionaries of a matrix, one for every seed."""
        steps = dictionary_steps(self.coded, self.atoms)
        return [
            LearnDictionaries(
                rows or self.coded,
                matrix,
                seed,
                seed,
                n_atoms or self.atoms,
                PENALTIES,
                steps,
                self.frequency_power if frequency_power is None else frequency_power,
                self.at_l0,
                self.gauged if gauged is None else gauged,
                sparsity,
                noise,
                only_if_aside,
            )
            for seed in (range(self.seeds) if seeds is None else seeds)
        ]


def default_atoms(n_atoms: int | None, V: int, D: int) -> int:
    """Return the number of atoms of a dictionary of V rows in D dimensions."""
    return n_atoms or min(4 * D, V // 2)


def dictionary_steps(rows: Rows, n_atoms: int) -> int:
    """Return the number of dictionary steps at every penalty; fewer if rows x atoms are many."""
    return DICTIONARY_STEPS if rows.number * n_atoms < MANY_CODES else FEWER_STEPS


def limited(rows: Rows, max_rows: int | None, choice: RowChoice) -> Rows:
    """Return the task that reads at most `max_rows` of the rows; all if it is None or there are no more.

    Raises:
        ZooError: If these are too few to study.
    """
    if max_rows is not None and max_rows < LEAST_ROWS:
        raise ZooError(f"max_rows is {max_rows}; it must be at least {LEAST_ROWS}")
    return rows if max_rows is None or max_rows >= rows.number else replace(rows, at_most=max_rows, choice=choice)


def fewer(rows: Rows, n_atoms: int) -> Rows:
    """Return the task that reads 10,000 random rows, or 3 per atom if that is more; all if there are no more."""
    most = max(FEWER_ROWS, 3 * n_atoms)
    return rows if most >= rows.number else replace(rows, some=most)


def compared_at(D: int) -> int:
    """Return the number of atoms per row (L0) at which errors are compared in D dimensions."""
    return max(2, min(16, D // 8))


def rows_gauged(D: int, max_rows: int | None) -> int:
    """Return the number of held-out rows whose gauge norm is computed.

    It is smaller in many dimensions, where this is slow. It is 0 if only some rows are coded: their dictionaries have
    few atoms per dimension, for which basis pursuit converges slowly.
    """
    return 0 if max_rows else 50 if D <= 128 else 4 if D <= 512 else 2
