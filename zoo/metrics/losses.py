"""Cross-entropy over a data set."""

import math

import torch
from torch import Tensor

from zoo.metrics.sums import Sums


class TokenLoss(Sums):
    """Cross-entropy of a language model over all batches and ranks, each token weighing the same.

    The sums are in float64, whatever precision the model computes in: at 65,536 tokens a float16 sum is infinite, and
    a bfloat16 sum stops growing far below.
    """

    nats: Tensor
    tokens: Tensor
    n_bytes: Tensor

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(("nats", "tokens", "n_bytes"), ()))

    def update(self, nats: Tensor, n_tokens: Tensor, n_bytes: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            nats: Sum of the tokens' losses, ().
            n_tokens: How many tokens these are, ().
            n_bytes: Bytes of the text that the tokens stand for, (), if known.
        """
        self.add({"nats": nats, "tokens": n_tokens, "n_bytes": torch.zeros(()) if n_bytes is None else n_bytes})

    def compute(self) -> dict[str, Tensor]:
        """Float64 scalars by name, NaN without any token or if a token's loss is.

        Returns:
            `loss`, nats per token; `perplexity`; and `bits_per_byte`, infinite if the bytes are not known.
        """
        loss = self.nats / self.tokens
        return {"loss": loss, "perplexity": loss.exp(), "bits_per_byte": self.nats / (math.log(2) * self.n_bytes)}
