"""What a sparse coding problem may look like."""

import torch
from torch import Tensor

from zoo.errors import ZooError


def check_problem(X: Tensor, D: Tensor) -> None:
    """Refuse rows and atoms that do not fit together.

    Raises:
        ZooError: If X (N, d) and D (K, d) are not two float matrices of one width, type and device, or hold numbers
            that are NaN or infinite.
    """
    for name, matrix in (("X", X), ("D", D)):
        if matrix.ndim != 2 or matrix.dtype not in (torch.float32, torch.float64):
            raise ZooError(f"{name} is {matrix.dtype} {list(matrix.shape)}; expected a float32 or float64 matrix")
        bad = ~matrix.isfinite().all(1)
        if bad.any():
            raise ZooError(f"row {int(bad.int().argmax())} of {name} has entries that are NaN or infinite")
    if X.shape[1] != D.shape[1]:
        raise ZooError(f"rows of X have {X.shape[1]} dimensions, and atoms {D.shape[1]}; D is (atoms, dimensions)")
    if not D.numel():
        raise ZooError(f"D is {list(D.shape)}; at least one atom of one dimension is needed")
    if X.dtype != D.dtype or X.device != D.device:
        raise ZooError(f"X is {X.dtype} on {X.device}, and D {D.dtype} on {D.device}; they must be alike")


def penalties(X: Tensor, penalty: float | Tensor) -> Tensor:
    """The penalty of every row, (N,) float64.

    Raises:
        ZooError: If it is neither a number nor one per row, or any is negative, NaN or infinite.
    """
    lam = torch.as_tensor(penalty, dtype=torch.float64, device=X.device)
    if lam.ndim > 1 or (lam.ndim == 1 and len(lam) != len(X)):
        raise ZooError(f"penalty is {list(lam.shape)}; expected a number, or {len(X)} of them, one per row")
    bad = ~(lam.isfinite() & (lam >= 0))
    if bad.any():
        raise ZooError(f"a penalty is {lam[bad].flatten()[0].item()}; penalties must be numbers and not negative")
    return lam.expand(len(X)).contiguous()
