"""Null models: random matrices that share chosen properties with a real embedding, for comparison with it.

The functions that draw rows take a `torch.Generator`, so that a seed determines the matrix, and return float32 rows
(V, D).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import ZooError
from zoo.precision import float64

ROWS_AT_ONCE = 16384  # that are held in float64


def gaussian(n_rows: int, d_model: int, generator: torch.Generator | None = None, std: float = 1.0) -> Tensor:
    """Return rows with independent N(0, std²) coordinates, (n_rows, d_model)."""
    return torch.randn(n_rows, d_model, generator=generator) * std


def norm_matched(W: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return rows in isotropic random directions, where row i has the norm of row i of `W` (V, D)."""
    return with_norms_of(gaussian(len(W), W.shape[1], generator), W)


def with_norms_of(rows: Tensor, W: Tensor) -> Tensor:
    """Return `rows` (V, D), rescaled so that row i has the norm of `W[i]`; zero rows stay 0."""
    norms = rows.norm(dim=1)
    return rows * torch.where(norms > 0, W.float().norm(dim=1) / norms, 0.0).unsqueeze(1)


def covariance_matched(W: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return Gaussian rows with exactly the mean and the covariance (over rows, unweighted) of `W` (V, D).

    Mean and covariance are sufficient statistics. Given these, Gaussian rows therefore have the distribution of the
    rows returned here, for any parameters of the Gaussian. If the rows of `W` are Gaussian, `W` cannot be distinguished
    from these draws, whatever its spectrum.
    """
    mean, roots, axes = principal_axes(W)
    white = gaussian(len(W), len(roots), generator)
    own, covariance = moments(white)
    change = _whitening(covariance) * roots @ axes.T
    return torch.cat([((part.double() - own) @ change + mean).float() for part in white.split(ROWS_AT_ONCE)])


class Matched(NamedTuple):
    """Rows with the norms of another matrix, and the error of their mean and covariance relative to that matrix."""

    rows: Tensor  # (V, D) float32
    error: float  # error of mean and covariance, see `moment_error`


def with_norms_and_covariance_of(rows: Tensor, W: Tensor, tolerance: float = 1e-3, rounds: int = 100) -> Matched:
    """Return `rows`, changed so that row i has the norm of `W[i]` and mean and covariance match those of `W` (V, D).

    Rescaling rows changes their covariance, and the affine map that corrects the covariance changes their norms.
    Therefore the two operations alternate until mean and covariance match, do not improve any more, or `rounds` is
    reached. The last operation is the rescaling, so that the norms are exact.

    Such rows are not Gaussian where the eigenvalues of the covariance differ much: the length of a row is then
    independent of its direction, and its principal coordinates have heavier tails than those of a Gaussian.

    Args:
        rows: Rows with approximately the mean and covariance of `W`, (V, D).
        W: The matrix to match, (V, D).
        tolerance: Error of mean and covariance at which the search ends.
        rounds: Largest number of rounds.

    Returns:
        The best rows found, and their error. If the norms vary by orders of magnitude, there may be no rows with both
        these norms and this covariance.
    """
    mean, wanted = moments(W)
    roots, axes = _axes(wanted)
    own, covariance = moments(rows)
    best = Matched(with_norms_of(rows, W), float("inf"))
    since = 0
    for _ in range(rounds):
        change = axes @ _whitening(axes.T @ covariance @ axes) * roots @ axes.T
        rows = with_norms_of(((rows.double() - own) @ change + mean).float(), W)
        own, covariance = moments(rows)
        error = _moment_error(own, covariance, mean, wanted)
        since = 0 if error < 0.99 * best.error else since + 1
        best = min(best, Matched(rows, error), key=lambda matched: matched.error)
        if error < tolerance or since == 5:
            break
    return best


def moment_error(rows: Tensor, W: Tensor) -> float:
    """Return the relative error of the mean and covariance of rows (V, D) with respect to `W` (V', D).

    It is the larger of two errors: the distance between the means, divided by the rms distance of the rows of W from
    their mean; and the Frobenius norm of the difference of the covariances, divided by that of W's covariance.
    """
    return _moment_error(*moments(rows), *moments(W))


def _moment_error(mean: Tensor, covariance: Tensor, wanted_mean: Tensor, wanted: Tensor) -> float:
    far = (mean - wanted_mean).norm() / wanted.trace().sqrt()
    return float(torch.maximum(far, (covariance - wanted).norm() / wanted.norm()))


def moments(W: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) and covariance (D, D) of rows (V, D), float64."""
    if len(W) <= ROWS_AT_ONCE:
        W = float64(W)
        mean = W.mean(0)
        return mean, (W - mean).T @ (W - mean) / len(W)
    parts = W.split(ROWS_AT_ONCE)
    mean = torch.stack([float64(part).sum(0) for part in parts]).sum(0) / len(W)
    covariance = torch.zeros(W.shape[1], W.shape[1], dtype=torch.float64, device=mean.device)
    for part in parts:
        left = float64(part) - mean
        covariance.addmm_(left.T, left)
    return mean, covariance / len(W)


def principal_axes(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean (D,) of rows (V, D), and the standard deviations (r,) and directions (D, r) of principal axes.

    r is the rank of the covariance.
    """
    mean, covariance = moments(W)
    return mean, *_axes(covariance)


def _axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    eigenvalues, axes = torch.linalg.eigh(covariance)
    real = eigenvalues > 1e-12 * eigenvalues[-1:]
    return eigenvalues[real].sqrt(), axes[:, real]


def _whitening(covariance: Tensor) -> Tensor:
    """Return the symmetric matrix (r, r) that transforms rows of a covariance (r, r) to covariance 1."""
    roots, axes = _axes(covariance)
    return axes / roots @ axes.T


def permuted_coordinates(W: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return the rows of `W` (V, D), with every principal coordinate permuted independently over the rows.

    Mean, covariance and the distribution of every principal coordinate are those of `W`, up to chance correlations
    between V rows. All other dependence between the coordinates is removed.
    """
    W = W.double()
    mean = W.mean(0)
    _, axes = torch.linalg.eigh((W - mean).T @ (W - mean))
    coordinates = axes.T @ (W - mean).T  # (D, V)
    permuted = torch.stack([row[torch.randperm(len(W), generator=generator)] for row in coordinates])
    return (permuted.T @ axes.T + mean).float()


def permuted_rows(W: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return the rows of `W` (V, D), assigned to the tokens at random."""
    return W.float()[torch.randperm(len(W), generator=generator)]


def planted(
    n_rows: int,
    d_in: int,
    n_atoms: int,
    sparsity: int,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows in superposition: each is a sum of exactly `sparsity` atoms of a random dictionary, plus noise.

    Args:
        n_rows: Number of rows V.
        d_in: Dimension D of the rows.
        n_atoms: Number of atoms K, which are random unit vectors.
        sparsity: Number of different atoms in every row. Their coefficients are uniform in [0.5, 1.5].
        noise: Expected share of the total variance that is isotropic Gaussian noise. It is the FVU (around the mean) of
            the true codes.
        generator: Random generator.

    Returns:
        The rows (V, D), the atoms (K, D) and the codes (V, K): without noise, rows = codes @ atoms.

    Raises:
        ZooError: If there are fewer atoms than a row needs, or if the noise is not at least 0 and below 1.
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
    """Return Welch's lower bound on the largest |cosine| among `n_rows` lines in `d_model` dimensions (1974, k = 1)."""
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
    """Return random unit rows of which no two have a |cosine| above a bound, by rejection sampling.

    Directions are drawn uniformly on the sphere, one after the other. A direction that is too close to an accepted row
    is rejected.

    Args:
        n_rows: Number of rows V.
        d_model: Dimension D of the rows.
        max_cosine: Bound on |cosine| between two rows, above 0 and at most 1.
        generator: Random generator.
        max_rejections: Number of consecutive rejections after which an error is raised.

    Returns:
        The rows (V, D), of unit length, and the largest |cosine| among them.

    Raises:
        ZooError: If `max_cosine` is below Welch's bound, which holds for any rows, or if more than `max_rejections`
            directions in succession are rejected. The message says how many rows were accepted, and the largest
            |cosine| among plain random rows.
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
                f"(their largest is {reached:.4f}; that of {len(plain)} plain random rows is {typical:.4f}); "
                "raise max_cosine or d_model"
            )
    return rows, reached
