"""Callback that measures how far embedding rows move in training."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from zoo.callbacks.drift_picture import draw_drift
from zoo.callbacks.tables_and_pictures import frequency_groups, logged_step, markdown_table, quoted, show, write_table
from zoo.errors import ZooError
from zoo.metrics import row_drift
from zoo.protocols import TracksRows, datamodule, offered, require


class EmbeddingDrift(L.Callback):
    """Tracks how far each row of the matrices in `embedding_rows()` has moved since the start of training.

    Every `every_n_steps` optimizer steps and at the end, it logs the rows' distances and cosines from their starting
    values: over all rows and, where the rows are tokens, over groups of rows by the frequency of their token. With
    every checkpoint and at the end, it writes `embedding_drift/<matrix>.csv` into the run's folder. The table has one
    line per row, with the drift since the start and since the last checkpoint. It also draws `<matrix>.png`, which
    is written to TensorBoard as well.

    Decoupled weight decay alone would shrink every row by the product of (1 - learning rate * decay) over the steps.
    The drift that this causes is logged as `decay_alone`. All distances are divided by the row's norm at the start.

    The starting rows stay on the module's device and are kept in the Lightning checkpoint, so a resumed run measures
    from the same start. Rows are the same on every rank under DDP, and only rank 0 measures.

    Args:
        every_n_steps: Number of optimizer steps between two measurements.
        top_rows: Number of rows listed in TensorBoard, those that moved most.

    Raises:
        ZooError: In `setup`, if the module has no `embedding_rows`.
    """

    def __init__(self, every_n_steps: int = 100, top_rows: int = 10) -> None:
        if every_n_steps < 1:
            raise ZooError(f"every_n_steps is {every_n_steps}; it must be at least 1")
        self.every_n_steps, self.top_rows = every_n_steps, top_rows
        self.start: dict[str, Tensor] = {}
        self.at_checkpoint: dict[str, Tensor] = {}
        self.shrink: dict[str, float] = {}  # factor by which weight decay alone would have shrunk the rows so far
        self.history: dict[str, list[list[float]]] = {}  # step, then the median drift of every frequency group
        self.latest: dict[str, dict[str, Tensor]] = {}
        self._decaying: dict[
            str, list[tuple[Optimizer, dict[str, Any]]]
        ] = {}  # the optimizer groups that decay each matrix
        self._groups: dict[str, dict[str, Tensor]] = {}  # row numbers on the device, by frequency
        self._last_step = self._last_table = -1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a module without matrices to track."""
        require(self, pl_module, TracksRows)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy the rows at the start, unless a checkpoint contained a copy."""
        for name, rows in _rows(pl_module).items():
            device = rows.device if trainer.is_global_zero else torch.device("cpu")
            self.start[name] = self.start[name].to(device) if name in self.start else rows.to(device, copy=True)
            groups = frequency_groups(_counts(trainer, len(rows)), len(rows))
            self._groups[name] = {label: members.to(device) for label, members in groups.items()}
            self.shrink.setdefault(name, 1.0)
            self.history.setdefault(name, [])
        self.at_checkpoint = _on_cpu(_rows(pl_module))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure once before training, unless the run is resumed."""
        for name, rows in pl_module.embedding_rows().items():  # type: ignore[operator]
            self._decaying[name] = [
                (optimizer, group)
                for optimizer in trainer.optimizers
                if isinstance(optimizer, AdamW)
                for group in optimizer.param_groups
                if any(p.data_ptr() == rows.data_ptr() for p in group["params"])
            ]
        if trainer.global_step == 0:
            self._measure(trainer, pl_module)
        if trainer.ckpt_path is not None and _folder(trainer).is_dir():
            self._last_table = trainer.global_step

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Update `shrink` with the learning rate of this step."""
        for name, groups in self._decaying.items():
            for owner, group in groups:
                if owner is not optimizer:
                    continue
                self.shrink[name] *= 1 - group["lr"] * group["weight_decay"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure every `every_n_steps` steps."""
        if trainer.global_step % self.every_n_steps == 0 and trainer.global_step != self._last_step:
            self._measure(trainer, pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the table, and copy the rows: the columns `..._since_checkpoint` now refer to this checkpoint."""
        if trainer.global_step != self._last_table:
            self._write_tables(trainer, pl_module)
            self.at_checkpoint = _on_cpu(_rows(pl_module))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure a last time, and write the table unless it was written with a checkpoint of this step."""
        if trainer.global_step != self._last_step:
            self._measure(trainer, pl_module)
        if trainer.global_step != self._last_table:
            self._write_tables(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the starting rows and the curves so far."""
        return {
            "start": {name: rows.cpu() for name, rows in self.start.items()},
            "shrink": self.shrink,
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the curves of the run that is resumed."""
        self.start, self.shrink, self.history = state["start"], state["shrink"], state["history"]

    def summary(self) -> dict[str, str]:
        """Return the lines for the table at the end of a run."""
        lines = {}
        for name, drift in self.latest.items():
            relative = drift["relative_distance"]
            moved = int((relative > 0).sum())
            text = f"median {relative.median():.3g}, max {relative.max():.3g} of the row norm; {moved:,} rows moved"
            lines[f"drift of {name}"] = text if moved else f"exactly 0 in all {len(relative):,} rows"
        return lines

    def _measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_step = trainer.global_step
        if not trainer.is_global_zero:
            return
        for name, rows in _rows(pl_module).items():
            drift = self.latest[name] = row_drift(rows, self.start[name])
            relative, cosine = drift["relative_distance"], drift["cosine"]
            means = {"relative_mean": relative.mean(), "relative_median": relative.median()}
            means |= {"relative_max": relative.max(), "cosine_mean": cosine.mean()}
            medians = {f"by_count/{label}": relative[members].median() for label, members in self._groups[name].items()}
            numbers = torch.stack([*means.values(), *medians.values()]).tolist()  # waits for the device only once
            scalars = dict(zip([*means, *medians], numbers, strict=True)) | {"decay_alone": 1 - self.shrink[name]}
            history = self.history[name]
            history[:] = [point for point in history if point[0] < trainer.global_step]
            history.append([float(trainer.global_step), *numbers[len(means) :]])
            for logger in trainer.loggers:
                logger.log_metrics({f"drift/{name}/{k}": v for k, v in scalars.items()}, logged_step(trainer))

    def _draw(self, trainer: L.Trainer, name: str, relative: Tensor, folder: Path) -> None:
        counts, tokens = _counts(trainer, len(relative)), _tokens(trainer, len(relative))
        groups = list(frequency_groups(counts, len(relative)))
        figure = draw_drift(name, relative, counts, groups, self.history[name], 1 - self.shrink[name])
        top = relative.topk(min(self.top_rows, len(relative))).indices.tolist()
        lines = [[str(i), quoted(tokens[i]), f"{relative[i]:.3f}"] for i in top]
        table = markdown_table(["row", "token", "distance / norm"], lines)
        show(trainer, figure, folder / f"{name}.png", f"drift/{name}", {"moved_most": table})

    def _write_tables(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_table = trainer.global_step
        if not trainer.is_global_zero:
            return
        folder = _folder(trainer)
        for name, rows in _on_cpu(_rows(pl_module)).items():
            start = self.start[name].cpu()
            since_start = row_drift(rows, start)
            since_checkpoint = row_drift(rows, self.at_checkpoint[name])
            counts = _counts(trainer, len(rows))
            columns = {
                "row": range(len(rows)),
                "token": _tokens(trainer, len(rows)),
                "count": counts.tolist() if counts is not None else [""] * len(rows),
                "norm_at_start": start.float().norm(dim=1).tolist(),
                "norm": rows.float().norm(dim=1).tolist(),
                **{k: v.tolist() for k, v in since_start.items()},
                **{f"{k}_since_checkpoint": v.tolist() for k, v in since_checkpoint.items()},
            }
            write_table(folder / f"{name}.csv", columns)
            if since_start["distance"].any():
                self._draw(trainer, name, since_start["relative_distance"], folder)


def _folder(trainer: L.Trainer) -> Path:
    return Path(trainer.default_root_dir) / "embedding_drift"


def _rows(pl_module: L.LightningModule) -> dict[str, Tensor]:
    """Return the matrices that are tracked, without gradients, on their device."""
    return {name: rows.detach() for name, rows in pl_module.embedding_rows().items()}  # type: ignore[operator]


def _on_cpu(matrices: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: rows.to("cpu", copy=True) for name, rows in matrices.items()}


def _counts(trainer: L.Trainer, n_rows: int) -> Tensor | None:
    """Return how often each row's token occurs, (n_rows,) int64, 0 for rows without a token; None if not known."""
    counts = offered(_tokens_data(trainer), "row_counts")
    return None if counts is None else torch.nn.functional.pad(counts, (0, n_rows - len(counts)))


def _tokens(trainer: L.Trainer, n_rows: int) -> list[str]:
    """Return the token of each row, or an empty text for rows without a token."""
    tokens = offered(_tokens_data(trainer), "row_labels") or []
    return [*tokens, *[""] * (n_rows - len(tokens))][:n_rows]


def _tokens_data(trainer: L.Trainer) -> object:
    """Return the datamodule if rows of the module's matrices are its tokens, otherwise None.

    The atoms of a dictionary, for example, are not tokens.
    """
    data = datamodule(trainer)
    return data if offered(data, "batches") == "tokens" else None
