"""Base class of studies that learn dictionaries of one embedding.

All these studies use the same settings, so they share the results.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from jsonargparse.typing import NonNegativeFloat, PositiveInt

from zoo.matrices import PLANTED_SPARSITY
from zoo.shared_tasks.dictionaries import LearnDictionaries
from zoo.shared_tasks.rows import Rows, StudyOfRows, refuse_trivial
from zoo.study import AtLeastTwo

PENALTIES = (0.3, 0.2, 0.14, 0.1)
DICTIONARY_STEPS = 10  # at every penalty; each step codes all training rows
LEAST_ATOMS = 8


@dataclass(frozen=True)
class StudyOfDictionaries(StudyOfRows):
    """A study that learns dictionaries of one embedding's rows.

    Args:
        n_atoms: Number of atoms of a dictionary; by default 4 per dimension, but at most half the number of rows.
        frequency_power: Rows are weighted by p^frequency_power, with their token's frequency p.
        seeds: Number of seeds, that is, of dictionaries per matrix.
    """

    n_atoms: PositiveInt | None = None
    frequency_power: NonNegativeFloat = 0.0
    seeds: AtLeastTwo = 3

    @property
    def atoms(self) -> int:
        """Number of atoms of a dictionary.

        Raises:
            ZooError: If there are too many atoms for the rows.
        """
        n = default_atoms(self.n_atoms, *self.shape)
        refuse_trivial("n_atoms", n, self.shape[0])
        return n

    @property
    def at_l0(self) -> int:
        """Number of atoms per row (L0) at which errors are compared."""
        return compared_at(self.shape[1])

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
        D = self.shape[1]
        return [
            LearnDictionaries(
                rows or self.rows,
                matrix,
                seed,
                seed,
                n_atoms or self.atoms,
                PENALTIES,
                DICTIONARY_STEPS,
                self.frequency_power if frequency_power is None else frequency_power,
                self.at_l0,
                rows_gauged(D) if gauged is None else gauged,
                sparsity,
                noise,
                only_if_aside,
            )
            for seed in (range(self.seeds) if seeds is None else seeds)
        ]


def default_atoms(n_atoms: int | None, V: int, D: int) -> int:
    """Return the number of atoms of a dictionary of V rows in D dimensions."""
    return n_atoms or min(4 * D, V // 2)


def compared_at(D: int) -> int:
    """Return the number of atoms per row (L0) at which errors are compared in D dimensions."""
    return max(2, min(16, D // 8))


def rows_gauged(D: int) -> int:
    """Return the number of held-out rows whose gauge norm is computed; fewer in many dimensions, where this is slow."""
    return 50 if D <= 128 else 4
