"""Errors of Boolean gates, separately for each of the four cases of their two inputs."""

import torch
from torch import Tensor

from zoo.metrics.sums import Sums
from zoo.precision import at_least_float32, float64_device

CASES = ("00", "01", "10", "11")
EDGES = torch.linspace(-2, 2, 161)  # bin edges of the histogram of errors


class CaseErrors(Sums):
    """Statistics of the errors y - t of gates, by seed and by case.

    Args:
        n_seeds: Number of networks S.
        within: An output counts as correct if |y - t| is below this.
    """

    n: Tensor
    absolute: Tensor
    square: Tensor
    signed: Tensor
    right: Tensor
    bins: Tensor
    largest: Tensor

    def __init__(self, n_seeds: int, within: float = 0.25) -> None:
        super().__init__(
            dict.fromkeys(("n", "absolute", "square", "signed", "right"), (n_seeds, 4)) | {"bins": (4, 160)}
        )
        self.n_seeds, self.within = n_seeds, within
        self.add_state("largest", torch.zeros(n_seeds, 4, dtype=torch.float64), dist_reduce_fx="max")

    def update(self, error: Tensor, case: Tensor) -> None:
        """Add errors (S, B, P) of gates, and the cases of their inputs, (S, B, P), as indices into `CASES`."""
        device = float64_device(error.device)
        error, case = at_least_float32(error).to(device), case.to(device)
        seeds = torch.arange(self.n_seeds, device=device, dtype=torch.int32).view(-1, 1, 1)
        group = (case.int() + 4 * seeds).flatten()
        error = error.flatten()
        size = error.abs()
        columns = {"absolute": size, "square": size.square(), "signed": error, "right": (size < self.within).float()}
        cells = 4 * self.n_seeds
        sums = {k: torch.bincount(group, v.double(), cells).view(-1, 4) for k, v in columns.items()}
        edges = EDGES.to(device)
        place = ((error - edges[0]) * (160 / 4)).clamp_(0, 159).int()
        n = torch.bincount(group, minlength=cells).double().view(-1, 4)
        bins = torch.bincount(place + 160 * case.int().flatten(), minlength=640).double().view(4, 160)
        self.add(sums | {"n": n, "bins": bins})
        most = size.new_zeros(cells).scatter_reduce_(0, group.long(), size, "amax")
        self.largest = torch.maximum(self.largest, most.double().view(-1, 4))

    def compute(self) -> dict[str, Tensor]:
        """Return the statistics by name.

        Returns:
            By seed and case, (S, 4) float64, NaN for a case that did not occur: `mean`, `rms` and `max` of |y - t|,
            `bias` (mean of y - t), `right` (share with |y - t| below `within`) and the number `n`. And `bins` (4, 160),
            the numbers of errors between `EDGES`, over all seeds; errors outside are counted in the outermost bins.
        """
        return {
            "n": self.n,
            "mean": self.absolute / self.n,
            "rms": (self.square / self.n).sqrt(),
            "bias": self.signed / self.n,
            "right": self.right / self.n,
            "max": self.largest.where(self.n > 0, torch.nan),
            "bins": self.bins,
        }
