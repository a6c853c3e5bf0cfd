"""Cross-entropy of a language model over a data set."""

import math

import torch
from torch import Tensor

from zoo.metrics.sums import Sums


class TokenLoss(Sums):
    """Cross-entropy of a language model over all batches and ranks. Every token has the same weight.

    The sums are in float64 for any precision of the model. At 65,536 tokens a float16 sum would be infinite, and a
    bfloat16 sum would stop growing far below.
    """

    nats: Tensor
    tokens: Tensor
    n_bytes: Tensor

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(("nats", "tokens", "n_bytes"), ()))

    def update(self, nats: Tensor, n_tokens: Tensor, n_bytes: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            nats: Sum of the losses of the tokens, in nats, ().
            n_tokens: Number of tokens, ().
            n_bytes: Number of bytes of the text that the tokens stand for, (), if known.
        """
        self.add({"nats": nats, "tokens": n_tokens, "n_bytes": torch.zeros(()) if n_bytes is None else n_bytes})

    def compute(self) -> dict[str, Tensor]:
        """Return float64 scalars by name, NaN if there is no token or if the loss of a token is NaN.

        Returns:
            `loss`, in nats per token; `perplexity`; and `bits_per_byte`, infinite if the number of bytes is not known.
        """
        loss = self.nats / self.tokens
        return {"loss": loss, "perplexity": loss.exp(), "bits_per_byte": self.nats / (math.log(2) * self.n_bytes)}
