"""Distance that rows moved during training."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.precision import at_least_float32

ROWS_AT_A_TIME = 8192  # number of rows whose differences are in memory at a time


def row_drift(rows: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Return how far each row moved from a reference, (R,) each: float32, or float64 for rows in float64.

    Args:
        rows: The rows w now, (R, D).
        reference: The same rows w0 at an earlier time, (R, D).

    Returns:
        `distance` |w - w0|, `relative_distance` |w - w0| / |w0|, and `cosine` between w and w0. The relative distance
        of a zero row is infinite if it moved and 0 if not. A row that did not move has distance exactly 0.
    """
    pairs = zip(rows.split(ROWS_AT_A_TIME), reference.split(ROWS_AT_A_TIME), strict=True)
    parts = [_row_drift(at_least_float32(now), at_least_float32(before)) for now, before in pairs]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _row_drift(rows: Tensor, reference: Tensor) -> dict[str, Tensor]:
    distance = (rows - reference).norm(dim=1)
    relative = (distance / reference.norm(dim=1)).nan_to_num(nan=0.0, posinf=float("inf"))
    return {
        "distance": distance,
        "relative_distance": relative,
        "cosine": F.cosine_similarity(rows, reference, dim=1),
    }
