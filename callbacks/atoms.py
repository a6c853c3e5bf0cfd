"""Callback that describes every atom of a dictionary: firing frequency, largest codes, and the nearest row."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo import null_models
from zoo.callbacks.atom_picture import draw_atoms
from zoo.callbacks.tables_and_pictures import markdown_table, quoted, show, write_table
from zoo.errors import ZooError
from zoo.metrics import fires, matched_cosine
from zoo.precision import float64, float64_device
from zoo.protocols import EmbeddingData, HasAtoms, batch_rows, datamodule, offered, refuse_null_model, require

TABLED = 20  # number of atoms in TensorBoard's table
NULL_ATOMS = 2048  # largest number of random atoms, which is enough for a histogram
COVARIANCE_ROWS = 16_384  # largest number of rows from which the covariance is estimated
ROWS_AT_ONCE = 4096  # number of rows that atoms are compared with at a time


class AtomReport(L.Callback):
    """Describes every latent of a dictionary, for any module with `reconstruct(x)` and `embedding_rows()["W_dec"]`.

    A latent fires where its code is not zero. In every validation the callback counts how often each latent fires, and
    keeps the rows with the largest codes, by absolute value. With every checkpoint and at the end of training, it
    writes `atoms/atoms.csv` into the run's folder if there was a validation since the last time. The table has one line
    per latent:

    - `firing_frequency`: share of the validation's vectors on which the latent fires;
    - `mean_code`: mean absolute value of its codes on those vectors;
    - `decoder_norm`: norm of its atom;
    - `nearest_token`, `nearest_cosine`: the row of the datamodule's `W_E` with the largest cosine to the atom, and that
      cosine; empty if there is no `W_E`, or if its rows are not as long as the atoms;
    - `top_tokens`: a JSON list of pairs [token, code], the largest codes first. A code may be negative where the
      module's `signed_codes` is true.

    With the table it draws `atoms.png`, which is also written to TensorBoard. The picture has three panels: FVU against
    L0 at the validations so far; a histogram of firing frequencies; and a histogram of `nearest_cosine` for the atoms
    that fire. The last panel also shows the nearest cosines of the null model, which are random atoms with the
    covariance of `W_E`.

    The points (L0, FVU) are the module's `val/l0` and `val/fvu`, or `val_train/l0` and `val_train/fvu` where nothing is
    held out. They are kept in the Lightning checkpoint. All ranks contribute, and rank 0 writes.

    Args:
        top_tokens: Number of rows listed for every latent.
        seed: Seed of the random atoms.

    Raises:
        ZooError: In `setup`, if the module has no atoms, the datamodule no labelled rows, or the vectors are a null
            model's.
    """

    def __init__(self, top_tokens: int = 8, seed: int = 0) -> None:
        if top_tokens < 1:
            raise ZooError(f"top_tokens is {top_tokens}; it must be at least 1")
        self.top_tokens, self.seed = top_tokens, seed
        self.points: list[list[float]] = []  # step, L0, FVU
        self._top_codes, self._top_rows = torch.empty(0, top_tokens), torch.empty(0, top_tokens, dtype=torch.int64)
        self._sums = torch.zeros(0, 2, dtype=torch.float64)  # firings, and sum of absolute codes, of every latent
        self._n = torch.zeros((), dtype=torch.float64)  # number of vectors
        self._null: Tensor | None = None  # largest cosines of the random atoms
        self._summary: dict[str, str] = {}
        self._unwritten = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a module without atoms and a datamodule without rows."""
        require(self, pl_module, HasAtoms)
        refuse_null_model(self, datamodule(trainer))
        require(self, datamodule(trainer), EmbeddingData)
        if "W_dec" not in _rows(pl_module):
            name = type(pl_module).__name__
            raise ZooError(f"AtomReport needs a model with W_dec among its embedding_rows(); {name} has none")

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the sums."""
        shape, device = (len(_rows(pl_module)["W_dec"]), self.top_tokens), pl_module.device
        self._top_codes, self._top_rows = torch.zeros(shape, device=device), torch.full(shape, -1, device=device)
        self._sums = torch.zeros(shape[0], 2, dtype=torch.float64, device=float64_device(device))
        self._n = torch.zeros((), dtype=torch.float64, device=float64_device(device))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add this batch to the sums, and update the largest codes."""
        codes, rows = outputs["codes"].float(), batch_rows(self, batch)
        if not len(codes):
            return
        self._n += len(codes)
        sizes = codes.abs()
        self._sums += torch.stack(
            [float64(fires(codes).float().sum(0)), sizes.to(self._n.device).sum(0, dtype=torch.float64)], 1
        )
        names, index = rows.unique(return_inverse=True)
        if len(names) < len(rows):  # some rows have several vectors in the batch
            index, zeros = index.unsqueeze(1).expand_as(codes), codes.new_zeros(len(names), codes.shape[1])
            largest, least = (zeros.scatter_reduce(0, index, codes, kind) for kind in ("amax", "amin"))
            codes = largest.where(largest >= -least, least)
            sizes = codes.abs()
        else:
            names = rows
        at = sizes.T.contiguous().topk(min(self.top_tokens, len(names)), dim=1).indices  # (latents, top_tokens)
        self._top_codes, self._top_rows = merge_top(
            torch.cat([self._top_codes, codes.T.gather(1, at)], 1),
            torch.cat([self._top_rows, names[at]], 1),
            self.top_tokens,
        )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Merge the sums and rows of all ranks; the sanity check adds no point to the curve."""
        if trainer.sanity_checking:
            return
        self._sums = trainer.strategy.reduce(self._sums, reduce_op="sum").cpu()
        self._n = trainer.strategy.reduce(self._n, reduce_op="sum").cpu()
        if trainer.world_size > 1:
            codes, rows = trainer.strategy.all_gather(self._top_codes), trainer.strategy.all_gather(self._top_rows)
            self._top_codes, self._top_rows = merge_top(
                codes.transpose(0, 1).flatten(1), rows.transpose(0, 1).flatten(1), self.top_tokens
            )
        self._unwritten = trainer.is_global_zero
        for split in ("val", "val_train"):
            l0, fvu = (trainer.callback_metrics.get(f"{split}/{name}") for name in ("l0", "fvu"))
            if l0 is not None and fvu is not None:
                self.points = [point for point in self.points if point[0] < trainer.global_step]
                self.points.append([float(trainer.global_step), l0.item(), fvu.item()])
                break

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the table and draw, if there is anything new."""
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table and draw, if there is anything new; compare with the true atoms, if they are known."""
        self._write(trainer, pl_module)
        planted = offered(datamodule(trainer), "true_atoms")
        if planted is None or not trainer.is_global_zero:
            return
        atoms, planted = _rows(pl_module)["W_dec"].cpu(), planted.cpu()
        chance = torch.randn(atoms.shape, generator=_generator(self.seed))
        signed = not offered(pl_module, "signed_codes")
        found, by_chance = (matched_cosine(learned, planted, signed).item() for learned in (atoms, chance))
        self._summary["planted atoms"] = (
            f"mean cosine of the {len(planted):,} true atoms, each matched with one learned atom: {found:.3f}; with "
            f"random atoms: {by_chance:.3f}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the points (step, L0, FVU) so far."""
        return {"points": self.points}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the points of the run that is resumed."""
        self.points = state["points"]

    def summary(self) -> dict[str, str]:
        """Return the lines for the table at the end of a run."""
        return self._summary

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._unwritten:
            return
        self._unwritten = False
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        atoms, (firings, codes) = _rows(pl_module)["W_dec"], self._sums.T
        frequency, labels, blanks = firings / self._n, data.row_labels, [""] * len(atoms)
        top = [
            [[labels[i], code] for code, i in zip(latent_codes, latent_rows, strict=True) if i >= 0 and code != 0]
            for latent_codes, latent_rows in zip(self._top_codes.tolist(), self._top_rows.tolist(), strict=True)
        ]
        columns: dict[str, Any] = {
            "latent": range(len(atoms)),
            "firing_frequency": frequency.tolist(),
            "mean_code": [c if n else "" for c, n in zip((codes / firings).tolist(), firings.tolist(), strict=True)],
            "decoder_norm": atoms.float().norm(dim=1).tolist(),
            "nearest_token": blanks,
            "nearest_cosine": blanks,
            "top_tokens": [json.dumps(pairs, ensure_ascii=False) for pairs in top],
        }
        cosine = null = None
        if data.W_E is not None and data.W_E.shape[1] == atoms.shape[1]:
            W_E = data.W_E.detach().to(atoms.device)
            cosine, nearest = largest_cosines(atoms, W_E)
            columns |= {"nearest_token": [labels[i] for i in nearest.tolist()], "nearest_cosine": cosine.tolist()}
            if self._null is None:
                random_atoms = gaussian_atoms(W_E.cpu(), min(NULL_ATOMS, len(atoms)), self.seed)
                self._null = largest_cosines(random_atoms.to(W_E.device), W_E)[0].cpu()
            cosine, null = cosine.cpu(), self._null
        folder = Path(trainer.default_root_dir) / "atoms"
        write_table(folder / "atoms.csv", columns)
        header = ["latent", "firing frequency", "nearest token", "cosine", "largest codes"]
        lines = [
            [
                str(i),
                f"{frequency[i]:.3g}",
                quoted(columns["nearest_token"][i]) if cosine is not None else "",
                f"{cosine[i]:.2f}" if cosine is not None else "",
                ", ".join(f"{quoted(token)} {code:.3g}" for token, code in top[i]),
            ]
            for i in frequency.topk(min(TABLED, len(frequency))).indices.tolist()
        ]
        figure = draw_atoms(self.points, frequency, int(self._n), cosine, null)
        show(trainer, figure, folder / "atoms.png", "atoms", {"most_frequent": markdown_table(header, lines)})


def merge_top(codes: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k codes of every latent with the largest absolute values, and their rows, (latents, k) each.

    A row that occurs several times among the candidates is kept once, with its largest code.

    Args:
        codes: Candidates, (latents, m).
        rows: Row of each candidate, (latents, m) int64.
        k: Number of codes to keep. If there are fewer rows, the remaining entries have code 0 and row -1.
    """
    order = codes.abs().sort(dim=1, descending=True).indices
    codes = codes.gather(1, order)
    rows, by_row = rows.gather(1, order).sort(dim=1, stable=True)  # of one row's codes, the largest comes first
    codes = codes.gather(1, by_row)
    again = torch.zeros_like(rows, dtype=torch.bool)
    again[:, 1:] = rows[:, 1:] == rows[:, :-1]
    codes, rows = codes.masked_fill(again, 0.0), rows.masked_fill(again, -1)
    order = codes.abs().sort(dim=1, descending=True, stable=True).indices[:, :k]  # equal codes in order of their rows
    return codes.gather(1, order), rows.gather(1, order)


def largest_cosines(atoms: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest cosine of every atom with any row, and that row: (K, D) and (V, D) -> (K,), (K,) int64."""
    atoms = F.normalize(atoms.float(), dim=1)
    best, nearest = atoms.new_full((len(atoms),), -torch.inf), torch.zeros(len(atoms), dtype=torch.int64)
    nearest = nearest.to(atoms.device)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        cosine, at = (atoms @ F.normalize(rows[start : start + ROWS_AT_ONCE].float(), dim=1).T).max(1)
        better = cosine > best
        best, nearest = cosine.where(better, best), (at + start).where(better, nearest)
    return best, nearest


def gaussian_atoms(W: Tensor, n_atoms: int, seed: int) -> Tensor:
    """Return Gaussian atoms (n_atoms, D) of mean zero with the covariance of the rows of `W` (V, D).

    The covariance is that of at most 16,384 rows, chosen at random. There are at most as many atoms as such rows.
    """
    generator = _generator(seed)
    sample = W.float()[torch.randperm(len(W), generator=generator)[:COVARIANCE_ROWS]]
    return null_models.covariance_matched(sample - sample.mean(0), generator)[:n_atoms]


def _generator(seed: int) -> torch.Generator:
    """Return a generator whose seed differs from those of data and weights, which are small numbers.

    With the same seed, the random atoms could equal planted atoms of the same shape.
    """
    return torch.Generator().manual_seed(10**12 + seed)


def _rows(pl_module: L.LightningModule) -> dict[str, Tensor]:
    return {name: rows.detach() for name, rows in pl_module.embedding_rows().items()}  # type: ignore[operator]
