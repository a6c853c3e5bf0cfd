"""Callback that adds to a checkpoint what Lightning leaves out and an exact resume requires."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars

VALIDATION_BATCHES = "epoch_loop.val_loop.batch_progress"  # Lightning's names in a checkpoint's "loops"
TRAINING_BATCHES = "epoch_loop.batch_progress"


class ExactResume(L.Callback):
    """Makes a resumed run write the same files as an uninterrupted run.

    Every checkpoint additionally stores:

    - the states of the random generators of all ranks;
    - whether a validation was due at the checkpoint's step and had not run;
    - the metrics of this step, which Lightning logs only after it has saved the checkpoint.

    On resume the generators are restored, so that dropout and sampling continue unchanged. The metrics are logged, and
    the validation is run, even after the last step. A checkpoint that is saved during a validation has the state from
    before this validation.

    A run that resumes on another number of processes keeps its freshly seeded generators.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}
        self._before_validation: dict[str, Any] | None = None  # generators and counters, while a validation runs
        self._max_steps: int | None = None  # the run's max_steps, while Lightning's is set one higher
        self._validation_batches: dict[str, Any] | None = None  # counters of a resumed run until it trains

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the generators of all ranks (every rank calls this hook), and make the loggers write their files."""
        before = self._before_validation
        mine = before["random_state"] if before else _random_state()
        states: list[Any] = [mine]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, mine)
        checkpoint["random_states"] = states
        checkpoint["owed_validation"] = before is not None or _validation_is_due(trainer)
        checkpoint["step_metrics"] = _unlogged_metrics(trainer)
        if before:
            loops = checkpoint["loops"]["fit_loop"]
            loops[VALIDATION_BATCHES] = before["validation_batches"]
            for count in loops[TRAINING_BATCHES].values():
                if isinstance(count, dict):  # Lightning completes a batch just before its validation
                    count["completed"] = count["processed"] - 1
        for logger in trainer.loggers:
            logger.save()

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the stored values until training starts."""
        wanted = ("global_step", "random_states", "owed_validation", "step_metrics", "complete")
        self._loaded = {name: checkpoint[name] for name in wanted if name in checkpoint}
        self._loaded["epochs"] = checkpoint["loops"]["fit_loop"]["epoch_progress"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make Lightning run the end of a run whose last step is done: it would otherwise skip the run."""
        if self._loaded.get("global_step") == trainer.max_steps and not self._loaded.get("complete"):
            self._max_steps = trainer.max_steps
            trainer.fit_loop.epoch_loop.max_steps = self._max_steps + 1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore this rank's generators once the setup is done; log and validate if the checkpoint says so."""
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._max_steps = self._max_steps, None
        loaded, self._loaded = self._loaded, {}
        if not loaded:
            return
        states = loaded.get("random_states", [])
        if len(states) == trainer.world_size:
            _set_random_state(states[trainer.global_rank])
        val_loop = trainer.fit_loop.epoch_loop.val_loop
        with _in_epoch(trainer, loaded["epochs"]):
            trainer._logger_connector.log_metrics(dict(loaded.get("step_metrics", {})))
            if loaded.get("owed_validation"):
                val_loop.restarting = False  # or Lightning continues after the previous validation's last batch
                trainer.validating = True
                val_loop.run()
                trainer.training = True
        self._validation_batches = val_loop.batch_progress.state_dict()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Correct two counts that differ after a resume: validation batches, and an epoch that has just begun."""
        if self._validation_batches is None:
            return
        validation, epochs = trainer.fit_loop.epoch_loop.val_loop.batch_progress, trainer.fit_loop.epoch_progress
        validation.load_state_dict(self._validation_batches)
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready == 1:  # the first batch of an epoch
            validation.total.reset()
        if epochs.current.ready == epochs.current.processed:  # type: ignore[attr-defined]
            epochs.increment_ready()
            epochs.increment_started()
        self._validation_batches = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the state from before this validation, for a checkpoint that is saved during it."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            counted = trainer.fit_loop.epoch_loop.val_loop.batch_progress.state_dict()
            self._before_validation = {"random_state": _random_state(), "validation_batches": counted}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop the kept state: checkpoints from here on come after this validation."""
        self._before_validation = None


@contextmanager
def _in_epoch(trainer: L.Trainer, epochs: dict[str, Any]) -> Iterator[None]:
    """Use the checkpoint's epoch count inside the block; Lightning has already gone on to the next one."""
    progress = trainer.fit_loop.epoch_progress
    now = progress.state_dict()
    progress.load_state_dict(epochs)
    yield
    progress.load_state_dict(now)


def _ends_a_batch(trainer: L.Trainer) -> bool:
    """Whether training has just done a batch whose metrics and validation are still due."""
    progress = trainer.fit_loop.epoch_loop.batch_progress.total
    return trainer.training and progress.completed == progress.processed - 1  # type: ignore[attr-defined]


def _validation_is_due(trainer: L.Trainer) -> bool:
    """Whether a training batch has just been done and a validation follows it."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    return (
        _ends_a_batch(trainer)
        and fetcher is not None
        and trainer.enable_validation
        and loop._should_check_val_fx(fetcher)
    )


def _unlogged_metrics(trainer: L.Trainer) -> dict[str, float]:
    """Return the metrics that Lightning will log for the step just done."""
    connector = trainer._logger_connector
    if not (_ends_a_batch(trainer) and connector.should_update_logs) or trainer.fit_loop._should_accumulate():
        return {}
    return convert_tensors_to_scalars(connector.metrics["log"])


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
