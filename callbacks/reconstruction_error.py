"""Callback that measures the reconstruction error of every row."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.callbacks.error_picture import draw_errors
from zoo.callbacks.tables_and_pictures import frequency_groups, logged_step, markdown_table, quoted, show, write_table
from zoo.errors import ZooError
from zoo.metrics import fires
from zoo.precision import float64, float64_device
from zoo.protocols import LabelledRows, Reconstructs, batch_rows, datamodule, offered, refuse_null_model, require

SUMS = ("n", "squared_error", "squared_norm", "cosine", "l0", "held_out")  # quantities that are summed for every row


class ReconstructionError(L.Callback):
    """Tracks the error of every row, for any module with `reconstruct(x)` and data with `row_labels`.

    The relative error of a row, or of several rows pooled, is sum |x - x_hat|² / sum |x|² over their vectors in one
    validation. It is 0 for an exact reconstruction and 1 for x_hat = 0. It is neither centred nor weighted, and
    therefore differs from the FVU that modules log.

    After every validation it logs these relative errors:

    - `error/all`, `error/held_out`, `error/trained`: all rows pooled, the rows that are never trained on, and the rows
      that are trained on;
    - `error/by_count/...`: groups of rows by the frequency of their token, if the datamodule has `row_counts`;
    - `error/median`, `error/worst`: the median and the largest error of single rows.

    With every checkpoint and at the end of training, it writes `reconstruction_error/rows.csv` into the run's folder if
    there was a validation since the last time. The table has the error of every row in the last validation. Rows that
    the validation did not visit have empty cells. It also draws `rows.png`, which is written to TensorBoard as well.

    The curves are kept in the Lightning checkpoint, so a resumed run continues them. All ranks contribute, and rank 0
    writes.

    Args:
        top_rows: Number of rows listed in TensorBoard, those with the largest errors.

    Raises:
        ZooError: In `setup`, if the module has no `reconstruct`, the datamodule no `row_labels`, or the vectors are a
            null model's.
    """

    def __init__(self, top_rows: int = 10) -> None:
        if top_rows < 1:
            raise ZooError(f"top_rows is {top_rows}; it must be at least 1")
        self.top_rows = top_rows
        self.history: list[list[float]] = []  # step, error of the held-out rows, then of every frequency group
        self.latest: dict[str, Tensor] = {}  # what `row_errors` returned for the last validation
        self._sums = torch.zeros(0, len(SUMS), dtype=torch.float64)
        self._summary: dict[str, str] = {}
        self._unwritten = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a module that does not reconstruct, and data without labelled rows."""
        require(self, pl_module, Reconstructs)
        refuse_null_model(self, datamodule(trainer))
        require(self, datamodule(trainer), LabelledRows)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the sums."""
        n_rows = len(trainer.datamodule.row_labels)  # type: ignore[attr-defined]
        device = float64_device(pl_module.device)
        self._sums = torch.zeros(n_rows, len(SUMS), dtype=torch.float64, device=device)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add this batch to the sums."""
        x, x_hat, rows = float64(outputs["x"]), float64(outputs["x_hat"]), batch_rows(self, batch)
        every = torch.ones(len(x), device=x.device)
        columns = {
            "n": every,
            "squared_error": (x - x_hat).square().sum(1),
            "squared_norm": x.square().sum(1),
            "cosine": F.cosine_similarity(x, x_hat, dim=1),
            "l0": fires(outputs["codes"]).sum(1),
            "held_out": batch.get("held_out", every),
        }
        sums = torch.stack([float64(columns[name]) for name in SUMS], 1)
        self._sums.index_add_(0, rows.to(sums.device), sums)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the errors; the sanity check adds no point to the curves."""
        if trainer.sanity_checking:
            return
        self._sums = trainer.strategy.reduce(self._sums, reduce_op="sum").cpu()
        if not trainer.is_global_zero:
            return
        rows = self.latest = row_errors(self._sums)
        self._unwritten = True
        pooled = self._pooled(trainer)
        relative = rows["relative_error"][rows["n"] > 0]
        if len(relative):
            values = pooled | {"median": relative.median().item(), "worst": relative.max().item()}
            for logger in trainer.loggers:
                logger.log_metrics({f"error/{k}": v for k, v in values.items()}, logged_step(trainer))
        labels = [f"by_count/{label}" for label in self._groups(trainer)]
        self.history = [point for point in self.history if point[0] < trainer.global_step]
        self.history.append([float(trainer.global_step), *(pooled.get(k, math.nan) for k in ("held_out", *labels))])
        self._summary = self._summarise(trainer, pooled)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the table and draw, if there is anything new."""
        self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table and draw, if there is anything new."""
        self._write(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the curves so far, and the lines of the last validation for the table at the end of the run."""
        return {"history": self.history, "summary": self._summary}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the curves of the run that is resumed."""
        self.history, self._summary = state["history"], state["summary"]

    def summary(self) -> dict[str, str]:
        """Return the lines for the table at the end of a run."""
        return self._summary

    def _groups(self, trainer: L.Trainer) -> dict[str, Tensor]:
        return frequency_groups(_counts(trainer), len(self._sums))

    def _pooled(self, trainer: L.Trainer) -> dict[str, float]:
        """Return the pooled relative error of every group that has rows in this validation."""
        held_out = self.latest["held_out"]
        groups = {"all": torch.ones_like(held_out), "held_out": held_out, "trained": ~held_out}
        groups |= {f"by_count/{label}": members for label, members in self._groups(trainer).items()}
        sums = {name: self._sums[members].sum(0, keepdim=True) for name, members in groups.items()}
        return {name: row_errors(s)["relative_error"].item() for name, s in sums.items() if s[0, SUMS.index("n")] > 0}

    def _summarise(self, trainer: L.Trainer, pooled: dict[str, float]) -> dict[str, str]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if "all" not in pooled:
            return {}
        names = {"held_out": "held-out rows", "trained": "trained rows"}
        lines = {"squared error / |x|²": ", ".join(f"{pooled[k]:.4g} on {v}" for k, v in names.items() if k in pooled)}
        worst = self._worst(1)[0]
        counts = _counts(trainer)
        count = "" if counts is None else f", {int(counts[worst]):,} occurrences"
        error = self.latest["relative_error"][worst]
        lines["worst row"] = f"{error:.4g}, {data.row_labels[worst]!r} (row {worst}{count})"
        if (effective := offered(data, "effective_rows")) is not None:
            trained = (self.latest["n"] > 0) & ~self.latest["held_out"]
            lines["effective training rows"] = f"{effective:,.0f} of {int(trained.sum()):,}"
        if (never := offered(data, "never_occurring")) is not None:
            lines["rows of unused tokens"] = f"{int(never.sum()):,} have a token that never occurs in the text"
        return lines

    def _worst(self, how_many: int) -> list[int]:
        """Return the visited rows with the largest relative errors, in descending order, NaN first."""
        visited = self.latest["n"] > 0
        relative = self.latest["relative_error"].where(visited, -1)
        return relative.topk(min(how_many, int(visited.sum()))).indices.tolist()

    def _write(self, trainer: L.Trainer) -> None:
        if not self._unwritten:
            return
        self._unwritten = False
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        rows, counts, tokens = self.latest, _counts(trainer), data.row_labels
        n = rows["n"].tolist()
        columns = {
            "row": range(len(n)),
            "token": tokens,
            "count": counts.tolist() if counts is not None else [""] * len(n),
            "held_out": _cells(rows["held_out"].int(), n),
            "n": [int(visits) for visits in n],
            **{k: _cells(rows[k], n) for k in ("squared_error", "relative_error", "cosine", "l0", "norm")},
        }
        folder = Path(trainer.default_root_dir) / "reconstruction_error"
        write_table(folder / "rows.csv", columns)
        figure = draw_errors(rows, counts, list(self._groups(trainer)), self.history)
        lines = [
            [str(i), quoted(tokens[i]), str(columns["count"][i]), f"{rows['relative_error'][i]:.3f}"]
            for i in self._worst(self.top_rows)
        ]
        table = markdown_table(["row", "token", "count", "squared error / norm²"], lines)
        show(trainer, figure, folder / "rows.png", "error/rows", {"worst": table})


def row_errors(sums: Tensor) -> dict[str, Tensor]:
    """Return the errors of every row from sums over its vectors.

    Args:
        sums: The columns `SUMS`, (V, 6) float64, for V rows: the number of vectors `n`; the sums of `squared_error`
            |x - x_hat|², `squared_norm` |x|², `cosine` between x and x_hat, and number of nonzero codes `l0`; and the
            number of `held_out` vectors, which are never trained on.

    Returns:
        By name, (V,) each; all but `n` and `held_out` are NaN for rows without vectors:

        - `n`, the number of vectors;
        - the means `squared_error`, `cosine` and `l0`;
        - `norm`, the root mean square of |x|;
        - `relative_error`, the sum of squared errors divided by the sum of squared norms; a row of zeros has 0 if it is
          reconstructed exactly, and infinity otherwise;
        - `held_out`, bool, whether any vector of the row is held out.
    """
    total = dict(zip(SUMS, sums.T, strict=True))
    n, error, squared_norm = total["n"], total["squared_error"], total["squared_norm"]
    relative = (error / squared_norm).where((error != 0) | (squared_norm != 0), 0.0)
    return {
        "n": n,
        "held_out": total["held_out"] > 0,
        "squared_error": error / n,
        "relative_error": relative.where(n > 0, math.nan),
        "cosine": total["cosine"] / n,
        "l0": total["l0"] / n,
        "norm": (squared_norm / n).sqrt(),
    }


def _counts(trainer: L.Trainer) -> Tensor | None:
    counts = trainer.datamodule.row_counts  # type: ignore[attr-defined]
    return None if counts is None else counts.cpu()


def _cells(values: Tensor, visits: list[float]) -> list[float | str]:
    """Return a column of the table, with empty cells for rows that were not visited."""
    return [value if n else "" for value, n in zip(values.tolist(), visits, strict=True)]
