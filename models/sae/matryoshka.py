"""A sparse autoencoder with nested dictionaries."""

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.sae.base import Codes
from zoo.models.sae.support import Everywhere
from zoo.models.sae.top_k import BatchTopKSAE


class MatryoshkaSAE(BatchTopKSAE):
    """A BatchTopK SAE whose first latents must reconstruct by themselves (Bussmann et al. 2025, arXiv 2503.17547).

    Minimises the mean squared error of several reconstructions, plus the auxiliary loss of `SAE`. The reconstructions
    use the first `prefixes[0]` latents, the first `prefixes[1]` latents, and so on, and all latents.

    Args:
        d_in: Dimension of the data. On the command line it follows the data.
        d_sae: Number of latents K.
        k: Mean number of latents that are on per example.
        prefixes: Sizes of the nested dictionaries, ascending and smaller than K. Default K / 16, K / 8, K / 4 and
            K / 2.
        threshold_decay: Weight of earlier training steps in the running mean of the threshold, at least 0 and below 1.
        aux_k: Number of dead latents per example in the auxiliary loss. Default d_in / 2.
        aux_coefficient: Weight of the auxiliary loss; 0 turns it off, and dead latents are not revived.

    Raises:
        ZooError: If a size is out of range.
    """

    saelens_architecture = "jumprelu"  # in inference mode, where all latents have the same threshold

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
        """Return the mean squared error of the nested reconstructions, ()."""
        errors, nested = [], self.b_dec.expand_as(x)
        for first, last in zip([0, *self.prefixes], self.prefixes, strict=False):
            nested = nested + _decode_between(codes, self.W_dec, first, last)
            errors.append(self.squared_error(x, nested))
        return torch.stack([*errors, self.squared_error(x, x_hat)]).mean()


def _decode_between(codes: Codes, W_dec: Tensor, first: int, last: int) -> Tensor:
    """Return the reconstruction from the latents `first` to `last` - 1 alone, without `b_dec`, (B, d_in)."""
    values, support, _ = codes
    if isinstance(support, Everywhere):
        return values[:, first:last] @ W_dec[first:last]
    inside = (support.latents >= first) & (support.latents < last)
    return support.where(inside).decode(values[inside], W_dec)
