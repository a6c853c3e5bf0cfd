"""The LightningModule that learns dictionaries; all codes are certified solutions of a lasso."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.distributed import all_gather_object, all_reduce, get_world_size, is_initialized

from zoo.errors import ZooError
from zoo.metrics import FVU
from zoo.models.dictionary import Dictionary
from zoo.models.dictionary_step import MethodOfOptimalDirections
from zoo.models.reconstruction import ReconstructionModule
from zoo.models.sparse_coding import least_squares_on_support
from zoo.models.sparse_coding.rows import chosen_rows, csr
from zoo.models.vector_batches import as_evaluated, as_vectors
from zoo.precision import float64_device
from zoo.protocols import WeightedRows, datamodule, offered, require


class DictionaryLearning(ReconstructionModule):
    """Learns a dictionary by alternating certified sparse coding and dictionary steps.

    A training step first solves for the codes of its batch, up to `tolerance`. It then replaces the dictionary by the
    least-squares optimum for these codes (see `MethodOfOptimalDirections`). With `data.batch_size: null` a batch is all
    training rows, weighted, and the solver starts from the codes of the step before. With smaller batches set `memory`
    above 0, so that a dictionary step uses earlier batches too.

    Args:
        n_atoms: Number of atoms K. It should be smaller than the number of training rows: otherwise the rows
            themselves are a dictionary without error.
        penalty: Weight of the codes' absolute values, in units of the data's root mean square distance from their mean.
        d_in: Dimension of the data. On the command line it follows the data.
        positive: Whether codes must be nonnegative; by default they may have both signs.
        tolerance: Largest duality gap at which the codes of a row are certified, as a share of the row's objective.
            Codes in float32 reach about 1e-6.
        memory: Share of the sums over earlier batches that a dictionary step keeps; 0 to use the present batch only.
        replace_below: An atom is replaced if the number of rows that use it is at most this share of the mean over
            atoms. With 0, only atoms that no row uses are replaced.
        init_from: Checkpoint of a dictionary of the same sizes that training starts from: the name of a pretrained
            checkpoint, a folder, a Lightning .ckpt or hf:org/repo[@revision]. Mean and scale are fitted to the data
            again. By default the first atoms are random rows of the data.

    Raises:
        ZooError: If a number is out of range, or `init_from` does not fit.
    """

    net: Dictionary

    def __init__(
        self,
        n_atoms: int,
        penalty: float = 0.1,
        d_in: int = 0,
        positive: bool = False,
        tolerance: float = 1e-4,
        memory: float = 0.0,
        replace_below: float = 0.1,
        init_from: str | None = None,
    ) -> None:
        super().__init__(n_atoms)
        for name, share in (("memory", memory), ("replace_below", replace_below)):
            if not 0 <= share < 1:
                raise ZooError(f"{name} is {share}; it must be at least 0 and below 1")
        arguments = {"n_atoms": n_atoms, "penalty": penalty, "d_in": d_in, "positive": positive, "tolerance": tolerance}
        self.save_plain_hyperparameters(**arguments, memory=memory, replace_below=replace_below, init_from=init_from)
        self.automatic_optimization = False
        self.net = Dictionary(d_in, n_atoms, penalty, positive, tolerance)
        self._random_state = torch.get_rng_state()
        self.memory, self.replace_below, self.init_from = memory, replace_below, init_from
        self.held_out_debiased, self.trained_on_debiased = FVU(), FVU()
        self._rows: Tensor | None = None  # indices of the rows of the step before, (B,) int64
        self._codes: Tensor | None = None  # codes of these rows, (B, K) in compressed rows
        self._restored: dict[str, Tensor] = {}
        self.start_from(init_from)

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction (B, d_in) and the codes (B, K) of data (B, d_in)."""
        return self.net.reconstruct(x)

    def embedding_rows(self) -> dict[str, Tensor]:
        """The atoms, `W_dec` (K, d_in)."""
        return {"W_dec": self.net.W_dec}

    def setup(self, stage: str) -> None:
        """Refuse data and precisions that do not fit; before training, fit mean, scale and first atoms to the data."""
        super().setup(stage)
        self.check_data(self.net.d_in)
        precision, device = self.trainer.precision, self.trainer.strategy.root_device
        if precision in ("16-true", "bf16-true"):
            raise ZooError(
                f"trainer.precision {precision} rounds the data and the atoms by far more than the tolerance "
                f"{self.net.tolerance:g} of certified codes; use 32-true, 64-true or bf16-mixed"
            )
        if stage == "fit" and getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise ZooError(
                "trainer.precision 16-mixed scales gradients, but this model trains without gradients; use 32-true or "
                "bf16-mixed"
            )
        if float64_device(device) != device:
            raise ZooError(
                f"codes are certified in float64, which {device.type} does not have; use --trainer.accelerator cpu"
            )
        if stage == "fit":
            self.initialise_from_data()

    def initialise_from_data(self) -> None:
        """Call `initialise` once, with all training rows of a matrix and their weights, or else with a sample."""
        data = datamodule(self.trainer)
        if offered(data, "train_rows") is None:
            super().initialise_from_data()
        elif not self.fitted:
            rows = require(self, data, WeightedRows)
            self.initialise(rows.W_E[rows.train_rows], rows.row_weights[rows.train_rows])

    def initialise(self, sample: Tensor, weight: Tensor | None = None) -> None:
        """Fit mean and scale to vectors (n, d_in) with weights (n,), 1 by default.

        Without `init_from`, random vectors of nonzero weight then become the first atoms.
        """
        self.net.fit_moments(sample, weight)
        if self.init_from is None:
            generator = torch.Generator()  # with several processes, Lightning resets the global generator before this
            generator.set_state(self._random_state)
            self.net.take_as_atoms(sample if weight is None else sample[weight > 0], generator)
        self.fitted.fill_(True)

    def configure_optimizers(self) -> MethodOfOptimalDirections:
        """Return the optimizer that makes the dictionary steps."""
        self.dictionary_step = MethodOfOptimalDirections(self.net.W_dec, self.memory, self.replace_below)
        return self.dictionary_step

    def on_train_start(self) -> None:
        """Give the sums of a resumed run to the optimizer."""
        self.dictionary_step.load_sums(self._restored)

    @torch.no_grad()
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Solve for the codes of the batch, then update the dictionary.

        The loss that is logged is the mean objective of the rows before the update, in units of scale².
        """
        batch = as_vectors(batch)
        x, weight, rows = batch["x"], batch.get("weight"), batch.get("row")
        solution = self.net.solve(x, self._start(rows))
        size = self.net.scale.double().square()
        squares = self.dictionary_step.add(solution.codes, x, self.net.b_dec, weight)
        share = torch.ones_like(solution.gap) if weight is None else weight.double()
        sums = {
            "rows": share.sum(),
            "loss": share @ solution.objective / size,
            "fvu": share @ squares / size,
            "l0": share @ solution.codes.crow_indices().diff().double(),
            "uncertified": (~solution.certified).sum().double(),
        }
        over_ranks = torch.stack(list(sums.values()))
        if is_initialized():
            all_reduce(over_ranks)
        totals = dict(zip(sums, over_ranks, strict=True))
        values = {name: totals[name] / totals["rows"] for name in ("loss", "fvu", "l0")}
        cast(LightningOptimizer, self.optimizers()).step()
        if rows is not None and self.memory == 0:
            scaled = solution.codes.values() * self.dictionary_step.sizes.to(x.dtype)[solution.codes.col_indices()]
            shape = (len(x), self.net.n_atoms)
            self._rows = rows
            self._codes = csr(solution.codes.crow_indices(), solution.codes.col_indices(), scaled, shape)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and self.global_step % every == 0:
            logged = values | {"uncertified": totals["uncertified"], "replaced": float(self.dictionary_step.replaced)}
            self.log_dict({f"train/{name}": float(value) for name, value in logged.items()})
        return {"loss": values["loss"].float()}

    @torch.no_grad()
    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Accumulate the metrics, including the errors of debiased codes.

        Returns:
            `x`, `x_hat` and `codes`; and for every row `relative_gap`, its duality gap as a share of its objective, and
            `certified`, whether the gap is within `tolerance`.
        """
        batch = as_evaluated(batch)
        x, held_out = batch["x"], batch["held_out"]
        solution = self.net.solve(x)
        free = least_squares_on_support(x - self.net.b_dec, self.net.W_dec.detach(), solution.codes)
        x_hat, x_free = self.net.decode(solution.codes), self.net.decode(free)
        self.held_out_debiased.update(x_free[held_out], x[held_out])
        self.trained_on_debiased.update(x_free[~held_out], x[~held_out])
        codes = solution.codes.to_dense()
        self.update_metrics(batch, x_hat, codes)
        relative = solution.gap / solution.objective.clamp(min=torch.finfo(torch.float64).tiny)
        return {"x": x, "x_hat": x_hat, "codes": codes, "relative_gap": relative, "certified": solution.certified}

    def log_metrics(self, split: str) -> None:
        """Log the metrics, and the fraction of variance unexplained (FVU) of debiased codes.

        Debiased codes are least-squares codes on the same atoms, without the penalty.
        """
        super().log_metrics(split)
        for name, metric in ((split, self.held_out_debiased), (f"{split}_train", self.trained_on_debiased)):
            fvu = metric.compute()
            metric.reset()
            if not fvu.isnan():
                self.log(f"{name}/fvu_debiased", fvu.float())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state that the next step needs: the codes of all ranks, or the sums of earlier batches."""
        super().on_save_checkpoint(checkpoint)
        if self.memory:
            checkpoint["dictionary_step"] = self.dictionary_step.sums()
        parts: list[Any] = [self._coded()]
        if is_initialized():
            parts *= get_world_size()
            all_gather_object(parts, self._coded())
        if None not in parts:
            checkpoint["codes"] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read these codes or sums; `on_train_start` gives the sums to the optimizer."""
        super().on_load_checkpoint(checkpoint)
        self._restored = checkpoint.get("dictionary_step", {})
        if (codes := checkpoint.get("codes")) is not None:
            starts = F.pad(codes["counts"].cumsum(0), (1, 0))
            self._rows = codes["rows"]
            self._codes = csr(starts, codes["atoms"], codes["values"], (len(self._rows), self.net.n_atoms))

    def _coded(self) -> dict[str, Tensor] | None:
        if self._rows is None or self._codes is None:
            return None
        parts = {"counts": self._codes.crow_indices().diff(), "atoms": self._codes.col_indices()}
        return {name: t.cpu() for name, t in (parts | {"rows": self._rows, "values": self._codes.values()}).items()}

    def _start(self, rows: Tensor | None) -> Tensor | None:
        """Return the codes that these rows had in the step before, or None if a row was not in its batch."""
        if rows is None or self._rows is None or self._codes is None:
            return None
        known, codes = self._rows.to(rows.device), self._codes.to(rows.device)
        if torch.equal(rows, known):
            return codes
        place = rows.new_full((int(max(rows.max(), known.max())) + 1,), -1)
        place[known] = torch.arange(len(known), device=rows.device)
        return chosen_rows(codes, place[rows]) if (place[rows] >= 0).all() else None
