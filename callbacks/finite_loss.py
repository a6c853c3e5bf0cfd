"""Callback that ends a run whose loss is not finite, before a bad checkpoint is saved."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from zoo.callbacks.progress import logging_is_due
from zoo.errors import ZooError

MOST_UNCHECKED = 1000  # number of losses that are kept


class FiniteLoss(L.Callback):
    """Ends the run at the first NaN or infinite loss, with a message that names the step. No later checkpoint is saved.

    A single CPU process checks the loss in every step. An accelerator, or several processes, keep the losses, and check
    them every `log_every_n_steps` steps, at the latest after 1,000 batches, and before every checkpoint. After every
    validation and test, a loss that is not finite ends the run, and so does a fraction of variance unexplained that is
    NaN. An infinite fraction is allowed, because it is the right value for data without variance.

    Raises:
        ZooError: At the first such value, or at the first weight that is not finite when a checkpoint is saved.
    """

    def __init__(self) -> None:
        self._unchecked: list[tuple[int, Tensor]] = []  # optimizer step and loss of every batch since the last check

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss, and check the losses if this does not slow training."""
        loss = outputs["loss"].detach()
        self._unchecked.append((trainer.global_step, loss))
        cheap = loss.device.type == "cpu" and trainer.world_size == 1
        if cheap or logging_is_due(trainer) or len(self._unchecked) == MOST_UNCHECKED:
            self._check(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Raise an error instead of saving a loss or weights that are not finite."""
        self._check(trainer)
        for name, parameter in pl_module.named_parameters():
            if not parameter.isfinite().all():
                raise ZooError(f"parameter {name} is not finite at step {trainer.global_step}; {_advice(trainer)}")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise an error if a validation result is not finite."""
        _check_measured(trainer)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise an error if a test result is not finite."""
        _check_measured(trainer)

    def _check(self, trainer: L.Trainer) -> None:
        losses = [loss for _, loss in self._unchecked]
        values = torch.stack(losses).tolist() if losses else []
        steps = [step for (step, _), value in zip(self._unchecked, values, strict=True) if not math.isfinite(value)]
        bad = bool(steps)
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce_boolean_decision(bad, all=False)
        if bad:
            where = f"at step {steps[0]}" if steps else f"on another process by step {trainer.global_step}"
            raise ZooError(f"the loss is not finite {where}; {_advice(trainer)}")
        self._unchecked.clear()


def _check_measured(trainer: L.Trainer) -> None:
    for name, value in trainer.callback_metrics.items():
        bad = not value.isfinite() if name.endswith("/loss") else name.endswith("/fvu") and bool(value.isnan())
        if bad:
            step = f" at step {trainer.global_step}" if trainer.state.fn == "fit" else ""
            raise ZooError(f"{name} is {value.item()}{step}, which is not finite; {_advice(trainer)}")


def _advice(trainer: L.Trainer) -> str:
    if trainer.precision in ("16-true", "16-mixed"):
        return f"trainer.precision {trainer.precision} has no numbers above 65,504; use bf16-mixed or 32-true"
    if trainer.state.fn != "fit":
        return "check whether the weights and the data are finite"
    last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    good = f"the last good checkpoint is {last}" if last.exists() else "nothing was saved yet"
    return f"{good}; a lower learning_rate, longer warmup_steps or gradient_clip_val may help"
