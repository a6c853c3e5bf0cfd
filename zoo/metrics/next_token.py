"""Losses and divergences of next-token distributions, per token."""

from torch import Tensor

from zoo.precision import at_least_float32

IGNORED = -100  # the target of positions that do not count, which torch's cross-entropy skips


def log_probabilities(logits: Tensor) -> Tensor:
    """Logarithms of the next-token probabilities, (..., V) in at least float32, from logits (..., V)."""
    return at_least_float32(logits).log_softmax(-1)


def token_nats(log_p: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every token, (...) in nats; 0 where the target is -100.

    Args:
        log_p: What `log_probabilities` gives, (..., V).
        targets: The token that each position predicts, (...) int64.
    """
    nats = -log_p.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return nats.masked_fill((targets == IGNORED).to(nats.device), 0.0)


def token_kl(clean: Tensor, edited: Tensor) -> Tensor:
    """KL(clean ‖ edited) of the next-token distributions at every position, (...) in nats.

    A token with probability 0 under the clean model adds nothing, whatever its edited probability.

    Args:
        clean: Log-probabilities of the untouched model, (..., V).
        edited: Log-probabilities of the model after an intervention, (..., V).
    """
    p = clean.exp()
    return (p * (clean - edited)).masked_fill(p == 0, 0.0).sum(-1)
