"""Compiled coordinate descent for the lasso of many rows, one row at a time, on the Gram matrix of the atoms.

The working set of a row consists of the atoms in use and the atoms that violate the optimality conditions most. Its
Gram matrix is small and fits into the cache. The coordinates in the working set are updated in turn until they hardly
change. Then the correlations of all atoms are recomputed, and the duality gap is checked. If the coordinates converge
slowly, the equations for the atoms in use are solved directly (the step of feature-sign search, Lee et al. 2006), and
again after every change of a sign.
"""

import numpy as np
from torch import Tensor, get_num_threads

from zoo.models.sparse_coding.threads import compiled, over_rows

ROWS_PER_TASK = 48  # few, because rows take very different times
SWEEPS = 30  # over the working set before the equations are solved
PATIENCE = 12  # rounds without a smaller gap after which only rounding can limit it
DEPENDENT = 100  # an atom depends on others if its squared residual is at most this many epsilons of its square
FIRST_CHANGE, LEAST_CHANGE = 3e-4, 1e-12  # change of a coordinate, in units of the penalty, that counts as converged


def solve(
    X: Tensor, D: Tensor, gram: Tensor, lam: Tensor, codes: Tensor, tolerance: float, positive: bool, max_rounds: int
) -> Tensor:
    """Improve codes in place until the gap of every row, computed in X's precision, is within the tolerance.

    Args:
        X: Rows, (N, d).
        D: Atoms, (K, d).
        gram: D Dᵀ, (K, K).
        lam: Penalty of every row, (N,).
        codes: Initial codes, (N, K). They are overwritten with the result.
        tolerance: Largest gap, as a share of the objective.
        positive: Whether codes must not be negative.
        max_rounds: Largest number of working sets per row.

    Returns:
        The correlations of the residuals with the atoms, (N, K), in X's precision.
    """
    correlations, squares = X @ D.T, X.square().sum(1).numpy()
    correlation = correlations.numpy()
    gram_, lam_, codes_ = gram.numpy(), lam.to(X.dtype).numpy(), codes.numpy()

    def part(rows: slice) -> None:
        _solve_rows(correlation[rows], squares[rows], gram_, lam_[rows], codes_[rows], tolerance, positive, max_rounds)

    over_rows(part, len(X), max(1, min(ROWS_PER_TASK, len(X) // (4 * get_num_threads()))))
    return correlations


@compiled
def _solve_rows(Q, squares, G, lams, A, tolerance, positive, max_rounds):  # type: ignore[no-untyped-def]
    """Solve rows. Q (n, K), the correlations of rows and atoms, becomes that of residuals; A (n, K) holds the codes."""
    n, K = Q.shape
    room = min(K, 256)
    S, members = np.empty(K, np.int64), np.zeros(K, np.bool_)  # the working set, and whether each atom is in it
    H, L = np.empty((room, room), Q.dtype), np.empty((room, room), Q.dtype)
    a, c, b, active = np.empty(K, Q.dtype), np.empty(K, Q.dtype), np.empty(K, Q.dtype), np.empty(K, np.int64)
    correlation = np.empty(K, Q.dtype)
    for i in range(n):
        q, lam = Q[i], lams[i]
        members[:] = False
        w = 0
        for k in range(K):
            if A[i, k] != 0:
                S[w], a[w], members[k] = k, A[i, k], True
                w += 1
        rest, least, stalled = lam * Q.dtype.type(FIRST_CHANGE), np.inf, 0
        for tried in range(max_rounds + 1):
            correlation[:] = q
            for j in range(w):
                if a[j] != 0:
                    _subtract(correlation, a[j], G[S[j]])
            largest = _largest(correlation, positive)
            gap = _relative_gap(squares[i], q, correlation, S, a, w, lam, largest)
            stalled = 0 if gap < least else stalled + 1
            least = min(least, gap)
            if gap <= tolerance or stalled > PATIENCE or tried == max_rounds:
                break
            w = _keep_nonzero(S, a, members, w)
            before = w
            w = _add_violators(correlation, S, a, members, w, lam, largest, positive)
            if w == before:
                rest = max(rest / 16, lam * Q.dtype.type(LEAST_CHANGE))
            if w > room:
                room = min(K, 2 * w)
                H, L = np.empty((room, room), Q.dtype), np.empty((room, room), Q.dtype)
            for j in range(w):
                G_j, H_j = G[S[j]], H[j]
                c[j] = correlation[S[j]]
                for k in range(w):
                    H_j[k] = G_j[S[k]]
            _rest_on_set(H, L, a, c, b, active, w, lam, rest, positive)
        Q[i], A[i] = correlation, 0
        for j in range(w):
            A[i, S[j]] = a[j]


@compiled
def _subtract(y, factor, x):  # type: ignore[no-untyped-def]
    for k in range(len(y)):
        y[k] -= factor * x[k]


@compiled
def _largest(c, positive):  # type: ignore[no-untyped-def]
    largest = c[0] * 0
    if positive:
        for k in range(len(c)):
            largest = max(largest, c[k])
    else:
        for k in range(len(c)):
            largest = max(largest, abs(c[k]))
    return largest


@compiled
def _relative_gap(square, q, correlation, S, a, w, lam, largest):  # type: ignore[no-untyped-def]
    xr, ac, l1 = square, square * 0, square * 0
    for j in range(w):
        xr -= a[j] * q[S[j]]
        ac += a[j] * correlation[S[j]]
        l1 += abs(a[j])
    rr = max(xr - ac, square * 0)
    objective = rr / 2 + lam * l1
    t = lam / max(lam, largest) if largest > 0 else square * 0 + 1
    return (objective - (t * xr - t * t * rr / 2)) / objective if objective > 0 else square * 0


@compiled
def _keep_nonzero(S, a, members, w):  # type: ignore[no-untyped-def]
    kept = 0
    for j in range(w):
        if a[j] != 0:
            S[kept], a[kept] = S[j], a[j]
            kept += 1
        else:
            members[S[j]] = False
    return kept


@compiled
def _add_violators(correlation, S, a, members, w, lam, largest, positive):  # type: ignore[no-untyped-def]
    """Add the atoms that violate the conditions most, at most about as many as there are atoms in use, or 24."""
    limit, threshold = max(24, w), lam
    for _ in range(13):  # in the end 1 % of the range is left, so that ties are added together
        count = 0
        for k in range(len(correlation)):
            size = correlation[k] if positive else abs(correlation[k])
            if size > threshold and not members[k]:
                count += 1
        if count <= limit:
            break
        threshold += (largest - threshold) * 0.3
    for k in range(len(correlation)):
        size = correlation[k] if positive else abs(correlation[k])
        if size > threshold and not members[k]:
            S[w], a[w], members[k] = k, 0, True
            w += 1
    return w


@compiled
def _rest_on_set(H, L, a, c, b, active, w, lam, rest, positive):  # type: ignore[no-untyped-def]
    """Minimise over the working set with Gram matrix H; update codes a and correlations with the residual c."""
    for _ in range(20):
        for _ in range(SWEEPS):
            change = lam * 0
            for j in range(w):
                h = H[j, j]
                if h <= 0:
                    continue
                z = c[j] + h * a[j]
                if z > lam:
                    new = (z - lam) / h
                elif z < -lam and not positive:
                    new = (z + lam) / h
                else:
                    new = z * 0
                d = new - a[j]
                if d != 0:
                    a[j] = new
                    change = max(change, abs(d) * h)
                    _subtract(c[:w], d, H[j])
            if change <= rest:
                return
        while _step_to_solution(H, L, a, c, b, active, w, lam):
            pass


@compiled
def _step_to_solution(H, L, a, c, b, active, w, lam):  # type: ignore[no-untyped-def]
    """Move the active codes to the solution of their equations, or to the first point where a code would change sign.

    If atoms are linearly dependent, one of them is not needed. Then the codes move in a direction in which the fit does
    not change and the codes shrink. Return whether an atom was dropped, in which case another step is necessary.
    """
    n = 0
    for j in range(w):
        if a[j] != 0:
            active[n] = j
            n += 1
    rank = _direction(H, L, a, c, b, active, n, lam)
    step, first = np.inf if rank < n else 1.0, -1
    for i in range(n):
        if b[i] * a[active[i]] < 0 and -a[active[i]] / b[i] < step:
            step, first = -a[active[i]] / b[i], i
    if step == np.inf:
        return False
    for i in range(n):
        j = active[i]
        if b[i] != 0:
            d = -a[j] if i == first else a.dtype.type(step) * b[i]
            a[j] = 0 if i == first else a[j] + d
            _subtract(c[:w], d, H[j])
    return first >= 0


@compiled
def _direction(H, L, a, c, b, active, n, lam):  # type: ignore[no-untyped-def]
    """Write the change of the active codes that solves their equations to b (n,), and return n.

    If atoms are linearly dependent, write a change that does not change the fit, and return a number below n.
    """
    rank = n
    for i in range(n):
        H_i, L_i, left = H[active[i]], L[i], H[active[i], active[i]]
        for j in range(i):
            L_j, v = L[j], H_i[active[j]]
            for k in range(j):
                v -= L_i[k] * L_j[k]
            L_i[j] = v / L_j[j]
            left -= L_i[j] * L_i[j]
        if left <= DEPENDENT * np.finfo(H.dtype).eps * H_i[active[i]]:
            rank = i
            break
        L_i[i] = np.sqrt(left)
    if rank == n:  # H b = c - lam sign(a)
        for i in range(n):
            j = active[i]
            v = c[j] - lam if a[j] > 0 else c[j] + lam
            for k in range(i):
                v -= L[i, k] * b[k]
            b[i] = v / L[i, i]
    else:  # the first atom that depends on those before it, minus the combination of them that equals it
        b[:rank] = -L[rank, :rank]
        b[rank] = 1
        b[rank + 1 : n] = 0
    for i in range(min(rank, n) - 1, -1, -1):
        b[i] /= L[i, i]
        for k in range(i):
            b[k] -= b[i] * L[i, k]
    if rank < n:
        growth = lam * 0
        for i in range(n):
            growth += b[i] if a[active[i]] > 0 else -b[i]
        if growth > 0:
            b[:n] = -b[:n]
    return rank
