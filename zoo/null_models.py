"""Random matrices that copy chosen properties of a real embedding, to compare a real one with.

Every function takes a `torch.Generator`, so that a seed names a matrix, and returns float32 rows (V, D).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import ZooError
from zoo.precision import float64


def gaussian(n_rows: int, d_model: int, generator: torch.Generator | None = None, std: float = 1.0) -> Tensor:
    """Rows with independent N(0, std²) coordinates, (n_rows, d_model)."""
    return torch.randn(n_rows, d_model, generator=generator) * std


def norm_matched(W: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Isotropic random directions with the row norms of `W` (V, D), row by row."""
    return with_norms_of(gaussian(len(W), W.shape[1], generator), W)


def with_norms_of(rows: Tensor, W: Tensor) -> Tensor:
    """`rows` (V, D) rescaled, so that row i has the norm of `W[i]`; a zero row stays one."""
    norms = rows.norm(dim=1)
    return rows * torch.where(norms > 0, W.float().norm(dim=1) / norms, 0.0).unsqueeze(1)


def covariance_matched(W: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Gaussian rows with exactly the mean and the covariance (over rows, unweighted) of `W` (V, D).

    Among Gaussian rows those with a given sample mean and covariance are distributed as these draws are, whatever the
    Gaussian: mean and covariance are sufficient statistics. If the rows of `W` are Gaussian, nothing tells `W` from its
    draws, whatever the spectrum.
    """
    mean, roots, axes = principal_axes(W)
    white = gaussian(len(W), len(roots), generator).double()
    return (whitened(white) * roots @ axes.T + mean).float()


class Matched(NamedTuple):
    """Rows with the norms of another matrix, and how close their mean and covariance are to its own."""

    rows: Tensor  # (V, D) float32
    error: float  # of mean and covariance, see `moment_error`


def with_norms_and_covariance_of(rows: Tensor, W: Tensor, tolerance: float = 1e-3, rounds: int = 100) -> Matched:
    """Rows changed as little as it takes to have the norms of `W` (V, D), row by row, and its mean and covariance.

    Rescaling rows changes their covariance, and an affine map that mends it changes their norms, so the two take turns
    until mean and covariance are matched, no longer come closer, or `rounds` are over. The norms are exact at the end.

    Such rows are not Gaussian where the eigenvalues of the covariance differ much: a row's length is then independent
    of its direction, which gives its principal coordinates heavier tails than a Gaussian's.

    Args:
        rows: (V, D), with about the moments of `W`.
        W: The matrix to match, (V, D).
        tolerance: Error of mean and covariance that ends the search.
        rounds: Turns at most.

    Returns:
        The closest rows found, and their error. Norms that vary by orders of magnitude may not go with the covariance.
    """
    mean, roots, axes = principal_axes(W)
    best = Matched(with_norms_of(rows, W), float("inf"))
    since = 0
    for _ in range(rounds):
        rows = with_norms_of((whitened(rows.double() @ axes) * roots @ axes.T + mean).float(), W)
        error = moment_error(rows, W)
        since = 0 if error < 0.99 * best.error else since + 1
        best = min(best, Matched(rows, error), key=lambda matched: matched.error)
        if error < tolerance or since == 5:
            break
    return best


def moment_error(rows: Tensor, W: Tensor) -> float:
    """How far mean and covariance of rows (V, D) are from those of `W` (V', D); the larger of two shares.

    The distance between the means in units of the rms distance of W's rows from their mean, and the Frobenius norm of
    the covariances' difference in units of that of W's covariance.
    """
    (mean, covariance), (wanted_mean, wanted) = moments(rows), moments(W)
    far = (mean - wanted_mean).norm() / wanted.trace().sqrt()
    return float(torch.maximum(far, (covariance - wanted).norm() / wanted.norm()))


def moments(W: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of rows (V, D), float64."""
    W = float64(W)
    mean = W.mean(0)
    return mean, (W - mean).T @ (W - mean) / len(W)


def principal_axes(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), standard deviations (r,) and directions (D, r) of the principal axes of rows (V, D) of rank r."""
    mean, covariance = moments(W)
    eigenvalues, axes = torch.linalg.eigh(covariance)
    real = eigenvalues > 1e-12 * eigenvalues[-1:]
    return mean, eigenvalues[real].sqrt(), axes[:, real]


def whitened(rows: Tensor) -> Tensor:
    """Rows (V, r) float64, of full rank, moved to mean 0 and turned by a symmetric matrix to covariance 1."""
    mean, roots, axes = principal_axes(rows)
    return (rows - mean) @ axes / roots @ axes.T


def permuted_coordinates(W: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The rows of `W` (V, D) with every principal coordinate permuted over the rows on its own.

    Mean, covariance and the distribution of every principal coordinate are those of `W`, up to the correlations that
    V rows have by chance; all other dependence between the coordinates is gone.
    """
    W = W.double()
    mean = W.mean(0)
    _, axes = torch.linalg.eigh((W - mean).T @ (W - mean))
    coordinates = axes.T @ (W - mean).T  # (D, V)
    permuted = torch.stack([row[torch.randperm(len(W), generator=generator)] for row in coordinates])
    return (permuted.T @ axes.T + mean).float()


def permuted_rows(W: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The rows of `W` (V, D) dealt out to the tokens at random."""
    return W.float()[torch.randperm(len(W), generator=generator)]


def planted(
    n_rows: int,
    d_in: int,
    n_atoms: int,
    sparsity: int,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows that are superpositions: each a sum of exactly `sparsity` atoms of a random dictionary, and noise.

    Args:
        n_rows: Number of rows V.
        d_in: Their dimension D.
        n_atoms: Number of atoms K, random directions of unit length.
        sparsity: Atoms in every row, all different; their coefficients are uniform in [0.5, 1.5].
        noise: Expected share of the total variance that is isotropic Gaussian noise, which is the FVU (around the
            mean) of the true codes.
        generator: Source of randomness.

    Returns:
        The rows (V, D), the atoms (K, D) and the codes (V, K): without noise, rows = codes @ atoms.

    Raises:
        ZooError: If there are fewer atoms than a row needs, or the noise is no share below 1.
    """
    if not 1 <= sparsity <= n_atoms:
        raise ZooError(f"sparsity is {sparsity}; it must be at least 1 and at most n_atoms, {n_atoms}")
    if not 0 <= noise < 1:
        raise ZooError(f"noise is {noise}; it is a share of the variance, at least 0 and below 1")
    atoms = F.normalize(gaussian(n_atoms, d_in, generator))
    codes = torch.zeros(n_rows, n_atoms)
    rows = torch.empty(n_rows, d_in)
    for chunk, out in zip(codes.split(4096), rows.split(4096), strict=True):
        support = torch.rand(chunk.shape, generator=generator).topk(sparsity).indices  # (chunk, sparsity)
        coefficients = 0.5 + torch.rand(support.shape, generator=generator)
        chunk.scatter_(1, support, coefficients)
        out.copy_(F.embedding_bag(support, atoms, per_sample_weights=coefficients, mode="sum"))
    if noise:
        variance = rows.var(0, correction=0).sum().item() * noise / (1 - noise)  # of the noise, over all coordinates
        rows += gaussian(n_rows, d_in, generator, (variance / d_in) ** 0.5)
    return rows, atoms, codes


def welch_bound(n_rows: int, d_model: int) -> float:
    """Least possible largest |cosine| among `n_rows` lines in `d_model` dimensions (Welch 1974, k = 1)."""
    if n_rows <= d_model:
        return 0.0
    return math.sqrt((n_rows - d_model) / (d_model * (n_rows - 1)))


def low_coherence(
    n_rows: int,
    d_model: int,
    max_cosine: float,
    generator: torch.Generator | None = None,
    max_rejections: int = 100_000,
) -> tuple[Tensor, float]:
    """Random unit rows, no two of which have |cosine| above a bound, by rejection sampling.

    Directions are drawn uniformly on the sphere one after the other; one that comes too close to a row kept before
    is thrown away.

    Args:
        n_rows: Number of rows V.
        d_model: Their dimension D.
        max_cosine: Bound on |cosine| between two rows, between 0 and 1.
        generator: Source of randomness.
        max_rejections: Directions rejected in a row before giving up.

    Returns:
        The rows (V, D), of unit length, and the largest |cosine| among them.

    Raises:
        ZooError: If the bound is below Welch's, which no set of rows can beat, or if it was not met within
            `max_rejections`; the message says how many rows fitted and which largest |cosine| plain random rows reach.
    """
    if not 0 < max_cosine <= 1:
        raise ZooError(f"max_cosine is {max_cosine}; it must be above 0 and at most 1")
    welch = welch_bound(n_rows, d_model)
    if max_cosine < welch:
        raise ZooError(
            f"no {n_rows} rows in {d_model} dimensions have all |cosine| <= {max_cosine}: "
            f"the Welch bound is {welch:.4f}"
        )
    rows = torch.empty(n_rows, d_model)
    kept, rejected, reached = 0, 0, 0.0
    while kept < n_rows:
        batch = torch.randn(min(1024, max(64, n_rows)), d_model, generator=generator)
        batch /= batch.norm(dim=1, keepdim=True)
        to_kept = (batch @ rows[:kept].T).abs().amax(1) if kept else torch.zeros(len(batch))
        among = (batch @ batch.T).abs()
        accepted: list[int] = []
        for i, cosine in enumerate(to_kept.tolist()):
            if accepted:
                cosine = max(cosine, among[i, accepted].max().item())
            if cosine > max_cosine:
                rejected += 1
                continue
            accepted.append(i)
            rejected, reached = 0, max(reached, cosine)
            if kept + len(accepted) == n_rows:
                break
        rows[kept : kept + len(accepted)] = batch[accepted]
        kept += len(accepted)
        if rejected > max_rejections:
            plain = F.normalize(gaussian(min(n_rows, 4096), d_model, generator))
            typical = (plain @ plain.T).abs().fill_diagonal_(0).max().item()
            raise ZooError(
                f"only {kept} of {n_rows} random rows in {d_model} dimensions fit under |cosine| <= {max_cosine} "
                f"(largest reached {reached:.4f}; {len(plain)} plain random rows reach {typical:.4f}); "
                "raise max_cosine or d_model"
            )
    return rows, reached
