"""What a language model loses when its activations are replaced by their reconstructions."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from zoo.metrics import LossRecovered
from zoo.metrics.next_token import IGNORED
from zoo.null_models import principal_axes, with_norms_of
from zoo.protocols import LanguageModelData, Reconstructs, datamodule, offered, require


class SplicedLoss(L.Callback):
    """Splices `reconstruct(x)` into the residual stream of the language model that the activations come from.

    It needs a datamodule with the language model `model`, the `layer` before which the residual stream is cut, and
    `evaluation_contexts()`, batches with `input_ids` and `targets` (B, T), targets of -100 left out. The first
    `skip_positions` of every context, if the datamodule has that attribute, stay as they are and do not count.

    After every validation it logs, in nats per token,

    - `val/ce_clean`, `val/ce_spliced` and `val/ce_ablated`: the cross-entropy of the model, with reconstructions, and
      with zeros in place of the activations; `val/loss_recovered`, which these three make (see `LossRecovered`);
    - `val/kl`: KL(clean ‖ spliced) of the next-token distributions;
    - `val/kl_random`, `val/kl_covariance`: the same for x plus a random vector as long as the error |x - x_hat| at that
      position, of uniform direction (Gurnee 2024, "SAE reconstruction errors are (empirically) pathological") or drawn
      with the covariance of the batch's activations (Lee & Heimersheim 2024, arXiv 2410.12555). A KL far above that of
      uniform directions says little as long as activations are far from isotropic; the second is the one to beat.

    The random vectors are the same in every validation. All ranks contribute.

    Args:
        seed: Names the random vectors.

    Raises:
        ZooError: On fit, if the module has no `reconstruct` or the datamodule no language model.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse data that do not come from a language model."""
        require(self, pl_module, Reconstructs)
        require(self, datamodule(trainer), LanguageModelData)

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure on this rank's contexts, and log over all ranks."""
        if trainer.sanity_checking:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        model, layer = data.model.to(pl_module.device).eval(), data.layer
        skip = offered(data, "skip_positions") or 0
        generator = torch.Generator().manual_seed(self.seed + trainer.global_rank)
        measured = {name: LossRecovered().to(pl_module.device) for name in ("", "_random", "_covariance")}
        for batch in data.evaluation_contexts():
            input_ids, targets = batch["input_ids"].to(pl_module.device), batch["targets"].to(pl_module.device)
            resid = model.blocks(model.embed(input_ids), stop=layer)  # (B, T, D)
            logits = _spliced_logits(model, layer, resid, skip)
            x, targets = resid[:, skip:], targets[:, skip:]
            clean, ablated = logits(x), logits(torch.zeros_like(x))
            for name, edited in self._edits(pl_module, x, targets != IGNORED, generator).items():
                measured[name].update(clean, logits(edited), ablated, targets)
        for name, metric in measured.items():
            for key, value in metric.compute().items():
                if not name or key == "kl":
                    pl_module.log(f"val/{key}{name}", value.float())

    @staticmethod
    def _edits(pl_module: Any, x: Tensor, counted: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """What takes the place of the activations x (B, T, D), by the suffix of its KL's name."""
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


def _spliced_logits(model: Any, layer: int, resid: Tensor, skip: int) -> Callable[[Tensor], Tensor]:
    """A function from what stands at all positions but the first ones to their logits, (B, T - skip, V)."""
    first = resid[:, :skip]
    return lambda edited: model.unembed(model.blocks(torch.cat([first, edited], 1), start=layer))[:, skip:]
