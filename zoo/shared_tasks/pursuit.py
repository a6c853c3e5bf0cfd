"""How studies of one embedding learn dictionaries: all in the same way, so that they share them."""

from collections.abc import Iterable
from dataclasses import dataclass

from jsonargparse.typing import NonNegativeFloat, PositiveInt

from zoo.matrices import PLANTED_SPARSITY
from zoo.shared_tasks.dictionaries import LearnDictionaries
from zoo.shared_tasks.rows import Rows, StudyOfRows, refuse_trivial
from zoo.study import AtLeastTwo

PENALTIES = (0.3, 0.2, 0.14, 0.1)
DICTIONARY_STEPS = 10  # codings of all rows at every penalty
LEAST_ATOMS = 8


@dataclass(frozen=True)
class StudyOfDictionaries(StudyOfRows):
    """A study that learns dictionaries of one embedding's rows.

    Args:
        n_atoms: Atoms of a dictionary; by default 4 per dimension, and at most half as many as rows.
        frequency_power: Rows have weight p^power of their token's frequency p.
        seeds: Dictionaries per matrix.
    """

    n_atoms: PositiveInt | None = None
    frequency_power: NonNegativeFloat = 0.0
    seeds: AtLeastTwo = 3

    @property
    def atoms(self) -> int:
        """Atoms of a dictionary.

        Raises:
            ZooError: If there are too many for the rows.
        """
        n = default_atoms(self.n_atoms, *self.shape)
        refuse_trivial("n_atoms", n, self.shape[0])
        return n

    @property
    def at_l0(self) -> int:
        """Atoms a row at which errors are compared."""
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
        """Tasks that learn dictionaries of a matrix, one for every seed."""
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
    """Atoms of a dictionary of V rows in D dimensions."""
    return n_atoms or min(4 * D, V // 2)


def compared_at(D: int) -> int:
    """Atoms a row at which errors are compared in D dimensions."""
    return max(2, min(16, D // 8))


def rows_gauged(D: int) -> int:
    """Held-out rows whose gauge norm is found, the costliest number of all where dimensions are many."""
    return 50 if D <= 128 else 4
