"""How much worse a language model predicts with reconstructions in place of its activations."""

from torch import Tensor

from zoo.metrics.next_token import IGNORED, log_probabilities, token_kl, token_nats
from zoo.metrics.sums import Sums, weights_of
from zoo.precision import float64


class LossRecovered(Sums):
    """Share of an activation's worth to a language model that survives reconstruction.

    1 - (ce_spliced - ce_clean) / (ce_ablated - ce_clean), where ce_clean is the model's cross-entropy, ce_spliced that
    with reconstructions in the activations' place, and ce_ablated that with the activations set to zero or to their
    mean; say which, as the share depends on it. 1 is lossless, 0 as bad as ablation, and below 0 is possible (Bricken
    et al. 2023, "Towards Monosemanticity"; Rajamanoharan et al. 2024, arXiv 2404.16014). Where ablation costs little
    the share says little, so the cross-entropies are given too, and KL(P_clean ‖ P_spliced), which is 0 only where
    the spliced model predicts the same, whatever the targets. All are sums over tokens, so batches and ranks of
    unequal size add up.
    """

    clean: Tensor
    spliced: Tensor
    ablated: Tensor
    divergence: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(("clean", "spliced", "ablated", "divergence", "tokens"), ()))

    def update(self, clean_logits: Tensor, spliced_logits: Tensor, ablated_logits: Tensor, targets: Tensor) -> None:
        """Add tokens.

        Args:
            clean_logits: Logits of the untouched model, (..., V).
            spliced_logits: Logits with reconstructions spliced in, (..., V).
            ablated_logits: Logits with the activations ablated, (..., V).
            targets: Token that each position predicts, (...); -100 where it does not count.
        """
        kept = targets != IGNORED
        targets = targets[kept]
        logits = {"clean": clean_logits, "spliced": spliced_logits, "ablated": ablated_logits}
        log_p = {name: log_probabilities(values[kept]) for name, values in logits.items()}  # (N, V)
        sums = {name: float64(token_nats(values, targets)).sum() for name, values in log_p.items()}
        divergence = float64(token_kl(log_p["clean"], log_p["spliced"])).sum()
        self.add({**sums, "divergence": divergence, "tokens": weights_of(targets, None).sum()})

    def compute(self) -> dict[str, Tensor]:
        """Float64 scalars by name.

        Returns:
            `ce_clean`, `ce_spliced`, `ce_ablated` and `kl` = KL(P_clean ‖ P_spliced) in nats per token, and
            `loss_recovered`, a share.
        """
        clean, spliced, ablated = (loss / self.tokens for loss in (self.clean, self.spliced, self.ablated))
        return {
            "ce_clean": clean,
            "ce_spliced": spliced,
            "ce_ablated": ablated,
            "loss_recovered": 1 - (spliced - clean) / (ablated - clean),
            "kl": self.divergence / self.tokens,
        }
