"""Metric of the loss of a language model when reconstructions replace its activations."""

from torch import Tensor

from zoo.metrics.next_token import IGNORED, log_probabilities, token_kl, token_nats
from zoo.metrics.sums import Sums, weights_of
from zoo.precision import float64


class LossRecovered(Sums):
    """Loss recovered: the share of the loss that ablation causes and that reconstructions avoid.

    It is 1 - (ce_spliced - ce_clean) / (ce_ablated - ce_clean). ce_clean is the cross-entropy of the unchanged model,
    and ce_spliced that with reconstructions instead of the activations. ce_ablated is the cross-entropy with the
    activations set to zero or to their mean; reports should name the ablation, because the share depends on it. 1 means
    no loss, 0 a loss as large as that of ablation, and negative values are possible (Bricken et al. 2023, "Towards
    Monosemanticity"; Rajamanoharan et al. 2024, arXiv 2404.16014).

    If ablation costs little, the share means little. The cross-entropies are therefore returned too, and
    KL(P_clean ‖ P_spliced), which does not depend on targets and is 0 only if both models predict the same. All are
    computed from sums over tokens, so batches and ranks may have different numbers of tokens.
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
            clean_logits: Logits of the unchanged model, (..., V).
            spliced_logits: Logits with reconstructions instead of the activations, (..., V).
            ablated_logits: Logits with the activations ablated, (..., V).
            targets: Token that each position should predict, (...); -100 for positions that do not count.
        """
        kept = targets != IGNORED
        targets = targets[kept]
        logits = {"clean": clean_logits, "spliced": spliced_logits, "ablated": ablated_logits}
        log_p = {name: log_probabilities(values[kept]) for name, values in logits.items()}  # (N, V)
        sums = {name: float64(token_nats(values, targets)).sum() for name, values in log_p.items()}
        divergence = float64(token_kl(log_p["clean"], log_p["spliced"])).sum()
        self.add({**sums, "divergence": divergence, "tokens": weights_of(targets, None).sum()})

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name, float64 scalars.

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
