"""A dictionary whose codes are solutions of an optimisation problem; it has no encoder."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.models.sparse_coding import Solution, lasso
from zoo.network import Network


class Dictionary(Network):
    """Unit atoms and a mean: x_hat = f(x) W_dec + b_dec with codes that solve a lasso.

    f(x) minimises |x - b_dec - f W_dec|² / 2 + penalty * scale * |f|₁. Here `scale` is the root mean square distance of
    the training data from their mean, so that a penalty has the same meaning whatever the units of the data are. If a
    row minus the mean has this length, and absolute cosines below the penalty with all atoms, its codes are all 0.

    Args:
        d_in: Dimension of the data.
        n_atoms: Number of atoms K.
        penalty: Weight of the codes' absolute values, in units of `scale`.
        positive: Whether codes must be nonnegative, like the codes of an autoencoder.
        tolerance: Largest duality gap at which the codes of a row are certified, as a share of the row's objective.

    Raises:
        ZooError: If a number is out of range.
    """

    not_for = (
        "Claims that its atoms are features. A dictionary fits null models too: compare its error with theirs, at the "
        "same penalty."
    )

    W_dec: nn.Parameter  # (K, d_in)
    b_dec: Tensor  # (d_in,)
    scale: Tensor  # ()

    def __init__(
        self, d_in: int, n_atoms: int, penalty: float = 0.1, positive: bool = False, tolerance: float = 1e-4
    ) -> None:
        super().__init__()
        for name, size in (("d_in", d_in), ("n_atoms", n_atoms)):
            if type(size) is not int or size < 1:
                raise ZooError(f"{name} is {size}; it must be a whole number and at least 1")
        if not 0 < penalty < math.inf:
            raise ZooError(
                f"penalty is {penalty}; it must be a number above 0 (zoo.models.sparse_coding.basis_pursuit solves the "
                "problem without a penalty)"
            )
        if not 0 < tolerance < 1:
            raise ZooError(f"tolerance is {tolerance}; it must be above 0 and below 1")
        self.config: dict[str, Any] = {"d_in": d_in, "n_atoms": n_atoms, "penalty": penalty}
        self.config |= {"positive": positive, "tolerance": tolerance}
        self.d_in, self.n_atoms, self.penalty = d_in, n_atoms, penalty
        self.positive, self.tolerance = positive, tolerance
        self.signed_codes = not positive
        self.W_dec = nn.Parameter(F.normalize(torch.randn(n_atoms, d_in)))
        self.register_buffer("b_dec", torch.zeros(d_in))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def solve(self, x: Tensor, start: Tensor | None = None) -> Solution:
        """Solve for the codes of data (B, d_in).

        Args:
            x: Data, (B, d_in).
            start: Codes that the solver starts from, (B, K); 0 by default.

        Returns:
            Codes, with a bound on the distance of each row from its optimum.
        """
        if x.shape[-1] != self.d_in:
            raise ZooError(f"the data have {x.shape[-1]} dimensions, but d_in of the dictionary is {self.d_in}")
        with torch.autocast(x.device.type, enabled=False):
            centred = x.to(self.W_dec.dtype) - self.b_dec
            penalty = self.penalty * self.scale.item()
            return lasso(centred, self.W_dec.detach(), penalty, self.tolerance, self.positive, start)

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes of data, (..., d_in) -> (..., K)."""
        return self.solve(x.reshape(-1, x.shape[-1])).codes.to_dense().view(*x.shape[:-1], self.n_atoms)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the reconstruction from codes, (..., K) -> (..., d_in). A matrix (B, K) may be in compressed rows."""
        with torch.autocast(codes.device.type, enabled=False):
            return codes @ self.W_dec + self.b_dec

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction and the codes of data, (..., d_in) -> (..., d_in) and (..., K)."""
        codes = self.encode(x)
        return self.decode(codes), codes

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of data, (..., d_in) -> (..., d_in)."""
        return self.reconstruct(x)[0]

    @torch.no_grad()
    def fit_moments(self, x: Tensor, weight: Tensor | None = None) -> None:
        """Set `b_dec` and `scale` to the mean and the spread of data (n, d_in) with weights (n,), 1 by default."""
        share = torch.ones(len(x), device=x.device) if weight is None else weight
        share = share.double() / share.double().sum()
        mean = share @ x.double()
        self.b_dec.copy_(mean)
        self.scale.copy_((share @ (x.double() - mean).square().sum(1)).sqrt().clamp(min=1e-15))

    @torch.no_grad()
    def take_as_atoms(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Replace the atoms by random rows of data (n, d_in), minus the mean and normalised.

        Rows that equal the mean are not used. If fewer than K rows remain, the last atoms stay as they are.
        """
        centred = x - self.b_dec
        rows = centred[centred.norm(dim=1) > 1e-6 * self.scale]
        chosen = rows[torch.randperm(len(rows), generator=generator)[: self.n_atoms].to(rows.device)]
        self.W_dec[: len(chosen)] = F.normalize(chosen)
