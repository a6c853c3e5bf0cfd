"""Metrics of a sparse autoencoder that are reported after a validation pass."""

import torch
from torch import Tensor

from zoo.metrics.reconstruction import row_sums, unexplained
from zoo.metrics.sparsity import count_active, dead_share, dense_share
from zoo.metrics.sums import Sums, weights_of


class ReconstructionMetrics(Sums):
    """Reconstruction and sparsity of one model on one data set, computed in a single pass over each batch.

    It holds the sums of all metrics: index 0 of a sum is under the given weights, index 1 under equal weights.

    Args:
        d_sae: Number of latents.
    """

    error: Tensor
    weight: Tensor
    x: Tensor
    square: Tensor
    square_hat: Tensor
    inner: Tensor
    cosine: Tensor
    active: Tensor
    fired: Tensor

    def __init__(self, d_sae: int) -> None:
        scalars = ("error", "weight", "square", "square_hat", "inner", "cosine", "active")
        super().__init__(dict.fromkeys(scalars, (2,)) | {"x": (2, 1), "fired": (d_sae,)})

    def update(self, x_hat: Tensor, x: Tensor, codes: Tensor, weight: Tensor | None = None) -> None:
        """Add rows.

        Args:
            x_hat: Reconstructions, (B, d_in).
            x: Rows, (B, d_in).
            codes: Codes, (B, d_sae).
            weight: Weights of the rows, (B,); 1 each by default.
        """
        weights = torch.stack((weights_of(x, weight), weights_of(x, None)))  # (2, B)
        active, fired = count_active(codes)
        self.add({**row_sums(x_hat, x, weights), "active": weights @ active, "fired": fired})

    def compute(self) -> dict[str, Tensor]:
        """Return float64 scalars by name.

        Returns:
            Under equal weights: `fvu` (see `FVU`, also `NMSEVariance`), `nmse_mean_square` (`NMSEMeanSquare`),
            `cosine` (`CosineSimilarity`), `reconstruction_bias` (`RelativeReconstructionBias`), `l0` (`L0`), and
            `dead_latents` and `dense_latents`, the shares of latents that fire in no row and in more than a tenth of
            the rows. Under the given weights: `fvu_weighted` and `l0_weighted`. And `rows`, the number of rows.
        """
        fvu_weighted, fvu = unexplained(self.error, self.weight, self.x, self.square)
        frequency = self.fired / self.weight[1]
        return {
            "rows": self.weight[1],
            "fvu": fvu,
            "fvu_weighted": fvu_weighted,
            "nmse_mean_square": self.error[1] / self.square[1],
            "cosine": self.cosine[1] / self.weight[1],
            "reconstruction_bias": self.square_hat[1] / self.inner[1],
            "l0": self.active[1] / self.weight[1],
            "l0_weighted": self.active[0] / self.weight[0],
            "dead_latents": dead_share(frequency),
            "dense_latents": dense_share(frequency),
        }
