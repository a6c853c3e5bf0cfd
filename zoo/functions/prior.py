"""What samples of several seeds say about the probability of functions: the bound, the envelope and the corner."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.errors import ZooError
from zoo.estimates import rates
from zoo.functions.bound import Bound, Excess, envelope, excess
from zoo.functions.complexity import MEASURES
from zoo.functions.corner import Corner, corner, counts_of, functions_below
from zoo.functions.exact import LISTED_THRESHOLDS, linear_thresholds, uniform
from zoo.functions.keys import Keys
from zoo.functions.maps import LinearThreshold, ParameterFunctionMap, RandomTable
from zoo.functions.names import all_keys


@dataclass(frozen=True)
class Met:
    """The m functions that were met in one half of the samples, with their probabilities from the other half.

    If the functions whose probability is estimated were chosen by the same samples, the estimates would be too large:
    every function that was met once would have at least the probability 1 / N.

    Args:
        keys: Keys of the functions, (m, words).
        complexities: Their complexities, (m,).
        chosen: How often each was met in the half that chose it, (m,).
        counts: How often it was met in the other half, (m,).
        n_samples: Number of samples of the other half.
    """

    keys: Keys
    complexities: np.ndarray
    chosen: np.ndarray
    counts: np.ndarray
    n_samples: int

    def probabilities(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the estimates, and lower and upper ends of their 95 % intervals, (m,) each."""
        return rates(self.counts, self.n_samples)

    def excess(self, bound: Bound) -> Excess:
        """Return how far the probabilities lie above the bound; functions not met in the other half never do.

        Lower ends are those of Clopper and Pearson (1934), which exceed the probability in at most 2.5 % of cases even
        if a function is met once or twice; Wilson's do so in up to 10 %.
        """
        from scipy import stats

        k, probabilities = self.counts, self.counts / self.n_samples
        low = np.where(k > 0, stats.beta.ppf(0.025, np.maximum(k, 1), self.n_samples - k + 1), 0.0)
        return excess(bound, self.complexities, probabilities, low)

    def envelope(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all complexities, (k,), and the index of the function that the choosing half met most often, (k,)."""
        return envelope(self.complexities, self.chosen)

    def shown(self, per_complexity: int, most: int) -> np.ndarray:
        """Return the indices of functions to draw: the most frequent ones of every complexity, and random others.

        Args:
            per_complexity: Number of functions of every complexity.
            most: Number of functions in all.
        """
        met = np.flatnonzero(self.counts > 0)
        order = met[np.lexsort((-self.chosen[met], self.complexities[met]))]
        C = self.complexities[order]
        rank = np.arange(len(order)) - np.searchsorted(C, C)
        first = order[rank < per_complexity][:most]
        rest = np.setdiff1d(met, first)
        drawn = np.random.default_rng(0).permutation(rest)[: most - len(first)]
        return np.sort(np.concatenate([first, drawn]))


def halves(keys: Keys, complexities: np.ndarray, counts: np.ndarray, n_samples: Sequence[int]) -> Met:
    """Return the functions that the first half of the seeds met, with their counts in the other half.

    Args:
        keys: Keys of all functions that were met, (m, words).
        complexities: Their complexities, (m,).
        counts: How often every seed met them, (seeds, m); at least two seeds.
        n_samples: Number of samples of every seed.
    """
    first = (len(counts) + 1) // 2
    chosen = counts[:first].sum(0)
    met = chosen > 0
    others = counts[first:].sum(0)
    return Met(keys[met], complexities[met], chosen[met], others[met], sum(n_samples[first:]))


@dataclass(frozen=True)
class Simple:
    """Probabilities of the m simple functions, which were listed and not sampled.

    Args:
        counts: How often each was met, (m,).
        probabilities: Their probabilities, (m,).
        low: Lower ends of 95 % intervals, (m,).
        high: Upper ends, (m,). Both ends equal the probability where it is known exactly.
    """

    counts: np.ndarray
    probabilities: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def corner(self, tau: float) -> Corner:
        """Return how many have a probability above tau."""
        return corner(self.low, self.high, tau)


def simple_functions(
    of: ParameterFunctionMap, wanted: Keys, keys: Keys, counts: np.ndarray, n_samples: int, at_zero: int = 0
) -> Simple:
    """Return the probabilities of simple functions, exactly where they are known and otherwise from counts.

    The probability of every random table is known. For linear thresholds of at most 4 inputs it is known which
    functions are impossible.

    Args:
        of: The map.
        wanted: Keys of the simple functions, (m, words).
        keys: Keys of all functions that were met, (k, words).
        counts: How often each was met, (k,).
        n_samples: Number of samples.
        at_zero: Value of a function, 0 or 1, where the output is exactly 0: without a bias, at the input 0.
    """
    found = counts_of(wanted, keys, counts)
    probabilities, low, high = rates(found, n_samples)
    n = of.n_inputs
    if isinstance(of, RandomTable):
        probabilities = low = high = np.full(len(wanted), uniform(n))
    elif isinstance(of, LinearThreshold) and n <= LISTED_THRESHOLDS and (of.bias or of.coding == "bits"):
        possible = linear_thresholds(n, of.bias)
        if at_zero and not of.bias:
            possible = possible | np.uint64(1)
        impossible = counts_of(wanted, possible, np.ones(len(possible), np.int64)) == 0
        high = np.where(impossible, 0.0, high)
    return Simple(found, probabilities, low, high)


def simple_keys(n: int, measure: str, c: float) -> Keys:
    """Return the keys of all functions of n inputs whose complexity is below c, ascending, (m, words).

    Args:
        n: Number of inputs: 1 to 7 for Lempel-Ziv complexity, otherwise at most 4.
        measure: A key of `zoo.functions.complexity.MEASURES`.
        c: The complexity.

    Raises:
        ZooError: If no function has a complexity below c, or they cannot be listed.
    """
    if measure == "lempel-ziv":
        return functions_below(c, n)
    keys = all_keys(n)
    found = keys[MEASURES[measure](keys, n) < c]
    if not len(found):
        raise ZooError(f"c is {c:g}; no function of {n} inputs has a {measure} complexity below it")
    return found
