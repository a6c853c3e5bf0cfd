"""Lasso solvers of the zoo and of other libraries, each with its loosest setting that is accurate enough.

A solver is made from a problem and a setting. It is a function without arguments that returns the codes. Rows and atoms
are converted to its types and layouts beforehand. The computation of Gram matrices and correlations is timed for all
solvers. The zoo's solver also certifies its codes within the timed part; the codes of the other solvers are certified
once, without being timed.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from zoo.models.sparse_coding import duality_gap, lasso

ROWS_PER_TASK = 50
MAX_ITERATIONS = 100_000
TOLERANCE = 1e-4  # largest duality gap of every row, as a share of the objective
ZOO = "zoo"


class Problem(NamedTuple):
    """Rows (n, d) and atoms (K, d), float32, the penalty of the lasso, and the threads that solvers may use."""

    X: Tensor
    D: Tensor
    penalty: float
    threads: int


class Peer(NamedTuple):
    """A solver and the settings to try, the fastest first: the precision and further arguments."""

    make: Callable[..., Callable[[], Any]]  # problem, dtype, settings -> () -> (n, K) array, or (K, n) sparse matrix
    settings: Sequence[dict[str, Any]]
    rows: int | None = None  # number of rows that are solved, if the solver is too slow for all


class Contender(NamedTuple):
    """A solver with the first setting for which every row is certified, or with its last setting."""

    solve: Callable[[], Any]
    rows: int
    setting: str
    gap: float  # largest, relative to the objective
    l0: float


def zoo(problem: Problem) -> Callable[[], Any]:
    return lambda: lasso(problem.X, problem.D, problem.penalty, TOLERANCE).codes


def spams_lars(problem: Problem, dtype: torch.dtype, cholesky: bool) -> Callable[[], Any]:
    """Return SPAMS's `lasso`: least angle regression (LARS), given Gram matrix and correlations, which is faster."""
    import spams

    x, D = (matrix.to(dtype) for matrix in (problem.X, problem.D))

    def solve() -> Any:
        q, Q = (x @ D.T).numpy().T, (D @ D.T).numpy().T  # Fortran order, like all arguments
        return spams.lasso(
            x.numpy().T, Q=Q, q=q, lambda1=problem.penalty, mode=2, cholesky=cholesky, numThreads=problem.threads
        )

    return solve


def spams_cd(problem: Problem, dtype: torch.dtype, tol: float) -> Callable[[], Any]:
    """Return SPAMS's `cd`: coordinate descent, which computes its Gram matrix itself."""
    import spams

    x, D = (np.asfortranarray(matrix.to(dtype).numpy().T) for matrix in (problem.X, problem.D))
    start = sparse.csc_matrix((D.shape[1], x.shape[1]), dtype=x.dtype)
    settings = {"itermax": MAX_ITERATIONS, "tol": tol, "numThreads": problem.threads}
    return lambda: spams.cd(x, D, start, lambda1=problem.penalty, mode=2, **settings)


def sklearn_lasso(problem: Problem, dtype: torch.dtype, tol: float, threads: int | None = None) -> Callable[[], Any]:
    """Return scikit-learn's `Lasso(precompute=Gram)` for all rows at once or, with `threads`, for parts of them."""
    from sklearn.linear_model import Lasso

    x, D = problem.X.to(dtype), problem.D.to(dtype)
    atoms, parts = np.asfortranarray(D.numpy().T), x.split(ROWS_PER_TASK if threads else len(x))

    def solve() -> Any:
        gram = (D @ D.T).numpy()

        def codes(rows: Tensor) -> Any:
            solver = Lasso(
                alpha=problem.penalty / D.shape[1],
                fit_intercept=False,
                precompute=gram,
                copy_X=False,
                tol=tol,
                max_iter=MAX_ITERATIONS,
            )
            return solver.fit(atoms, rows.numpy().T, check_input=False).coef_

        with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(threads or 1) as pool:
            return np.concatenate(list(pool.map(codes, parts)))

    return solve


def sklearn_lars(problem: Problem, dtype: torch.dtype) -> Callable[[], Any]:
    """Return scikit-learn's `sparse_encode(algorithm="lasso_lars")`, given the Gram matrix."""
    from sklearn.decomposition import sparse_encode

    x, D = problem.X.to(dtype).numpy(), problem.D.to(dtype).numpy()
    gram = D @ D.T
    return lambda: sparse_encode(x, D, gram=gram, algorithm="lasso_lars", alpha=problem.penalty)


SINGLE = [{"dtype": torch.float32, "tol": tol} for tol in (1e-4, 5e-5, 2e-5, 1e-5, 5e-6)]
DOUBLE = [{"dtype": torch.float64, "tol": tol} for tol in (2e-5, 1e-5, 5e-6, 1e-7)]
SPAMS_LARS, SPAMS_CD = "SPAMS lasso (LARS)", "SPAMS cd"
SKLEARN, SKLEARN_THREADS = "scikit-learn Lasso(precompute)", "scikit-learn Lasso, in threads"
SKLEARN_LARS = "scikit-learn sparse_encode(lasso_lars)"


def peers(threads: int) -> dict[str, Peer]:
    """Return the solvers with which the zoo is compared."""
    single, double = ({"dtype": dtype, "cholesky": False} for dtype in (torch.float32, torch.float64))
    return {
        SPAMS_LARS: Peer(spams_lars, [single, single | {"cholesky": True}, double]),
        SPAMS_CD: Peer(spams_cd, [*SINGLE, *DOUBLE]),
        SKLEARN: Peer(sklearn_lasso, [*SINGLE, *DOUBLE]),
        SKLEARN_THREADS: Peer(partial(sklearn_lasso, threads=threads), [*SINGLE, *DOUBLE]),
        SKLEARN_LARS: Peer(sklearn_lars, [{"dtype": torch.float64}], rows=100),
    }


def certified(peer: Peer, problem: Problem) -> Contender:
    """Return the solver with the first setting for which every row is certified, or with its last setting."""
    X = problem.X[: peer.rows]
    for setting in peer.settings:
        solve = peer.make(problem._replace(X=X), **setting)
        codes = solve()
        if isinstance(codes, sparse.csc_matrix):
            codes = codes.T.toarray()
        dense = codes.to_dense() if isinstance(codes, Tensor) else torch.from_numpy(codes)
        objective, gaps = duality_gap(X, problem.D, dense, problem.penalty)
        gap = (gaps / objective).max().item()
        if gap <= TOLERANCE:
            break
    told = ", ".join(f"{name} {value}".replace("dtype torch.", "") for name, value in setting.items())
    return Contender(solve, len(X), told, gap, dense.count_nonzero().item() / len(X))


def contenders(problem: Problem, names: Iterable[str] | None = None) -> dict[str, Contender]:
    """Return all contenders, or those named; skip libraries that are not installed, and say so."""
    found = {}
    for name, peer in {ZOO: Peer(zoo, [{}]), **peers(problem.threads)}.items():
        if names is None or name in names:
            try:
                found[name] = certified(peer, problem)
            except ImportError as error:
                print(f"{name} is skipped: {error}")
    return found
