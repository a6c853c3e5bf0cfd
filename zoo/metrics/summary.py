"""What a validation pass reports of a sparse autoencoder."""

import torch
from torch import Tensor

from zoo.metrics.reconstruction import row_sums, unexplained
from zoo.metrics.sparsity import count_active, dead_share, dense_share
from zoo.metrics.sums import Sums, weights_of


class ReconstructionMetrics(Sums):
    """Reconstruction and sparsity of one model on one data set, in a single pass over each batch.

    One metric with the sums of them all, `[0]` under the weights given and `[1]` with every row counting the same.

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
        """Float64 scalars by name.

        Returns:
            With every row counting the same, `fvu` (see `FVU`, also `NMSEVariance`), `nmse_mean_square`
            (`NMSEMeanSquare`), `cosine` (`CosineSimilarity`), `reconstruction_bias` (`RelativeReconstructionBias`),
            `l0` (`L0`), and `dead_latents` and `dense_latents`, the shares of latents that fire in no row and in more
            than a tenth of the rows. Under the weights, `fvu_weighted` and `l0_weighted`. And `rows`, their number.
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
