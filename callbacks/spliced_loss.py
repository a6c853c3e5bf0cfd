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
    offered,
    refuse_null_model,
    require,
)


class SplicedLoss(L.Callback):
    """Splices `reconstruct(x)` into the language model that the activations come from, at the site that they come from.

    It requires a datamodule with three attributes: the language model `model`; the names `sites` of the sites that the
    vectors come from; and `evaluation_contexts()`, which returns batches with `input_ids` and `targets` (B, T). Targets
    of -100 do not count. If the datamodule has `skip_positions`, that many activations at the start of every context
    are not replaced, and do not count. The language model runs on its own device and in its own precision.

    After every validation it logs, in nats per token except for `val/loss_recovered`, which is a share:

    - `val/ce_clean`, `val/ce_spliced` and `val/ce_ablated`: the cross-entropy of the unchanged model, of the model with
      reconstructions instead of the activations, and of the model with zeros instead of the activations;
    - `val/loss_recovered`: the share of the loss between ablated and clean that is recovered (see `LossRecovered`);
    - `val/kl`: KL(clean ‖ spliced) of the next-token distributions;
    - `val/kl_random`: the same KL if a random vector is added to x. At every position it has the length of the error
      |x - x_hat| and a uniform direction (Gurnee 2024, "SAE reconstruction errors are (empirically) pathological");
    - `val/kl_covariance`: the same, but with random vectors that have the covariance of the batch's activations (Lee &
      Heimersheim 2024, arXiv 2410.12555).

    Activations are usually far from isotropic. A `val/kl` far above `val/kl_random` then means little, and
    `val/kl_covariance` is the better baseline.

    The random vectors are the same in every validation. All ranks contribute.

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
        skip = offered(data, "skip_positions") or 0
        generator = torch.Generator().manual_seed(self.seed + trainer.global_rank)
        measured = {name: LossRecovered().to(device) for name in ("", "_random", "_covariance")}
        for batch in data.evaluation_contexts():
            input_ids, targets = batch["input_ids"].to(device), batch["targets"].to(device)[:, skip:]
            found, spliced_logits = _spliced(model, sites, input_ids, skip)  # (B, T, D)
            x = found[:, skip:].to(pl_module.device, torch.float32)
            clean, ablated = spliced_logits(x), spliced_logits(torch.zeros_like(x))
            counted = (targets != IGNORED).to(pl_module.device)
            for name, edited in self._edits(pl_module, x, counted, generator).items():
                measured[name].update(clean, spliced_logits(edited), ablated, targets)
        for name, metric in measured.items():
            for key, value in metric.to(pl_module.device).compute().items():
                if not name or key == "kl":
                    pl_module.log(f"val/{key}{name}", value.float())

    @staticmethod
    def _edits(pl_module: Any, x: Tensor, counted: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the replacements of the activations x (B, T, D): the suffix of the KL's name -> (B, T, D)."""
        flat = x.flatten(0, 1)
        x_hat = pl_module.reconstruct(flat)[0].to(flat.dtype)
        noise = torch.randn(flat.shape, generator=generator).to(flat)
        inputs = flat[counted.flatten()]
        coloured = noise
        if len(inputs):
            _, roots, axes = principal_axes(inputs)
            coloured = noise @ (axes * roots @ axes.T).to(noise)
        edits = {
            "": x_hat,
            "_random": flat + with_norms_of(noise, flat - x_hat),
            "_covariance": flat + with_norms_of(coloured, flat - x_hat),
        }
        return {name: edited.view_as(x) for name, edited in edits.items()}


def _spliced(
    model: LanguageModel, sites: Sequence[str], input_ids: Tensor, skip: int
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the activations at the sites, concatenated, (B, T, D), and a function that replaces them.

    The function takes activations (B, T - skip, D) and returns the logits at these positions, (B, T - skip, V). At the
    first `skip` positions the model uses its own activations.
    """
    layer = min(layer_of(site) for site in sites)
    before = hook_name(layer, "resid_pre")
    found = activations(model, input_ids, [before, *sites])
    sizes = [found[site].shape[-1] for site in sites]

    def spliced_logits(x: Tensor) -> Tensor:
        def spliced(part: Tensor) -> Edit:
            return lambda own: torch.cat([own[:, :skip], part.to(own)], 1)

        edits = {site: spliced(part) for site, part in zip(sites, x.split(sizes, -1), strict=True)}
        return logits(model, input_ids, edits, start=(layer, found[before]))[:, skip:]

    return torch.cat([found[site] for site in sites], -1), spliced_logits
