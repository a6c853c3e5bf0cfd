"""The bound 2^-(a C + b) on probabilities of functions, fixed before sampling, and how well it holds."""

from dataclasses import dataclass

import numpy as np

from zoo.errors import ZooError
from zoo.functions.complexity import MEASURES
from zoo.functions.keys import keys_from_tables
from zoo.functions.names import LISTED, all_keys

RANDOM_TABLES = 100_000


@dataclass(frozen=True)
class Bound:
    """The bound P <= 2^-(a C + b) for functions of complexity C.

    Args:
        a: Slope.
        b: Offset in bits.
        smallest: Smallest complexity of any function.
        largest: Largest complexity.
    """

    a: float
    b: float
    smallest: float
    largest: float

    def log2(self, complexities: np.ndarray) -> np.ndarray:
        """Return the base-2 logarithm of the bound, -(a C + b), (m,)."""
        return -(self.a * np.asarray(complexities, float) + self.b)


def bound(n: int, measure: str = "lempel-ziv") -> Bound:
    """Return the bound for functions of n inputs; no map is sampled.

    The rule is that of Dingle, Camargo & Louis 2018 (Nature Communications 9, 761, methods), which Valle-Perez, Camargo
    & Louis 2019 (ICLR, arXiv:1805.08522) use for networks. Complexities are shifted and scaled so that they extend from
    0 to log2 of the number of functions, here 2^n, and then P <= 2^-complexity. In the units of C, a = 2^n / (C_max -
    C_min) and b = -a C_min. The bound is therefore 1 for the simplest functions, and the mean over all functions for
    the most complex ones. It is the same for all maps, also for those that can compute only some of the functions.

    C_min and C_max are exact for n <= 4. For larger n, C_min is that of the constants, and C_max is the largest of
    100,000 random tables, which is slightly too small; the bound is then slightly too low.

    Args:
        n: Number of inputs.
        measure: The complexity, a key of `zoo.functions.complexity.MEASURES`.

    Raises:
        ZooError: If the complexity is not defined for n inputs, or is the same for all functions.
    """
    if n <= LISTED:
        found = MEASURES[measure](all_keys(n), n)
    else:
        drawn = np.random.default_rng(0).integers(0, 2, (RANDOM_TABLES, 2**n), np.uint8)
        found = MEASURES[measure](keys_from_tables(np.concatenate([np.zeros((1, 2**n), np.uint8), drawn])), n)
    smallest, largest = float(found.min()), float(found.max())
    if largest == smallest:
        raise ZooError(f"all functions of {n} inputs have the same {measure} complexity, so there is no bound")
    a = 2**n / (largest - smallest)
    return Bound(a, -a * smallest, smallest, largest)


@dataclass(frozen=True)
class Excess:
    """How far probabilities lie above the bound.

    Args:
        functions: Number of functions whose interval lies above the bound.
        mass: Share of all samples that these functions have.
        bits: Largest distance of an interval's lower end from the bound, as log2 of the ratio; below 0 if no interval
            lies above the bound.
        worst: Index of the function with the largest distance.
    """

    functions: int
    mass: float
    bits: float
    worst: int


def excess(of: Bound, complexities: np.ndarray, probabilities: np.ndarray, low: np.ndarray) -> Excess:
    """Return how far probabilities lie above a bound.

    Args:
        of: The bound.
        complexities: Complexities of the functions, (m,).
        probabilities: Their estimated probabilities, (m,).
        low: Lower ends of the intervals of these, (m,).
    """
    with np.errstate(divide="ignore"):
        over = np.log2(low) - of.log2(complexities)
    above = over > 0
    return Excess(int(above.sum()), float(probabilities[above].sum()), float(over.max()), int(over.argmax()))


def envelope(complexities: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all complexities that occur, ascending, (k,), and the index of the most probable function of each, (k,).

    Args:
        complexities: Complexities of the functions, (m,).
        probabilities: Their probabilities, (m,).
    """
    order = np.lexsort((-probabilities, complexities))
    found, first = np.unique(complexities[order], return_index=True)
    return found, order[first]
