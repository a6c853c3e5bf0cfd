"""Conversion and validation of the arguments of sparse coding."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import ZooError


def as_problem(X: Any, D: Any) -> tuple[Tensor, Tensor]:
    """Return rows X (N, d) and atoms D (K, d) as tensors; each is a tensor, a NumPy array or lists of numbers.

    Raises:
        ZooError: If they are not two float matrices of the same width, type and device, or have entries that are NaN
            or infinite.
    """
    X, D = as_tensor(X, "X"), as_tensor(D, "D")
    for name, matrix in (("X", X), ("D", D)):
        if matrix.ndim != 2 or matrix.dtype not in (torch.float32, torch.float64):
            raise ZooError(f"{name} is {matrix.dtype} {list(matrix.shape)}; expected a float32 or float64 matrix")
        bad = ~matrix.sum(1).isfinite()  # the sum of large numbers may be infinite too
        if bad.any() and (bad := ~matrix.isfinite().all(1)).any():
            raise ZooError(f"row {int(bad.int().argmax())} of {name} has entries that are NaN or infinite")
    if X.shape[1] != D.shape[1]:
        raise ZooError(
            f"rows of X have {X.shape[1]} dimensions, and those of D have {D.shape[1]}; D must be (atoms, dimensions)"
        )
    if not D.numel():
        raise ZooError(f"D is {list(D.shape)}; at least one atom of one dimension is needed")
    if X.dtype != D.dtype or X.device != D.device:
        raise ZooError(f"X is {X.dtype} on {X.device}, and D is {D.dtype} on {D.device}; they must be the same")
    return X, D


def as_codes(codes: Any, name: str, X: Tensor, D: Tensor) -> Tensor:
    """Return codes (N, K), dense or sparse, on the device of rows X (N, d) and atoms D (K, d).

    Raises:
        ZooError: If they are not one number per row and atom.
    """
    codes = as_tensor(codes, name).to(X.device)
    if codes.shape != (len(X), len(D)):
        raise ZooError(f"{name} has shape {list(codes.shape)}; expected {[len(X), len(D)]}, a code per row and atom")
    return codes


def as_tensor(values: Any, name: str) -> Tensor:
    """Return a tensor unchanged, and a NumPy array or lists of numbers as a tensor.

    Raises:
        ZooError: If the values are of another kind.
    """
    if isinstance(values, Tensor):
        return values
    try:
        array = np.asarray(values)
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError):
        kind = f"{type(values).__name__} of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise ZooError(f"{name} is a {kind}; expected a tensor, or a NumPy array of float32 or float64") from None


def penalties(X: Tensor, penalty: Any) -> Tensor:
    """Return the penalty of every row, (N,) float64.

    Raises:
        ZooError: If the penalty is neither one number nor one per row, or if one is negative, NaN or infinite.
    """
    lam = as_tensor(penalty, "penalty").to(X.device, torch.float64)
    if lam.ndim > 1 or (lam.ndim == 1 and len(lam) != len(X)):
        raise ZooError(f"penalty is {list(lam.shape)}; expected a number, or {len(X)} of them, one per row")
    bad = ~(lam.isfinite() & (lam >= 0))
    if bad.any():
        raise ZooError(f"a penalty is {lam[bad].flatten()[0].item()}; penalties must be finite and not negative")
    return lam.expand(len(X)).contiguous()
