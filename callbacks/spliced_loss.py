"""Callback that measures a language model's loss when its activations are replaced by their reconstructions."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from zoo.interventions import Edit, activations, hook_name, layer_of, logits
from zoo.metrics import LossRecovered
from zoo.metrics.next_token import IGNORED
from zoo.null_models import principal_axes, with_norms_of
from zoo.protocols import (
    LanguageModel,
    LanguageModelData,
    Reconstructs,
    datamodule,
    refuse_null_model,
    require,
)


class SplicedLoss(L.Callback):
    """Replaces (splices) activations x of a language model by `reconstruct(x)`, and measures the model's loss.

    It requires a datamodule with three members: the language model `model`; `sites`, the names of the sites that the
    vectors come from; and `evaluation_contexts()`, which returns batches with `input_ids` and `targets` (B, T). Targets
    of -100 do not count. If a batch has `counted` (B, T), positions where it is false do not count either. Activations
    are replaced only at positions that count. The language model runs on its own device and in its own precision.

    After every validation it logs, in nats per token except for `val/loss_recovered`, which is a share:

    - `val/ce_clean`, `val/ce_spliced` and `val/ce_ablated`: the cross-entropy of the unchanged model, of the model with
      reconstructions instead of the activations, and of the model with zeros instead of the activations;
    - `val/loss_recovered`: (ce_ablated - ce_spliced) / (ce_ablated - ce_clean), see `LossRecovered`;
    - `val/kl`: KL(clean ‖ spliced) of the next-token distributions;
    - `val/kl_random`: the same KL if a random vector is added to x. At every position it has the length of the error
      |x - x_hat| and a uniform direction (Gurnee 2024, "SAE reconstruction errors are (empirically) pathological");
    - `val/kl_covariance`: the same, but the directions are those of Gaussian vectors with the covariance of the batch's
      activations (Lee & Heimersheim 2024, arXiv 2410.12555).

    Activations are usually far from isotropic. A `val/kl` far above `val/kl_random` then means little, and
    `val/kl_covariance` is the better baseline, unless a few outliers dominate the covariance.

    The random vectors are drawn with the same seed in every validation. The results are those of all ranks together.

    Args:
        seed: Seed of the random vectors.

    Raises:
        ZooError: In `setup`, if the module has no `reconstruct`, the datamodule no language model, or the vectors are a
            null model's.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse data that do not come from a language model."""
        require(self, pl_module, Reconstructs)
        refuse_null_model(self, datamodule(trainer))
        require(self, datamodule(trainer), LanguageModelData)

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate the model on this rank's contexts, and log the results over all ranks."""
        if trainer.sanity_checking:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        model, sites, device = data.model.eval(), data.sites, data.model.W_E.device
        generator = torch.Generator().manual_seed(self.seed + trainer.global_rank)
        measured = {name: LossRecovered().to(device) for name in ("", "_random", "_covariance")}
        for batch in data.evaluation_contexts():
            input_ids, targets = batch["input_ids"].to(device), batch["targets"].to(device)
            counted = targets != IGNORED
            counted &= batch.get("counted", counted).to(device)
            if not counted.any():
                continue
            found, spliced_logits = _spliced(model, sites, input_ids, counted)  # (N, D) at the N positions that count
            x = found.to(pl_module.device, torch.float32)
            clean, ablated = spliced_logits(x), spliced_logits(torch.zeros_like(x))
            for name, edited in self._edits(pl_module, x, generator).items():
                measured[name].update(clean, spliced_logits(edited), ablated, targets[counted])
        for name, metric in measured.items():
            for key, value in metric.to(pl_module.device).compute().items():
                if not name or key == "kl":
                    pl_module.log(f"val/{key}{name}", value.float())

    @staticmethod
    def _edits(pl_module: Any, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the replacements of the activations x (N, D): the suffix of the KL's name -> (N, D)."""
        x_hat = pl_module.reconstruct(x)[0].to(x.dtype)
        noise = torch.randn(x.shape, generator=generator).to(x)
        _, roots, axes = principal_axes(x)
        coloured = noise @ (axes * roots @ axes.T).to(noise)
        return {
            "": x_hat,
            "_random": x + with_norms_of(noise, x - x_hat),
            "_covariance": x + with_norms_of(coloured, x - x_hat),
        }


def _spliced(
    model: LanguageModel, sites: Sequence[str], input_ids: Tensor, counted: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the activations at the N positions that count, concatenated over sites, and a function that replaces them.

    The function takes activations (N, D) and returns the logits at these positions, (N, V). At the other positions, the
    model uses its own activations.

    Args:
        model: The language model.
        sites: Names of the sites.
        input_ids: Token ids, (B, T).
        counted: Which positions count, (B, T) bool.
    """
    layer = min(layer_of(site) for site in sites)
    before = hook_name(layer, "resid_pre")
    found = activations(model, input_ids, [before, *sites])
    sizes = [found[site].shape[-1] for site in sites]

    def spliced_logits(x: Tensor) -> Tensor:
        def spliced(part: Tensor) -> Edit:
            return lambda own: own.masked_scatter(counted[..., None], part.to(own))

        edits = {site: spliced(part) for site, part in zip(sites, x.split(sizes, -1), strict=True)}
        return logits(model, input_ids, edits, start=(layer, found[before]))[counted]

    return torch.cat([found[site][counted] for site in sites], -1), spliced_logits
