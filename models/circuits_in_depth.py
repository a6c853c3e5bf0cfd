"""The LightningModule that trains the error correction of circuits in superposition, and measures their errors."""

from statistics import fmean as mean
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.active_inputs import FixedActive
from zoo.errors import ZooError
from zoo.metrics import SeedMeans
from zoo.models.optimizers import AdamLinear
from zoo.models.toy.circuit_net import CircuitNet, Correction
from zoo.models.toy.circuits import interference, interference_of_active
from zoo.models.toy_module import ToyModule
from zoo.protocols import SyntheticFeatures, datamodule, require


class CircuitsInDepth(ToyModule):
    """Trains the correction of circuits that share one network in depth (Bushnaq & Mendel 2024).

    The loss is the mean over depths of the squared error with which the state of an active circuit is read. Beside it,
    validation logs the exact losses without correction (`loss_uncorrected`) and, for rotations, with all inactive
    circuits set to 0 (`loss_ideal`); and the error at every depth, `depth0_error` for the first reading.

    Args:
        n_features: Number of circuits T. On the command line it follows the data.
        n_slots: Number of dimensions N in which the states are stored, for each of their numbers.
        d_state: Numbers in a state.
        depth: Number of layers after the first reading.
        kind: Map of every circuit in every layer, see `CircuitNet`.
        correction: What is done with a state before its map, see `CircuitNet`. Only `learned` can be trained.
        n_seeds: Number of independent networks. On the command line it follows the data.
        optimizer: Optimizer and learning-rate schedule. The default learning rate is 1e-2.
        init_from: Checkpoint of the same sizes whose weights training starts from: the name of a pretrained checkpoint,
            a folder, a Lightning .ckpt or hf:org/repo[@revision]. None for random weights.

    Raises:
        ZooError: If a number is out of range.
    """

    net: CircuitNet
    by_depth: Any  # nn.ModuleList of SeedMeans

    def __init__(
        self,
        n_features: int = 0,
        n_slots: int = 64,
        d_state: int = 4,
        depth: int = 3,
        kind: Literal["rotation", "boolean"] = "rotation",
        correction: Correction = "learned",
        n_seeds: int = 1,
        optimizer: AdamLinear = AdamLinear(),  # noqa: B008 - a default that --help can show, never mutated
        init_from: str | None = None,
    ) -> None:
        super().__init__(n_seeds, optimizer)
        shape = {"n_slots": n_slots, "d_state": d_state, "depth": depth, "kind": kind, "correction": correction}
        self.save_plain_hyperparameters(
            n_features=n_features, n_seeds=n_seeds, **shape, optimizer=optimizer, init_from=init_from
        )
        self.net = CircuitNet(n_features, n_seeds=n_seeds, **shape)  # type: ignore[arg-type]
        self.start_from(init_from)
        self.by_depth = torch.nn.ModuleList(SeedMeans(n_seeds) for _ in range(depth + 1))
        self.depth_errors = torch.full((depth + 1, n_seeds), torch.nan, dtype=torch.float64)

    def setup(self, stage: str) -> None:
        """Refuse data that do not match, and to train what has no parameters."""
        super().setup(stage)
        data = require(self, datamodule(self.trainer), SyntheticFeatures)
        single = isinstance(data.active, FixedActive) and data.active.n_groups == 1 and data.active.n_active > 0
        if not single or data.values != "one":
            raise ZooError("CircuitsInDepth requires data.values one and data.active FixedActive in one group")
        if stage == "fit" and self.net.config["correction"] != "learned":
            raise ZooError(
                f"with correction {self.net.config['correction']} nothing is trained; measure it with `python -m zoo "
                "validate`"
            )

    def outputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the states read at the last depth, and those of all depths, (n_seeds, B, numbers) each."""
        read = self.net(self.per_seed(batch["x"]))[0]
        return read[-1].flatten(2), read.permute(1, 2, 0, 3, 4).flatten(2)

    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the correct states at the last depth, (n_seeds, B, numbers)."""
        return self.net(self.per_seed(batch["x"]))[1][-1].flatten(2)

    def losses(self, batch: dict[str, Tensor], y: Tensor) -> Tensor:
        """Return the loss of every seed, (n_seeds,)."""
        return self._errors(batch).mean(0)

    def training_losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of every seed, (n_seeds,), from one pass through the network."""
        return self._errors(batch).mean(0)

    def reference_losses(self) -> dict[str, float]:
        """Return the exact losses without correction and, for rotations, with all inactive circuits set to 0."""
        data = require(self, datamodule(self.trainer), SyntheticFeatures)
        depths, N, z = range(self.net.config["depth"] + 1), self.net.config["n_slots"], int(data.active.n_active)
        found = {"uncorrected": mean(interference(depth, N, data.n_features, z) for depth in depths)}
        if self.net.config["kind"] == "rotation":
            found["ideal"] = mean(interference_of_active(depth, N, z) for depth in depths)
        return found

    def update_own_metrics(self, batch: dict[str, Tensor], y: Tensor, target: Tensor) -> None:
        """Accumulate the squared errors of active circuits at every depth."""
        if n := y.shape[1]:
            for metric, error in zip(self.by_depth, self._errors(batch), strict=True):
                metric.update(error, n)

    def log_own_metrics(self, split: str) -> None:
        """Log the squared error of active circuits at every depth, averaged over seeds, and reset the metrics."""
        self.depth_errors = torch.stack([metric.compute().reshape(self.n_seeds) for metric in self.by_depth])
        for depth, metric in enumerate(self.by_depth):
            metric.reset()
            self.log(f"{split}/depth{depth}_error", self.depth_errors[depth].mean().float())

    def _errors(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean squared error of the states of active circuits, (depth + 1, n_seeds)."""
        active = self.per_seed(batch["x"])
        read, wanted = self.net(active)
        return ((read - wanted).square().sum(4) * active).sum((2, 3)) / active.sum((1, 2))
