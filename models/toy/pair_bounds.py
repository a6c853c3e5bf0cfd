"""The smallest errors that d neurons can reach on the ANDs or products of all pairs of m inputs, s of which are on."""

from math import comb

from zoo.errors import ZooError


def least_balanced_loss(m: int, d: int, s: int = 2, signed: bool = False) -> float:
    """Return a lower bound on the balanced squared error of any outputs that are linear in d numbers.

    The balanced error of a pair is the mean of (1 - y)² where both inputs are on, plus the mean of y² elsewhere. It is
    averaged over the M = m (m - 1) / 2 pairs. Let pi be the probability that a pair is on, and L_d the sum of the d
    largest eigenvalues of E[t tᵀ] for the targets t. If the outputs agree with the targets by
    sum E[y t] = M pi b, the inequality of Cauchy and Schwarz gives E|y|² >= (M pi b)² / L_d. The balanced error is then
    at least (1 - b)² + kappa b² with kappa = (M pi² / L_d - pi) / (1 - pi), and its minimum is kappa / (1 + kappa). For
    s = 2, kappa = (M - d) / (d (M - 1)). The bound holds for all functions that d neurons can compute, of any depth. An
    output bias counts as one more neuron; with signed inputs it changes nothing, because the targets have mean 0.

    Args:
        m: Number of inputs.
        d: Number of neurons.
        s: Number of inputs that are on.
        signed: Whether inputs that are on are +-1 with random signs, and the targets are their products. Targets of
            different pairs are then uncorrelated, L_d = d pi, and kappa = pi (M / d - 1) / (1 - pi).

    Raises:
        ZooError: If the sizes do not fit, or pairs are on so often (pi > 1/2) that the bound does not hold.
    """
    if not 2 <= s <= m or d < 1:
        raise ZooError(f"{s} of {m} inputs are on and there are {d} neurons; need 2 <= s <= m and at least one neuron")
    M, pi = comb(m, 2), s * (s - 1) / (m * (m - 1))
    if pi > 0.5:
        raise ZooError(f"a pair is on with probability {pi:.2f}; the bound holds up to 1/2, so use a smaller s")
    kappa = max(0.0, (M * pi**2 / _largest(m, d, s, signed) - pi) / (1 - pi))
    return kappa / (1 + kappa)


def least_squared_loss(m: int, d: int, s: int = 2, signed: bool = False) -> float:
    """Return the smallest plain squared error of any outputs that are linear in d numbers, as a share of that of y = 0.

    It is 1 - L_d / (M pi), with the numbers of `least_balanced_loss`. For s = 2, and for signed inputs, targets of
    different pairs are orthogonal and equally frequent, and it is 1 - d/M. Then d neurons that each compute one pair
    reach it, so that the plain squared error does not favour computing more than d pairs. For d >= M it is 0. Output
    biases count as in `least_balanced_loss`.

    Args:
        m: Number of inputs.
        d: Number of neurons.
        s: Number of inputs that are on.
        signed: Whether inputs that are on are +-1 with random signs.

    Raises:
        ZooError: If the sizes do not fit.
    """
    if not 2 <= s <= m or d < 1:
        raise ZooError(f"{s} of {m} inputs are on and there are {d} neurons; need 2 <= s <= m and at least one neuron")
    return max(0.0, 1 - 2 * _largest(m, d, s, signed) / (s * (s - 1)))


def pair_eigenvalues(m: int, s: int) -> list[tuple[float, int]]:
    """Return the eigenvalues of E[t tᵀ], with multiplicities, for the ANDs t of all pairs of m inputs, s of them on.

    The entries depend only on the number of inputs that two pairs share, so that the matrix belongs to the Johnson
    scheme J(m, 2) (Delsarte 1973).
    """
    p2, p3, p4 = (_falling(s, k) / _falling(m, k) if m >= k else 0.0 for k in (2, 3, 4))
    values = [(p2 + 2 * (m - 2) * p3 + comb(m - 2, 2) * p4, 1)]
    values += [(p2 + (m - 4) * p3 - (m - 3) * p4, m - 1)] if m > 2 else []
    values += [(p2 - 2 * p3 + p4, m * (m - 3) // 2)] if m > 3 else []
    return values


def _largest(m: int, d: int, s: int, signed: bool) -> float:
    """Return the sum of the d largest eigenvalues of E[t tᵀ]."""
    eigenvalues = [(s * (s - 1) / (m * (m - 1)), comb(m, 2))] if signed else pair_eigenvalues(m, s)
    left, total = d, 0.0
    for value, times in sorted(eigenvalues, reverse=True):
        taken = min(left, times)
        total, left = total + taken * value, left - taken
    return total


def _falling(x: int, k: int) -> int:
    product = 1
    for i in range(k):
        product *= x - i
    return product
