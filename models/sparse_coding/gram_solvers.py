"""Compiled matching pursuit and least squares of many rows, one row at a time, on the Gram matrix of the atoms."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.models.sparse_coding.threads import compiled, over_rows

WELL_CONDITIONED = 1e-6  # least pivot of a Cholesky factor, squared and as a share of the diagonal
GATHERED_AT_ONCE = 4096  # rows


def pursued_atoms(x: Tensor, atoms: Tensor, l0: int, exact: float) -> tuple[Tensor, Tensor]:
    """Return the atoms that orthogonal matching pursuit chooses, in this order (Rubinstein, Zibulevsky & Elad 2008).

    Rows whose atoms nearly depend on each other are left to a solver that does not use the Gram matrix.

    Args:
        x: Rows, (n, d) float64.
        atoms: Unit atoms, (K, d) float64.
        l0: Largest number of atoms per row.
        exact: |residual| / |x| up to which a row needs no more atoms.

    Returns:
        Indices of atoms, (n, l0) int64, -1 where none was chosen; and the indices of the rows that were left out.
    """
    gram = (atoms @ atoms.T).numpy()
    chosen, poor = np.full((len(x), l0), -1), np.zeros(len(x), np.bool_)
    for first in range(0, len(x), GATHERED_AT_ONCE):
        part = x[first : first + GATHERED_AT_ONCE]
        correlations, squares = (part @ atoms.T).numpy(), part.square().sum(1).numpy()
        own = chosen[first : first + GATHERED_AT_ONCE], poor[first : first + GATHERED_AT_ONCE]

        def pursue(rows: slice, given: Any = (correlations, squares), own: Any = own) -> None:
            _pursue_rows(given[0][rows], given[1][rows], gram, exact**2, own[0][rows], own[1][rows])

        over_rows(pursue, len(part), 64)
    return torch.from_numpy(chosen), torch.from_numpy(poor).nonzero().squeeze(1)


@compiled
def _pursue_rows(C, squares, G, exact, chosen, poor):  # type: ignore[no-untyped-def]
    n, K = C.shape
    most = chosen.shape[1]
    L, along, new = np.empty((most, most)), np.empty(most), np.empty(most)
    c = np.empty(K)
    for i in range(n):
        left = squares[i]
        c[:] = C[i]
        for m in range(most):
            if left <= exact * squares[i]:
                break
            best, k = -1.0, 0
            for j in range(K):
                if abs(c[j]) > best:
                    best, k = abs(c[j]), j
            pivot = G[k, k]
            for a in range(m):
                v = G[k, chosen[i, a]]
                for b in range(a):
                    v -= L[a, b] * new[b]
                new[a] = v / L[a, a]
                pivot -= new[a] * new[a]
            if pivot <= WELL_CONDITIONED:
                poor[i] = True
                break
            L[m, :m] = new[:m]
            L[m, m] = np.sqrt(pivot)
            v = C[i, k]
            for a in range(m):
                v -= L[m, a] * along[a]
            along[m] = v / L[m, m]
            chosen[i, m] = k
            left -= along[m] * along[m]
            _correlations(C[i], G, chosen[i], L, along, new, m + 1, c)


@compiled
def _correlations(c_of_x, G, chosen, L, along, a, m, c):  # type: ignore[no-untyped-def]
    """Write the correlations of all atoms with the residual to c (K,); a (m,) is overwritten with the codes."""
    for j in range(m - 1, -1, -1):
        v = along[j]
        for k in range(j + 1, m):
            v -= L[k, j] * a[k]
        a[j] = v / L[j, j]
    c[:] = c_of_x
    for j in range(m):
        factor, G_j = a[j], G[chosen[j]]
        for k in range(len(c)):
            c[k] -= factor * G_j[k]


def refit(X: Tensor, D: Tensor, starts: Tensor, atoms: Tensor, values: Tensor) -> Tensor:
    """Write least-squares codes of well-conditioned rows to `values`, and return the indices of the other rows.

    Args:
        X: Rows, (N, d).
        D: Atoms, (K, d).
        starts: Index of the first entry of every row, followed by the number of entries, (N + 1,) int64.
        atoms: Atom of every entry, (n,) int64.
        values: Codes, (n,) float64.
    """
    wide = D.double()
    gram, poor = (wide @ wide.T).numpy(), np.zeros(len(X), np.bool_)
    D_, starts_, atoms_, values_ = wide.numpy(), starts.numpy(), atoms.numpy(), values.numpy()
    for first in range(0, len(X), GATHERED_AT_ONCE):
        x = X[first : first + GATHERED_AT_ONCE].double().numpy()

        def part(rows: slice, x: np.ndarray = x, first: int = first) -> None:
            own = slice(first + rows.start, first + min(rows.stop, len(x)))
            _refit_rows(x[rows], D_, gram, starts_[own.start : own.stop + 1], atoms_, values_, poor[own])

        over_rows(part, len(x), 64)
    return torch.from_numpy(poor).nonzero().squeeze(1)


@compiled
def _refit_rows(X, D, G, starts, atoms, values, poor):  # type: ignore[no-untyped-def]
    room = 0
    for i in range(len(X)):
        room = max(room, starts[i + 1] - starts[i])
    L, a = np.empty((room, room)), np.empty(room)
    for i in range(len(X)):
        first = starts[i]
        m = starts[i + 1] - first
        for j in range(m):
            J = atoms[first + j]
            L_j, G_j, d_j, v = L[j], G[J], D[J], 0.0
            for k in range(D.shape[1]):
                v += d_j[k] * X[i, k]
            for p in range(j):
                L_p, s = L[p], G_j[atoms[first + p]]
                for q in range(p):
                    s -= L_j[q] * L_p[q]
                L_j[p] = s / L_p[p]
                v -= L_j[p] * a[p]
            pivot = G_j[J]
            for q in range(j):
                pivot -= L_j[q] * L_j[q]
            if pivot <= WELL_CONDITIONED * G_j[J] or pivot <= 0:
                poor[i] = True
                break
            L_j[j] = np.sqrt(pivot)
            a[j] = v / L_j[j]
        if poor[i]:
            continue
        for j in range(m - 1, -1, -1):
            v = a[j]
            for k in range(j + 1, m):
                v -= L[k, j] * a[k]
            a[j] = v / L[j, j]
            values[first + j] = a[j]
