"""Interference between circuits that share one network: how its size grows with depth.

There are T circuits, of which z are active: their state has mean square 1, and that of the others is 0. Every layer
stores the states in N dimensions, along fresh random unit vectors, so that two of them have mean squared inner product
1/N. A state is read by the inner product with its vector, then processed by a map that keeps its norm (a rotation), and
stored again. The errors are mean squares.
"""

from zoo.errors import ZooError


def interference(depth: int, n_slots: int, n_circuits: int, n_active: int) -> float:
    """Return the mean squared error of an active circuit's state after `depth` layers without any correction.

    With m the squared error of an active circuit and S the sum of squares of all states, inactive ones included,

        m_0 = (z - 1) / N,  S_0 = z (1 + (T - 1) / N),
        m_(l+1) = m_l (1 - 1/N) + (S_l - 1) / N,  S_(l+1) = S_l (1 + (T - 1) / N).

    Depth 0 is the state that is read for the first time.

    Raises:
        ZooError: If a number is out of range.
    """
    _check(depth, n_slots, n_circuits, n_active)
    z, N, T = n_active, n_slots, n_circuits
    m, S = (z - 1) / N, z * (1 + (T - 1) / N)
    for _ in range(depth):
        m, S = m * (1 - 1 / N) + (S - 1) / N, S * (1 + (T - 1) / N)
    return m


def interference_of_active(depth: int, n_slots: int, n_active: int) -> float:
    """Return the same error if inactive circuits are set to 0 after every reading: (1 + (z - 1) / N)^(depth + 1) - 1.

    It does not depend on the number of circuits.

    Raises:
        ZooError: If a number is out of range.
    """
    _check(depth, n_slots, n_active, n_active)
    return (1 + (n_active - 1) / n_slots) ** (depth + 1) - 1


def _check(depth: int, n_slots: int, n_circuits: int, n_active: int) -> None:
    if depth < 0 or n_slots < 1 or not 1 <= n_active <= n_circuits:
        raise ZooError(
            f"depth is {depth}, n_slots {n_slots}, n_circuits {n_circuits} and n_active {n_active}; depth must be at "
            "least 0, n_slots at least 1, and n_active 1 to n_circuits"
        )
