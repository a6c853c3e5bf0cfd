"""What a checkpoint must hold beyond Lightning's own for a run to resume exactly."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch


class ExactResume(L.Callback):
    """Saves every rank's random generators with each checkpoint, and whether a validation was due just after it.

    On resume the generators are restored, so that dropout and sampling go on as they would have, and the validation is
    made up for. A run resumed on another number of processes keeps its fresh generators.
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] = []
        self._owed_validation = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Collect the generators of all ranks (every rank takes part in saving)."""
        mine = _random_state()
        states: list[Any] = [mine]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, mine)
        checkpoint["random_states"] = states
        checkpoint["owed_validation"] = _validation_is_due(trainer)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the states until training starts."""
        self._loaded = checkpoint.get("random_states", [])
        self._owed_validation = checkpoint.get("owed_validation", False)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore this rank's generators, after everything that could have drawn from them."""
        if len(self._loaded) == trainer.world_size:
            _set_random_state(self._loaded[trainer.global_rank])
        self._loaded = []
        if self._owed_validation:
            self._owed_validation = False
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True


def _validation_is_due(trainer: L.Trainer) -> bool:
    """Whether training has just done a batch that a validation follows."""
    if not trainer.training:
        return False
    loop = trainer.fit_loop.epoch_loop
    progress, fetcher = loop.batch_progress.total, trainer.fit_loop._data_fetcher
    in_batch_end = progress.completed == progress.processed - 1  # type: ignore[attr-defined]
    return in_batch_end and fetcher is not None and trainer.enable_validation and loop._should_check_val_fx(fetcher)


def _random_state() -> dict[str, Any]:
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
