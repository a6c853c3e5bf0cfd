"""Callback that counts the rows whose sparse codes are not certified to be optimal."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from zoo.callbacks.certificate_picture import draw_certificates
from zoo.callbacks.tables_and_pictures import logged_step, markdown_table, quoted, show, write_table
from zoo.errors import ZooError
from zoo.precision import float64, float64_device
from zoo.protocols import LabelledRows, Reconstructs, batch_rows, datamodule, require

LARGEST = ("relative_gap", "uncertified", "held_out")  # quantities whose largest value is kept for every row
NAMED = 10  # largest number of rows that are listed


class Certificates(L.Callback):
    """Counts and lists the rows whose codes are not certified to be optimal, on data with `row_labels`.

    It is for modules whose codes are solutions of an optimisation problem. Their `validation_step` returns two values
    for every vector, (B,) each. `relative_gap` is the duality gap of the codes, a bound on their distance from the
    optimum, as a share of their objective. `certified` says whether it is within `net.tolerance`. The gap of a row is
    the largest gap of its vectors in one validation. A row is certified if all its vectors are.

    After every validation it logs the number of rows that are not certified and the largest gap. With every checkpoint
    and at the end of training, it writes `certificates/rows.csv` into the run's folder if there was a validation since
    the last time. The table has the gap of every row in the last validation. Rows that the validation did not visit
    have empty cells. It also draws `certificates.png`, which is written to TensorBoard as well.

    All ranks contribute, and rank 0 writes.

    Raises:
        ZooError: In `setup`, if the module has no `reconstruct` or the datamodule no `row_labels`. In the first
            validation, if `validation_step` does not return `certified`.
    """

    def __init__(self) -> None:
        self.latest: dict[str, Tensor] = {}  # what `row_certificates` returned for the last validation
        self._largest = torch.zeros(0, len(LARGEST), dtype=torch.float64)
        self._summary: dict[str, str] = {}
        self._unwritten = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a module that does not reconstruct, and data without labelled rows."""
        require(self, pl_module, Reconstructs)
        require(self, datamodule(trainer), LabelledRows)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the largest values to -1, which is below every gap."""
        shape = (len(trainer.datamodule.row_labels), len(LARGEST))  # type: ignore[attr-defined]
        device = float64_device(pl_module.device)
        self._largest = torch.full(shape, -1.0, dtype=torch.float64, device=device)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Update the largest values of every row; a gap of NaN counts as infinite."""
        if "certified" not in outputs:
            raise ZooError(
                "Certificates needs a model whose validation_step returns `certified`, such as DictionaryLearning"
            )
        at = batch_rows(self, batch)
        columns = {
            "relative_gap": float64(outputs["relative_gap"]).nan_to_num(torch.inf, torch.inf),
            "uncertified": ~outputs["certified"],
            "held_out": batch.get("held_out", torch.ones_like(at)),
        }
        values = torch.stack([float64(columns[name]) for name in LARGEST], 1)
        rows = at.to(values.device).unsqueeze(1).expand_as(values)
        self._largest.scatter_reduce_(0, rows, values, "amax")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the number of rows that are not certified, and the largest gap; the sanity check logs nothing."""
        if trainer.sanity_checking:
            return
        self._largest = trainer.strategy.reduce(self._largest, reduce_op="max").cpu()
        if not trainer.is_global_zero:
            return
        self.latest = row_certificates(self._largest)
        self._unwritten = True
        uncertified = int((self.latest["visited"] & ~self.latest["certified"]).sum())
        values = {"uncertified": uncertified, "largest_gap": self.latest["relative_gap"].max().item()}
        for logger in trainer.loggers:
            logger.log_metrics({f"certificate/{k}": v for k, v in values.items()}, logged_step(trainer))
        self._summary = {"certified": self._summarise(trainer.datamodule.row_labels)}  # type: ignore[attr-defined]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the table and draw, if there is anything new."""
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table and draw, if there is anything new."""
        self._write(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the lines of the last validation for the table at the end of the run."""
        return {"summary": self._summary}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the lines of the run that is resumed."""
        self._summary = state["summary"]

    def summary(self) -> dict[str, str]:
        """Return the lines for the table at the end of a run."""
        return self._summary

    def _summarise(self, tokens: list[str]) -> str:
        rows = self.latest
        visited = int(rows["visited"].sum())
        missing = (rows["visited"] & ~rows["certified"]).nonzero().squeeze(1)
        certified = f"{visited - len(missing):,} of {visited:,} rows"
        if not len(missing):
            return f"{certified}, largest gap {rows['relative_gap'].max():.1e} of the objective"
        worst = missing[rows["relative_gap"][missing].argsort(descending=True, stable=True)].tolist()
        named = ", ".join(f"{tokens[i]!r} (gap {rows['relative_gap'][i]:.1e})" for i in worst[:NAMED])
        more = f" and {len(worst) - NAMED:,} more" if len(worst) > NAMED else ""
        return f"{certified}; not certified: {named}{more}"

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._unwritten:
            return
        self._unwritten = False
        rows, tokens = self.latest, trainer.datamodule.row_labels  # type: ignore[attr-defined]
        visited, gaps = rows["visited"].tolist(), rows["relative_gap"]
        told = {"held_out": rows["held_out"].int(), "relative_gap": gaps, "certified": rows["certified"].int()}
        columns = {
            "row": range(len(tokens)),
            "token": tokens,
            **{k: [v if seen else "" for v, seen in zip(t.tolist(), visited, strict=True)] for k, t in told.items()},
        }
        folder = Path(trainer.default_root_dir) / "certificates"
        write_table(folder / "rows.csv", columns)
        figure = draw_certificates(rows, pl_module.net.tolerance, trainer.global_step)  # type: ignore[union-attr,arg-type]
        worst = gaps.topk(min(NAMED, sum(visited))).indices.tolist()
        lines = [[str(i), quoted(tokens[i]), f"{gaps[i]:.1e}", "yes" if rows["certified"][i] else "no"] for i in worst]
        table = markdown_table(["row", "token", "gap / objective", "certified"], lines)
        show(trainer, figure, folder / "certificates.png", "certificates", {"largest_gaps": table})


def row_certificates(largest: Tensor) -> dict[str, Tensor]:
    """Return the gap and the certificate of every row, from the largest values over its vectors.

    Args:
        largest: The columns `LARGEST`, (V, 3) float64, for V rows: `relative_gap`; `uncertified`, 1 if any vector of
            the row is not certified; and `held_out`, 1 if any is held out. All are -1 for a row without vectors.

    Returns:
        By name, (V,) each: `relative_gap`, -1 for a row without vectors; and `visited`, `certified` and `held_out`,
        bool.
    """
    gap, uncertified, held_out = largest.T
    return {
        "relative_gap": gap,
        "visited": gap >= 0,
        "certified": uncertified == 0,
        "held_out": held_out > 0,
    }
