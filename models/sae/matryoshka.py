"""Nested dictionaries in one."""

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.sae.base import Codes
from zoo.models.sae.support import Everywhere
from zoo.models.sae.top_k import BatchTopKSAE


class MatryoshkaSAE(BatchTopKSAE):
    """A BatchTopK SAE whose first latents must reconstruct by themselves (Bussmann et al. 2025, arXiv 2503.17547).

    Minimises the mean of the squared errors of the reconstructions from the first `prefixes[0]`, the first
    `prefixes[1]`, ..., and all latents, and the auxiliary loss of `SAE`.

    Args:
        d_in: Dimension of the data. On the command line it follows the data.
        d_sae: Number of latents K.
        k: Latents on per example, on average.
        prefixes: Sizes of the nested dictionaries below K, ascending. Default K / 16, K / 8, K / 4 and K / 2.
        threshold_decay: Weight of the past in the running mean of the threshold.
        aux_k: Dead latents on at a time in the auxiliary loss. Default d_in / 2.
        aux_coefficient: Weight of the auxiliary loss; 0 lets dead latents be.

    Raises:
        ZooError: If a size is out of range.
    """

    saelens_architecture = "jumprelu"  # at inference, above one threshold for all latents

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        k: int = 32,
        prefixes: list[int] | None = None,
        threshold_decay: float = 0.9,
        aux_k: int | None = None,
        aux_coefficient: float = 1 / 32,
    ) -> None:
        super().__init__(d_in, d_sae, k, threshold_decay, aux_k, aux_coefficient)
        if prefixes is None:
            prefixes = sorted({d_sae // n for n in (16, 8, 4, 2)} - {0})
        if any(b <= a for a, b in zip([0, *prefixes], [*prefixes, d_sae], strict=True)):
            raise ZooError(f"prefixes is {prefixes}; it must ascend from at least 1 to at most {d_sae - 1}")
        self.prefixes = prefixes
        self.config |= {"prefixes": prefixes}

    def reconstruction_error(self, x: Tensor, x_hat: Tensor, codes: Codes) -> Tensor:
        """Mean of the nested squared errors, ()."""
        errors, nested = [], self.b_dec.expand_as(x)
        for first, last in zip([0, *self.prefixes], self.prefixes, strict=False):
            nested = nested + _decode_between(codes, self.W_dec, first, last)
            errors.append(self.squared_error(x, nested))
        return torch.stack([*errors, self.squared_error(x, x_hat)]).mean()


def _decode_between(codes: Codes, W_dec: Tensor, first: int, last: int) -> Tensor:
    """Codes times the atoms `first` to `last` - 1, (B, d_in)."""
    values, support, _ = codes
    if isinstance(support, Everywhere):
        return values[:, first:last] @ W_dec[first:last]
    inside = (support.latents >= first) & (support.latents < last)
    return support.where(inside).decode(values[inside], W_dec)
