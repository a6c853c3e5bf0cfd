"""Boolean functions up to symmetries."""

import itertools

from zoo.errors import ZooError


def boolean_classes(n_bits: int) -> list[list[int]]:
    """Return the Boolean functions of n inputs up to permutations and negations of inputs and negation of the output.

    Functions of a class have the same probability under any prior that has these symmetries, such as N(0, 1).

    Args:
        n_bits: Number of inputs, from 1 to 4.

    Returns:
        The functions of every class, ascending. Bit i of a function is its value for input i; inputs are ordered as in
        `itertools.product((0, 1), repeat=n)`.

    Raises:
        ZooError: If there are more than 4 inputs, whose functions are too many to list, or none.
    """
    if not 1 <= n_bits <= 4:
        raise ZooError(f"n_bits is {n_bits}; it must be between 1 and 4")
    size = 2**n_bits
    moves = []
    for order in itertools.permutations(range(n_bits)):
        for flips in range(size):
            moves.append([sum(((i ^ flips) >> a & 1) << b for a, b in enumerate(order)) for i in range(size)])
    found: list[list[int]] = []
    seen: set[int] = set()
    for f in range(2**size):
        if f in seen:
            continue
        images = {sum((f >> i & 1) << j for i, j in enumerate(move)) for move in moves}
        images |= {2**size - 1 - image for image in images}
        seen |= images
        found.append(sorted(images))
    return found
