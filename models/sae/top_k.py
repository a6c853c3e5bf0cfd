"""Variants with a fixed number of latents on, per example or per batch."""

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.sae.base import SAE, Codes
from zoo.models.sae.selection import batch_threshold, top_k_of_affine
from zoo.models.sae.support import Support, support_where


class TopKSAE(SAE):
    """The k largest pre-activations of every example are on (Gao et al. 2024, arXiv 2406.04093).

    Minimises the squared error and the auxiliary loss of `SAE`; there is no sparsity penalty.

    Args:
        d_in: Dimension of the data. On the command line it follows the data.
        d_sae: Number of latents K.
        k: Number of latents that are on per example.
        aux_k: Number of dead latents per example in the auxiliary loss. Default d_in / 2.
        aux_coefficient: Weight of the auxiliary loss; 0 turns it off, and dead latents are not revived.

    Raises:
        ZooError: If a size is out of range.
    """

    swept = ("k", (4, 16, 32))
    saelens_architecture = "topk"

    def __init__(
        self, d_in: int, d_sae: int, k: int = 32, aux_k: int | None = None, aux_coefficient: float = 1 / 32
    ) -> None:
        super().__init__(d_in, d_sae, aux_k, aux_coefficient)
        _check_k(k, d_sae)
        self.k = k
        self.config |= {"k": k}

    def codes(self, x: Tensor) -> Codes:
        """See `SAE.codes`."""
        bias = self.encoder_bias()
        values, indices = top_k_of_affine(x, self.W_enc, bias, self.k)
        support = Support.of_indices(indices, self.d_sae)
        return Codes(support.affine(x, self.W_enc, bias, values.flatten()).relu(), support)

    def dense_codes(self, pre: Tensor) -> Tensor:
        """See `SAE.dense_codes`."""
        values, indices = pre.topk(self.k)
        return torch.zeros_like(pre).scatter(-1, indices, values.relu())


class BatchTopKSAE(SAE):
    """The k B largest pre-activations of a batch of B are on (Bussmann et al. 2024, arXiv 2412.06410).

    In training, a running mean of the smallest pre-activation that is on is kept. It is the threshold at inference, so
    that the codes of an example do not depend on its batch. Under DDP, the batch is that of all processes.

    Args:
        d_in: Dimension of the data. On the command line it follows the data.
        d_sae: Number of latents K.
        k: Mean number of latents that are on per example.
        threshold_decay: Weight of earlier training steps in the running mean of the threshold, at least 0 and below 1.
        aux_k: Number of dead latents per example in the auxiliary loss. Default d_in / 2.
        aux_coefficient: Weight of the auxiliary loss; 0 turns it off, and dead latents are not revived.

    Raises:
        ZooError: If a size is out of range.
    """

    swept = ("k", (4, 16, 32))
    saelens_architecture = "jumprelu"  # in inference mode, where all latents have the same threshold
    threshold: Tensor  # (), negative before the first training step

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        k: int = 32,
        threshold_decay: float = 0.9,
        aux_k: int | None = None,
        aux_coefficient: float = 1 / 32,
    ) -> None:
        super().__init__(d_in, d_sae, aux_k, aux_coefficient)
        _check_k(k, d_sae)
        if not 0 <= threshold_decay < 1:
            raise ZooError(f"threshold_decay is {threshold_decay}; it must be at least 0 and below 1")
        self.k, self.threshold_decay = k, threshold_decay
        self.config |= {"k": k, "threshold_decay": threshold_decay}
        self.register_buffer("threshold", -torch.ones(()))

    def codes(self, x: Tensor) -> Codes:
        """See `SAE.codes`."""
        bias = self.encoder_bias()
        pre = torch.addmm(bias, x, self.W_enc)
        if self.training:
            least = batch_threshold(pre, self.k)
            past = torch.where(self.threshold < 0, least, self.threshold)
            self.threshold.copy_(torch.lerp(least, past, self.threshold_decay))
        else:
            least = self.threshold.clamp(min=0)
        on = (pre >= least) & (pre > 0)
        support = support_where(on)
        values = support.affine(x, self.W_enc, bias, support.take(pre)).relu()
        return Codes(values * support.take(on), support)


def _check_k(k: int, d_sae: int) -> None:
    if type(k) is not int or not 1 <= k <= d_sae:
        raise ZooError(f"k is {k}; it must be a whole number, at least 1 and at most d_sae, which is {d_sae}")
