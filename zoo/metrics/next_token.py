"""Losses and divergences of next-token distributions, for every token."""

from torch import Tensor

from zoo.precision import at_least_float32

IGNORED = -100  # target of positions that do not count; torch's cross-entropy ignores them


def log_probabilities(logits: Tensor) -> Tensor:
    """Return the logarithms of the next-token probabilities, (..., V) in at least float32, from logits (..., V)."""
    return at_least_float32(logits).log_softmax(-1)


def token_nats(log_p: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of every token, (...) in nats; 0 where the target is -100.

    Args:
        log_p: Log-probabilities from `log_probabilities`, (..., V).
        targets: Token that each position should predict, (...) int64.
    """
    nats = -log_p.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return nats.masked_fill((targets == IGNORED).to(nats.device), 0.0)


def token_kl(clean: Tensor, edited: Tensor) -> Tensor:
    """Return KL(clean ‖ edited) of the next-token distributions at every position, (...) in nats.

    A token with probability 0 in the clean model adds 0, whatever its probability in the edited model.

    Args:
        clean: Log-probabilities of the unchanged model, (..., V).
        edited: Log-probabilities of the model after an intervention, (..., V).
    """
    p = clean.exp()
    return (p * (clean - edited)).masked_fill(p == 0, 0.0).sum(-1)
