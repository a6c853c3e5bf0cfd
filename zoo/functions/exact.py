"""Probabilities of functions that are known exactly, and which functions a linear threshold can compute."""

import itertools

import numpy as np

from zoo.errors import ZooError
from zoo.functions.keys import Keys, inputs, keys_from_tables

LARGEST_WEIGHT = 5  # of integers with which every linear threshold of at most 4 inputs can be written without ties
LISTED_THRESHOLDS = 4  # inputs up to which all linear thresholds are listed


def perceptron_of_two_inputs() -> np.ndarray:
    """Return the probability of all 16 functions of 2 inputs for w x > 0 on {0,1}^2 with Gaussian w, (16,).

    The order is that of `zoo.functions.names.all_keys`. The value at input 00 is 0, and those at 01, 10 and 11 are the
    signs of w_2, w_1 and w_1 + w_2. The function is therefore determined by the direction of w in the plane, and its
    probability is the angle of a sector divided by 2 pi. If w_1 and w_2 have the same sign, it is a quarter. Where the
    signs differ, the line w_1 + w_2 = 0 halves the quarter, so the four other functions have 1/8 each.
    """
    found = np.zeros(16)
    for table, probability in (
        ((0, 0, 0, 0), 1 / 4),
        ((0, 1, 1, 1), 1 / 4),
        ((0, 1, 0, 0), 1 / 8),
        ((0, 1, 0, 1), 1 / 8),
        ((0, 0, 1, 0), 1 / 8),
        ((0, 0, 1, 1), 1 / 8),
    ):
        found[int(keys_from_tables(np.array([table]))[0, 0])] = probability
    return found


def linear_thresholds(n: int, bias: bool = True) -> Keys:
    """Return the keys of all functions w x + b > 0 on {0,1}^n, ascending, (m, 1).

    Every linear threshold of at most 4 inputs can be written with whole weights from -5 to 5, without w x + b = 0 at
    any input but 0...0. Trying all of these therefore finds all functions: 4, 14, 104 and 1882 for 1 to 4 inputs
    (Muroga 1971), and without bias 2, 6, 32 and 370.

    Args:
        n: Number of inputs, 1 to 4.
        bias: Whether there is a b. Without it, f(0, ..., 0) is 0.

    Raises:
        ZooError: If n is out of range.
    """
    if not 1 <= n <= LISTED_THRESHOLDS:
        raise ZooError(f"n_inputs is {n}; linear thresholds are listed for 1 to {LISTED_THRESHOLDS} inputs")
    steps = range(-LARGEST_WEIGHT, LARGEST_WEIGHT + 1)
    sums = np.array([*itertools.product(steps, repeat=n)]) @ inputs(n).T.astype(np.int64)  # (weights, 2^n)
    if not bias:
        return np.unique(keys_from_tables(sums[(sums[:, 1:] != 0).all(1)] > 0), axis=0)
    half = np.arange(-LARGEST_WEIGHT * n, LARGEST_WEIGHT * n + 2) - 0.5  # between two whole numbers: no ties
    found = [np.unique(keys_from_tables(sums + b > 0), axis=0) for b in half]
    return np.unique(np.concatenate(found), axis=0)


def uniform(n: int) -> float:
    """Return the probability of every function for random tables, 2^-(2^n)."""
    return 2.0 ** -(2**n)


def complexity_prior(complexities: np.ndarray) -> np.ndarray:
    """Return the probabilities 2^-C / sum of 2^-C of functions of complexities C in bits, (m,).

    Args:
        complexities: The complexities of all functions, (m,).
    """
    weights: np.ndarray = 2.0 ** -np.asarray(complexities, float)
    return weights / weights.sum()
