"""Changes of activations to be compared: random ones of the same norm, and changes of codes that keep their support.

Changes are (n, D), one per token. All random numbers are drawn on the CPU, so that a seed gives the same changes on
every device.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import ZooError
from zoo.null_models import principal_axes, with_norms_of

# Random changes with the norms of others.


def isotropic(changes: Tensor, generator: torch.Generator) -> Tensor:
    """Return isotropic random changes with the norms of `changes`, row by row, (n, D)."""
    return with_norms_of(_normal(changes.shape, generator).to(changes), changes)


class Gaussian(NamedTuple):
    """A Gaussian distribution with the mean and covariance of rows."""

    mean: Tensor  # (D,)
    root: Tensor  # (r, D): the covariance is root^T root, of rank r

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n draws, (n, D)."""
        return self.mean + _normal((n, len(self.root)), generator).to(self.root) @ self.root


def gaussian_of(rows: Tensor) -> Gaussian:
    """Return the Gaussian with the mean and covariance of rows (N, D)."""
    mean, roots, axes = principal_axes(rows)
    return Gaussian(mean.to(rows), (roots[:, None] * axes.T).to(rows))


def covariance_matched(changes: Tensor, gaussian: Gaussian, generator: torch.Generator) -> Tensor:
    """Return draws of a Gaussian, rescaled to the norms of `changes`, row by row, (n, D).

    With the mean and covariance of an autoencoder's errors, they are a null model of the errors: Gaussian directions
    with the errors' norms. The direction of a draw does not depend on the norm that it is given. In an anisotropic
    Gaussian, longer draws are closer to the largest axes, so even Gaussian errors can differ slightly from these.
    """
    return with_norms_of(gaussian.draw(len(changes), generator), changes)


def mixture(changes: Tensor, gaussian: Gaussian, generator: torch.Generator) -> Tensor:
    """Return differences of two draws of a Gaussian, rescaled to the norms of `changes`, row by row, (n, D).

    With the mean and covariance of the activations, these are the "cov-random mixture" directions of Lee and
    Heimersheim 2024 (arXiv 2410.12555). The mean cancels in the difference.
    """
    n = len(changes)
    return with_norms_of(gaussian.draw(n, generator) - gaussian.draw(n, generator), changes)


def of_other_tokens(changes: Tensor, generator: torch.Generator) -> Tensor:
    """Return the change of another token for every token, rescaled to the norm of its own, (n, D)."""
    return with_norms_of(changes[_moved(len(changes), generator).to(changes.device)], changes)


def mean_squares(eigenvalues: Tensor) -> Tensor:
    """Return E[u_i²] of the unit vector u in the direction of a Gaussian with mean 0, (D,) float64.

    The coordinates are those along the principal axes. With eigenvalues s of the covariance,

        E[u_i²] = ∫₀^∞ s_i / (1 + 2 s_i t) Π_j (1 + 2 s_j t)^-½ dt.

    It differs from s_i / Σ_j s_j, because draws along large axes are longer, and normalisation shortens them more. With
    a Fisher matrix F in these coordinates and a radius r, the mean of ½ r² uᵀFu is ½ r² Σ_i F_ii E[u_i²]. The integral
    is computed by the trapezoidal rule in ln t, which converges exponentially.

    Args:
        eigenvalues: Eigenvalues of the covariance, (D,), not negative.
    """
    s = eigenvalues.double() / eigenvalues.double().max()
    ln_t = torch.linspace(-45, 90, 2701, dtype=torch.float64, device=s.device)
    growth = torch.log1p(2 * s * ln_t.exp()[:, None])  # (2701, D)
    rest = torch.exp(ln_t[:, None] - growth - growth.sum(1, keepdim=True) / 2)
    return s * rest.sum(0) * (ln_t[1] - ln_t[0])


# Changes of codes.


def l0_preserving(codes: Tensor, W_dec: Tensor, norms: Tensor, generator: torch.Generator) -> Tensor:
    """Return random changes δ of codes z with support and signs kept: z + δ > 0 where z > 0, and δ = 0 elsewhere.

    δ_i is z_i times a standard normal number, scaled so that |δ W_dec| is the given norm. Where z + δ is then not
    positive, the sign of δ_i is flipped. Both are repeated until every z + δ is positive where z is. Rows without an
    active atom stay 0.

    Args:
        codes: Codes z, (n, K), not negative.
        W_dec: Decoder, (K, D).
        norms: Norm of the decoded change of every row, (n,).
        generator: Random number generator.

    Returns:
        The changes δ, (n, K). The autoencoder may still select another support when it encodes the changed
        reconstruction, see `keeps_support`.

    Raises:
        ZooError: If codes are negative, or a norm is not positive.
    """
    if bool((codes < 0).any()):
        raise ZooError("codes are negative; changes that preserve L0 need codes that are at least 0")
    if not bool((norms > 0).all()):
        raise ZooError("the norm of a change is 0 or negative; it must be positive")
    delta = codes * _normal(codes.shape, generator).to(codes)
    while True:
        decoded = (delta @ W_dec).norm(dim=1)
        delta = delta * torch.where(decoded > 0, norms / decoded, 0.0)[:, None]
        below = (codes > 0) & (codes + delta <= 0)
        if not bool(below.any()):
            return delta
        delta = torch.where(below, -delta, delta)


def keeps_support(reconstruct: Callable[[Tensor], tuple[Tensor, Tensor]], x_hat: Tensor, codes: Tensor) -> Tensor:
    """Return whether encoding the decoded codes selects the same support, (n,) bool.

    Args:
        reconstruct: The autoencoder, x (n, D) -> reconstruction (n, D) and codes (n, K).
        x_hat: The decoded codes, (n, D).
        codes: The codes, (n, K).
    """
    return ((reconstruct(x_hat)[1] != 0) == (codes != 0)).all(1)


def in_active_span(changes: Tensor, codes: Tensor, W_dec: Tensor, generator: torch.Generator) -> Tensor:
    """Return isotropic random changes within the span of the active atoms, with the norms of `changes`, (n, D)."""
    random = _normal(changes.shape, generator).to(changes)
    for row, active in enumerate(codes != 0):
        basis = torch.linalg.svd(W_dec[active], full_matrices=False)
        axes = basis.Vh[1e-5 * basis.S[:1] < basis.S]  # (r, D), orthonormal
        random[row] = random[row] @ axes.T @ axes
    return with_norms_of(random, changes)


def permuted_atoms(W_dec: Tensor, generator: torch.Generator) -> Tensor:
    """Return the decoder (K, D) with every atom moved to another latent.

    It is a control: if it decodes the same change δ of the codes, every latent has the same change, but the atom of
    another latent.
    """
    return W_dec[_moved(len(W_dec), generator).to(W_dec.device)]


def on_inactive_atoms(delta: Tensor, codes: Tensor, generator: torch.Generator) -> Tensor:
    """Return changes of codes moved from the active atoms to as many inactive ones, drawn at random, (n, K).

    Args:
        delta: Changes of active codes, (n, K).
        codes: The codes, (n, K).
        generator: Random number generator.

    Raises:
        ZooError: If a row has more active than inactive atoms.
    """
    on = codes != 0
    if bool((2 * on.sum(1) > codes.shape[1]).any()):
        raise ZooError("a row has more active atoms than inactive ones")
    return torch.zeros_like(delta).scatter(1, _shuffled(~on, generator), delta.gather(1, _shuffled(on, generator)))


def with_values_of_other_tokens(codes: Tensor, generator: torch.Generator) -> Tensor:
    """Return codes with the same support and, in random order, the values of another token, (n, K).

    If the other token has fewer active atoms, its values are repeated.

    Raises:
        ZooError: If a row has no active atom.
    """
    on = codes != 0
    if not bool(on.any(1).all()):
        raise ZooError(f"row {int((~on.any(1)).nonzero()[0])} of the codes has no active atom")
    other = _moved(len(codes), generator).to(codes.device)
    n_on, rank = on.sum(1, keepdim=True), torch.arange(codes.shape[1], device=codes.device)
    values = codes[other].gather(1, _shuffled(on[other], generator)).gather(1, rank % n_on[other])
    return torch.zeros_like(codes).scatter(1, _shuffled(on, generator), torch.where(rank < n_on, values, 0.0))


def _shuffled(on: Tensor, generator: torch.Generator) -> Tensor:
    """Return the indices of every row, first those that are on in random order, then the others, (n, K)."""
    return (on + torch.rand(on.shape, generator=generator).to(on.device)).argsort(1, descending=True)


def _moved(n: int, generator: torch.Generator) -> Tensor:
    """Return a random permutation of n indices that moves every one of them, (n,).

    Raises:
        ZooError: If there is only one index.
    """
    if n < 2:
        raise ZooError("there is only one row; at least two are needed to exchange them")
    order = torch.randperm(n, generator=generator)
    return torch.empty_like(order).scatter(0, order, order.roll(1))


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator)


def cosines_to_atoms(directions: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine of every direction (n, D) with its nearest atom of (K, D), and the atom's index, (n,) each."""
    nearest = (F.normalize(directions, dim=1) @ F.normalize(atoms, dim=1).T).max(1)
    return nearest.values, nearest.indices
