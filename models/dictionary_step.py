"""Optimizer that updates the dictionary in dictionary learning, given the codes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import all_gather, all_reduce, get_world_size, is_initialized
from torch.optim import Optimizer

from zoo.models.sparse_coding.rows import chosen_rows, dense_parts, row_range

RIDGE = 1e-6  # as a share of the mean diagonal entry of AᵀWA
TWINS = 0.95  # absolute cosine above which the less used of two atoms is replaced
ROWS_AT_ONCE = 4096


class MethodOfOptimalDirections(Optimizer):
    """Dictionary of unit-norm atoms by least squares (Engan, Aase & Husøy 1999), given the codes.

    With codes A (N, K), weights W and data X, the atoms solve (AᵀWA + ridge) D = AᵀWX and are then scaled to unit norm.
    Only the sums AᵀWA and AᵀWX are stored, over all processes and in float64. In every step the sums of earlier steps
    are multiplied by `memory`, so that a batch can be a part of the data. Atoms that few rows use are replaced, and so
    is the less used of two atoms that nearly coincide. The new atoms are the residuals of the rows of the batch with
    the largest errors. Where codes may be negative, the sign of an atom is arbitrary; it is chosen so that the sum of
    its codes is positive.

    Args:
        W_dec: The dictionary, (K, d).
        memory: Share of the sums of earlier steps that is kept, at least 0 and below 1.
        replace_below: An atom is replaced if the number of rows that use it is at most this share of the mean over
            atoms. With 0, only atoms that no row uses are replaced.
    """

    def __init__(self, W_dec: nn.Parameter, memory: float = 0.0, replace_below: float = 0.1) -> None:
        super().__init__([W_dec], {"memory": memory, "replace_below": replace_below})
        self.memory, self.replace_below = memory, replace_below
        K, d = W_dec.shape
        self.gram = W_dec.new_zeros(K, K, dtype=torch.float64)
        self.cross = W_dec.new_zeros(K, d, dtype=torch.float64)
        self.use = W_dec.new_zeros(K, dtype=torch.float64)  # number of rows that use each atom
        self.total = W_dec.new_zeros(K, dtype=torch.float64)  # weighted sum of each atom's codes
        self.worst: tuple[Tensor, Tensor] = (W_dec.new_zeros(0), W_dec.new_zeros(0, d))  # errors, residuals
        self.sizes = W_dec.new_ones(K)  # divisor of each atom in the last step; 0 if it was replaced
        self.replaced = 0

    @torch.no_grad()
    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def add(self, codes: Tensor, x: Tensor, mean: Tensor, weight: Tensor | None = None) -> Tensor:
        """Add this process's part of a batch to the sums; to be called once per step.

        Args:
            codes: Codes, (B, K) in compressed rows.
            x: Data, (B, d).
            mean: Mean of the data, (d,).
            weight: Weights of the rows, (B,). By default 1.

        Returns:
            Squared length of the residual of every row, (B,) float64.
        """
        (W_dec,) = self.param_groups[0]["params"]
        x = x.to(torch.promote_types(x.dtype, W_dec.dtype))
        weight = torch.ones(len(x), device=x.device) if weight is None else weight
        gram, cross = sufficient_statistics(codes, x, mean, weight)
        squares = torch.empty(len(x), dtype=torch.float64, device=x.device)
        for start in range(0, len(x), ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, len(x))
            residual = x[start:stop] - mean - row_range(codes, start, stop) @ W_dec
            squares[start:stop] = residual.double().square().sum(1)
        error = weight * squares
        worst = error.argsort(descending=True, stable=True)[: len(W_dec)].sort().values
        self.worst = error[worst].to(x.dtype), x[worst] - mean - chosen_rows(codes, worst) @ W_dec
        use = codes.col_indices().bincount(minlength=len(self.use)).double()
        weights = weight.double().repeat_interleave(codes.crow_indices().diff())
        total = torch.zeros_like(self.total).index_add_(0, codes.col_indices(), weights * codes.values())
        for kept, new in ((self.gram, gram), (self.cross, cross), (self.use, use), (self.total, total)):
            if is_initialized():
                all_reduce(new)
            kept.mul_(self.memory).add_(new)
        return squares

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the dictionary."""
        (W_dec,) = self.param_groups[0]["params"]
        system = self.gram.clone()
        system.diagonal().add_(RIDGE * self.gram.diagonal().mean() + torch.finfo(torch.float64).tiny)
        atoms = torch.cholesky_solve(self.cross, torch.linalg.cholesky(system))
        self.sizes = torch.where(self.total < 0, -1.0, 1.0) * atoms.norm(dim=1)
        unused, idle = self.use <= self.replace_below * self.use.mean(), self.sizes == 0
        if not self.memory:  # with memory, an idle atom may be a new one
            unused |= idle
        self.sizes[unused | idle] = 1.0
        atoms = torch.where((unused | idle).unsqueeze(1), W_dec.double(), atoms / self.sizes.unsqueeze(1))
        poor = (unused | _twins(atoms, self.use)).nonzero().squeeze(1)
        rows = _worst_rows(*self.worst, len(poor)).double()
        poor = poor[: len(rows)]  # if there are fewer rows, the other atoms stay
        atoms[poor] = F.normalize(rows)
        W_dec.copy_(atoms)
        self.replaced = len(poor)
        self._rescale_sums(poor)

    def _rescale_sums(self, replaced: Tensor) -> None:
        """Convert the sums to codes of the scaled atoms, and set those of the new atoms to 0."""
        self.sizes[replaced] = 0.0
        self.gram *= self.sizes.unsqueeze(1) * self.sizes
        self.cross *= self.sizes.unsqueeze(1)
        self.total *= self.sizes
        self.use[replaced] = self.use.mean() if self.memory else 0.0  # a new atom gets time to be used

    def sums(self) -> dict[str, Tensor]:
        """Return the state that a resumed run needs in addition to the dictionary."""
        return {"gram": self.gram, "cross": self.cross, "use": self.use, "total": self.total}

    def load_sums(self, sums: dict[str, Tensor]) -> None:
        """Continue from the sums of an earlier run."""
        for name, value in sums.items():
            self.sums()[name].copy_(value)


def sufficient_statistics(codes: Tensor, x: Tensor, mean: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return AᵀWA (K, K) and AᵀW(X - mean) (K, d), float64.

    Args:
        codes: Codes A, (B, K) in compressed rows.
        x: Data X, (B, d).
        mean: Mean of the data, (d,).
        weight: Weights of the rows, (B,).
    """
    gram, cross = (x.new_zeros(codes.shape[1], n, dtype=torch.float64) for n in (codes.shape[1], x.shape[1]))
    if x.device.type == "cpu":
        from zoo.models.sparse_coding.statistics import add_products  # slow to import

        add_products(codes, x, mean.to(x.dtype), weight.double(), gram, cross)
        return gram, cross
    parts = zip(dense_parts(codes, ROWS_AT_ONCE), x.split(ROWS_AT_ONCE), weight.split(ROWS_AT_ONCE), strict=True)
    for a, rows, w in parts:
        weighted = (a.double() * w.double().unsqueeze(1)).T
        gram.addmm_(weighted, a.double())
        cross.addmm_(weighted, (rows - mean).double())
    return gram, cross


def _twins(atoms: Tensor, use: Tensor) -> Tensor:
    """Return which unit atoms (K, d) nearly coincide with an atom of higher use, or equal use and lower index, (K,)."""
    order = (-use).argsort(stable=True)
    ordered = atoms[order].float()
    cosines = (ordered @ ordered.T).abs_().tril_(-1)
    found = torch.zeros(len(atoms), dtype=torch.bool, device=atoms.device)
    found[order] = (cosines > TWINS).any(1)
    return found


def _worst_rows(error: Tensor, rows: Tensor, n: int) -> Tensor:
    """Return the n rows (B, d) of largest error (B,) over all processes, worst first; only rows with an error."""
    if is_initialized():
        mine = error.topk(min(n, len(error))).indices
        padded = rows.new_full((n, 1 + rows.shape[1]), -1.0)
        padded[: len(mine)] = torch.cat([error[mine].unsqueeze(1).to(rows.dtype), rows[mine]], 1)
        parts = [torch.empty_like(padded) for _ in range(get_world_size())]
        all_gather(parts, padded)
        everyone = torch.cat(parts)
        error, rows = everyone[:, 0], everyone[:, 1:]
    worst = error.argsort(descending=True, stable=True)[:n]
    return rows[worst[error[worst] > 0]]
