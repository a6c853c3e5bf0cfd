"""The LightningModule that trains toy models of superposition."""

from typing import Literal

import torch
from torch import Tensor

from zoo.active_inputs import FixedActive
from zoo.errors import ZooError
from zoo.models.optimizers import AdamLinear
from zoo.models.toy.superposition import SuperpositionNet, one_sparse_loss
from zoo.models.toy_module import ToyModule
from zoo.precision import at_least_float32
from zoo.protocols import SyntheticFeatures, datamodule, offered, require


class ToySuperposition(ToyModule):
    """Trains networks to represent more features than they have dimensions (Elhage et al. 2022).

    The loss of a vector is the sum over features of importance times squared error.

    Args:
        n_features: Number of features n. On the command line it follows the data.
        d_hidden: Number of hidden dimensions m.
        n_seeds: Number of independent networks. On the command line it follows the data.
        task: `identity`: y = ReLU(Wᵀ W x + b) should equal x. `absolute`: y = ReLU(W_out ReLU(W_in x) + b) should equal
            |x|.
        importance: The importance of feature i = 0, 1, ... is importance^i; with 1.0 all features count equally. A list
            has one number per seed.
        loss: `sampled` is the mean loss of the vectors of a batch. `one_sparse` is the exact expected loss of vectors
            with one active feature, uniform in [0, 1]; the vectors of the batches are then not used.
        optimizer: Optimizer and learning-rate schedule. The default learning rate is 1e-2.
        init_from: Checkpoint of the same sizes whose weights training starts from: the name of a pretrained checkpoint,
            a folder, a Lightning .ckpt or hf:org/repo[@revision]. None for random weights.

    Raises:
        ZooError: If a number is out of range, or `one_sparse` does not fit the task or the data.
    """

    net: SuperpositionNet

    def __init__(
        self,
        n_features: int = 0,
        d_hidden: int = 2,
        n_seeds: int = 1,
        task: Literal["identity", "absolute"] = "identity",
        importance: float | list[float] = 1.0,
        loss: Literal["sampled", "one_sparse"] = "sampled",
        optimizer: AdamLinear = AdamLinear(),  # noqa: B008 - a default that --help can show, never mutated
        init_from: str | None = None,
    ) -> None:
        super().__init__(n_seeds, optimizer)
        sizes = {"n_features": n_features, "d_hidden": d_hidden, "n_seeds": n_seeds, "task": task}
        self.save_plain_hyperparameters(
            **sizes, importance=importance, loss=loss, optimizer=optimizer, init_from=init_from
        )
        self.net = SuperpositionNet(n_features, d_hidden, n_seeds, task)
        self.start_from(init_from)
        base = torch.tensor(importance, dtype=torch.float32).reshape(-1, 1)  # (1 or n_seeds, 1)
        if not (base > 0).all() or len(base) not in (1, n_seeds):
            raise ZooError(
                f"importance is {importance}; it must be positive: one number, or one for each of {n_seeds} seeds"
            )
        self.importance: Tensor
        self.register_buffer("importance", base ** torch.arange(n_features), persistent=False)
        self.loss = loss
        if loss == "one_sparse" and task != "identity":
            raise ZooError("loss one_sparse is defined only for task identity; use sampled")

    def setup(self, stage: str) -> None:
        """Refuse data that do not match the loss or the task."""
        super().setup(stage)
        if datamodule(self.trainer) is None:
            return
        data = require(self, datamodule(self.trainer), SyntheticFeatures)
        if offered(data, "d_in") not in (None, data.n_features):
            raise ZooError("ToySuperposition requires x = f, features that are not superposed: omit data.d_superposed")
        if self.net.config["task"] == "absolute" and data.values != "signed":
            raise ZooError(f"task absolute requires values of both signs: data.values is {data.values}, not signed")
        if self.net.config["task"] == "identity" and data.values == "signed":
            raise ZooError("task identity ends in a ReLU and cannot give negative values: data.values is signed")
        alone = isinstance(data.active, FixedActive) and data.active.n_active * data.active.n_groups == 1
        if self.loss == "one_sparse" and not (alone and data.values == "uniform"):
            raise ZooError("loss one_sparse requires data.values uniform and data.active FixedActive with n_active 1")

    def embedding_rows(self) -> dict[str, Tensor]:
        """Return the directions of the features of all seeds, (n_seeds * n_features, d_hidden)."""
        return {"W_in": self.net.W_in.flatten(0, 1)}

    def features(self) -> Tensor:
        """Return the directions of the features, (n_seeds, n_features, d_hidden)."""
        return self.net.W_in

    def outputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the outputs (n_seeds, B, n_features) and the hidden activations (n_seeds, B, d_hidden)."""
        h = self.net.hidden(self.per_seed(batch["x"]))
        return self.net.read(h), h

    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the absolute values of the vectors, (n_seeds, B, n_features): x itself where x is nonnegative."""
        return self.per_seed(batch["x"]).abs()

    def training_losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of every seed, (n_seeds,); the exact one needs no outputs."""
        if self.loss == "one_sparse":
            return self.losses(batch, batch["x"])
        return super().training_losses(batch)

    def losses(self, batch: dict[str, Tensor], y: Tensor) -> Tensor:
        """Return the mean loss of every seed, (n_seeds,)."""
        if self.loss == "one_sparse":
            return one_sparse_loss(at_least_float32(self.net.W_in), at_least_float32(self.net.b), self.importance)
        return ((y - self.targets(batch)).square() * self.importance.unsqueeze(1)).sum(2).mean(1)
