"""The LightningModule that trains linear maps of small rank under the loss |error|^q."""

import torch
from torch import Tensor

from zoo.active_inputs import FixedActive
from zoo.errors import ZooError
from zoo.models.optimizers import AdamLinear
from zoo.models.toy import power_loss as exact
from zoo.models.toy.neurons import NeuronNet
from zoo.models.toy_module import ToyModule
from zoo.protocols import SyntheticFeatures, datamodule, require


class PowerSuperposition(ToyModule):
    """Trains linear maps y = x W_in W_out of rank d to reproduce one of n features, under the loss |error|^q.

    The loss of a vector is the sum over outputs of |error|^q, with the weight `zero_weight` for outputs that should be
    0. It is computed exactly over all vectors with one feature on, so that the vectors of batches are not used in
    training. Beside it, validation logs the exact losses of y = 0 (`loss_zero_map`), of one dimension each for d
    features (`loss_dedicated`) and, if there is one, of an equiangular frame (`loss_equiangular`). With squared errors
    and equal weights, sharing dimensions costs as much as dedicating them.

    Args:
        n_features: Number of features n. On the command line it follows the data.
        d_hidden: Number of dimensions d.
        n_seeds: Number of independent networks. On the command line it follows the data.
        q: Exponent of the error, above 1.
        zero_weight: Weight of outputs that should be 0.
        optimizer: Optimizer and learning-rate schedule. The default learning rate is 1e-2.
        init_from: Checkpoint of the same sizes whose weights training starts from: the name of a pretrained checkpoint,
            a folder, a Lightning .ckpt or hf:org/repo[@revision]. None for random weights.

    Raises:
        ZooError: If a number is out of range.
    """

    net: NeuronNet

    def __init__(
        self,
        n_features: int = 0,
        d_hidden: int = 3,
        n_seeds: int = 1,
        q: float = 4.0,
        zero_weight: float = 1.0,
        optimizer: AdamLinear = AdamLinear(),  # noqa: B008 - a default that --help can show, never mutated
        init_from: str | None = None,
    ) -> None:
        super().__init__(n_seeds, optimizer)
        shape = {"n_features": n_features, "d_hidden": d_hidden, "n_seeds": n_seeds}
        self.save_plain_hyperparameters(**shape, q=q, zero_weight=zero_weight, optimizer=optimizer, init_from=init_from)
        if not (1 < q < float("inf") and 0 <= zero_weight < float("inf")):
            raise ZooError(f"q is {q} and zero_weight is {zero_weight}; q must be above 1, zero_weight at least 0")
        self.net = NeuronNet(n_features, d_hidden, n_features, n_seeds, "linear", bias=False, output_bias=False)
        self.start_from(init_from)
        self.q, self.zero_weight = q, zero_weight

    def setup(self, stage: str) -> None:
        """Refuse data other than single features with the value 1."""
        super().setup(stage)
        data = require(self, datamodule(self.trainer), SyntheticFeatures)
        alone = isinstance(data.active, FixedActive) and data.active.n_active * data.active.n_groups == 1
        if not alone or data.values != "one":
            raise ZooError("PowerSuperposition requires data.values one and data.active FixedActive with n_active 1")

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
        """Return the features, (n_seeds, B, n_features)."""
        return self.per_seed(batch["x"])

    def losses(self, batch: dict[str, Tensor], y: Tensor) -> Tensor:
        """Return the exact loss of every seed, the mean over all features, (n_seeds,)."""
        return power_losses(self.net.W_in @ self.net.W_out, self.q, self.zero_weight)

    def training_losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the exact loss of every seed, (n_seeds,), which needs no outputs."""
        return self.losses(batch, batch["x"])

    def reference_losses(self) -> dict[str, float]:
        """Return the exact losses of y = 0, of dedicated dimensions, and of an equiangular frame if there is one."""
        n, d = self.net.config["d_in"], self.net.config["d_mlp"]
        if d >= n:
            return {"zero_map": 1.0}
        found = {"zero_map": 1.0, "dedicated": exact.dedicated_loss(n, d)}
        try:
            exact.equiangular_frame(n, d)
        except ZooError:
            return found
        return found | {"equiangular": exact.equiangular_loss(n, d, self.q, self.zero_weight)}


def power_losses(Y: Tensor, q: float, zero_weight: float) -> Tensor:
    """Return the loss of linear maps whose outputs for feature i are row i of Y (S, n, n), (S,)."""
    eye = torch.eye(Y.shape[-1], dtype=Y.dtype, device=Y.device)
    weight = eye + zero_weight * (1 - eye)
    return (weight * (Y - eye).abs().pow(q)).sum(2).mean(1)
