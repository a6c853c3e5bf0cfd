"""Callbacks that save a run: its last state to resume from, and weights at log-spaced steps.

Files are written atomically: a reader finds a complete checkpoint or the one before.
"""

import math
import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from zoo.callbacks.exact_resume import VALIDATION_BATCHES
from zoo.callbacks.last_checkpoint import last_checkpoint
from zoo.catalog import step_folder
from zoo.checkpoints import save
from zoo.errors import ZooError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Saves a checkpoint to a temporary file in the same folder, and renames it when it is complete and on the disk.

    Lightning writes to the system's folder of temporary files. A move from there to another disk is not atomic: with a
    full disk or a killed process, both the old checkpoint and the new one would be lost.

    Raises:
        ZooError: If the file cannot be written; the previous file stays in place.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save a complete checkpoint, or leave the previous file as it is."""
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            below = error if isinstance(error, OSError) else error.__context__  # torch wraps the system's error
            reason = getattr(below, "strerror", None) or str(error).partition("\n")[0]
            kept = "; the one before it is still there" if path.is_file() else ""
            raise ZooError(f"checkpoint {path} could not be saved: {reason}{kept}") from error


class LastCheckpoint(ModelCheckpoint):
    """Saves `checkpoints/last.ckpt` in the run's folder; the run resumes exactly from this file.

    Args:
        every_n_steps: Optimizer steps between two saves. The end of the run is always saved.
    """

    def __init__(self, every_n_steps: int = 200) -> None:
        super().__init__(filename="last", every_n_train_steps=every_n_steps, enable_version_counter=False)
        self._complete = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Set the folder, and make Lightning save through `AtomicCheckpointIO`."""
        self.dirpath = str(last_checkpoint(trainer).parent)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        super().setup(trainer, pl_module, stage)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store in the checkpoint whether the run is complete, that is, has reached the end set in its settings."""
        checkpoint["complete"] = self._complete

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember that the checkpoint from which the run resumes need not be saved again."""
        if Path(str(trainer.ckpt_path)).resolve() == last_checkpoint(trainer).resolve():
            self._last_global_step_saved = checkpoint["global_step"]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Save every `every_n_steps` steps, and at step `max_steps`, from which a longer run can continue."""
        super().on_train_batch_end(trainer, pl_module, *args)
        if trainer.global_step == trainer.max_steps:
            self._save_unless_saved(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Save the end of the run. If its last step is saved already, add later results to that checkpoint."""
        self._complete, path = not trainer.should_stop, last_checkpoint(trainer)
        if self._last_global_step_saved != trainer.global_step:
            self._save_unless_saved(trainer)
        elif trainer.is_global_zero and path.is_file():
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            states = {c.state_key: state for c in trainer.callbacks if (state := c.state_dict())}  # type: ignore[attr-defined]
            checkpoint |= {"zoo": pl_module.zoo_part(), "callbacks": states}
            checkpoint |= {"owed_validation": False, "step_metrics": {}, "complete": self._complete}
            validated = trainer.fit_loop.epoch_loop.val_loop.batch_progress.state_dict()
            checkpoint["loops"]["fit_loop"][VALIDATION_BATCHES] = validated
            trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, path)

    def _save_unless_saved(self, trainer: L.Trainer) -> None:
        if self._last_global_step_saved != trainer.global_step:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


class LogSpacedCheckpoints(L.Callback):
    """Writes zoo checkpoints of the weights at log-spaced steps, `steps/step-000512` in the run's folder.

    `zoo.load(run_folder, step=512)` and `zoo.embedding(run_folder, step=512)` read them.

    Args:
        pieces: Pairs [every, until], used one after the other: save every `every` steps until step `until`. For
            example, [[10, 100], [50, 2000]] saves every 10 steps until step 100, then every 50 until step 2000. By
            default, steps that are powers of two are saved. Steps 0 and 1 and the last step are always saved.
    """

    def __init__(self, pieces: list[list[int]] | None = None) -> None:
        for piece in pieces or []:
            if len(piece) != 2 or min(piece) < 1:
                raise ZooError(f"pieces: {piece} is not a pair [every, until] of positive numbers")
        self.pieces = pieces
        self._last_step = -1

    def due(self, step: int) -> bool:
        """Whether the schedule contains this step."""
        if step <= 1:
            return True
        if self.pieces is None:
            return math.log2(step).is_integer()
        for every, until in self.pieces:
            if step <= until:
                return step % every == 0
        return False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the initial weights."""
        self._last_step = trainer.global_step
        if trainer.global_step == 0:
            self._save(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if the step just done is in the schedule."""
        if trainer.global_step != self._last_step and self.due(trainer.global_step):
            self._save(trainer, pl_module)
        self._last_step = trainer.global_step

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the step again, if it is in the schedule, with the metrics of this validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self.due(trainer.global_step):
            self._save(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last step, with its metrics."""
        self._save(trainer, pl_module)

    def _save(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        part = pl_module.zoo_part()
        folder = Path(trainer.default_root_dir) / "steps" / step_folder(part["step"])
        saved = {name: part[name] for name in ("step", "provenance", "tokenizer_json", "token_counts")}
        save(pl_module.net, folder, **saved)
