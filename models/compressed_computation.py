"""The LightningModule that trains few neurons to compute many functions ReLU(x_i)."""

from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torchmetrics import PearsonCorrCoef

from zoo.active_inputs import BernoulliActive
from zoo.errors import ZooError
from zoo.models.optimizers import AdamLinear
from zoo.models.toy import compressed_computation as exact
from zoo.models.toy.compressed_net import CompressedNet
from zoo.models.toy_module import ToyModule
from zoo.precision import at_least_float32
from zoo.protocols import SyntheticFeatures, datamodule, require


class CompressedComputation(ToyModule):
    """Trains d neurons to compute ReLU(x_i) + (M x)_i for n > d sparse inputs (Braun et al. 2025).

    The loss is the mean over outputs of |error|^q. Beside it, validation logs the exact losses of y = 0
    (`loss_zero_map`) and of one neuron each for d functions (`loss_dedicated`), and for q = 2 a lower bound for every
    network of this width (`loss_bound`). Labels contain M x in all three, also in a residual stream, where M is
    I - W_E W_Eᵀ. It also logs `computed`, the sum over features of the squared correlation of
    output and ReLU(x_i): the number of functions that are computed. It is at most d in the limit of rare inputs. With a
    mixing matrix, single outputs can look computed that are not.

    Args:
        n_features: Number of inputs n. On the command line it follows the data.
        d_mlp: Number of neurons d.
        n_seeds: Number of independent networks. On the command line it follows the data.
        q: Exponent of the error, at least 1.
        mixing: Factor of the mixing matrix: M is this times (W_E W_Eᵀ - I) for random unit rows W_E (n, d_embed). It
            may be negative. The labels of a residual stream whose embedding is W_E correspond to -1.
        d_embed: Number of dimensions of W_E.
        residual: Whether neurons read a residual stream x W_E and write to it, and outputs are read from it by W_Eᵀ.
        bias: Whether neurons have biases.
        optimizer: Optimizer and learning-rate schedule. The default learning rate is 1e-2.
        init_from: Checkpoint of the same sizes whose weights training starts from: the name of a pretrained checkpoint,
            a folder, a Lightning .ckpt or hf:org/repo[@revision]. None for random weights.

    Raises:
        ZooError: If a number is out of range.
    """

    net: CompressedNet

    def __init__(
        self,
        n_features: int = 0,
        d_mlp: int = 50,
        n_seeds: int = 1,
        q: float = 2.0,
        mixing: float = 0.0,
        d_embed: int = 1000,
        residual: bool = False,
        bias: bool = False,
        optimizer: AdamLinear = AdamLinear(),  # noqa: B008 - a default that --help can show, never mutated
        init_from: str | None = None,
    ) -> None:
        super().__init__(n_seeds, optimizer)
        shape = {"n_features": n_features, "d_mlp": d_mlp, "n_seeds": n_seeds, "mixing": mixing, "d_embed": d_embed}
        shape |= {"residual": residual, "bias": bias}
        self.save_plain_hyperparameters(**shape, q=q, optimizer=optimizer, init_from=init_from)
        if not 1 <= q < float("inf"):
            raise ZooError(f"q is {q}; it must be a number of at least 1")
        self.net = CompressedNet(**shape)  # type: ignore[arg-type]
        self.start_from(init_from)
        self.q = q
        self.correlation = PearsonCorrCoef(num_outputs=n_seeds * n_features)
        self.computed = torch.full((n_seeds,), torch.nan, dtype=torch.float64)

    def setup(self, stage: str) -> None:
        """Refuse data that do not match."""
        super().setup(stage)
        data = require(self, datamodule(self.trainer), SyntheticFeatures)
        if data.values != "signed":
            raise ZooError(f"inputs must be uniform in [-1, 1]: data.values is {data.values}, not signed")
        if not isinstance(data.active, BernoulliActive):
            raise ZooError("inputs must be independent: data.active must be BernoulliActive")

    def embedding_rows(self) -> dict[str, Tensor]:
        """Return the weights from every input to the neurons, (n_seeds * inputs, d_mlp)."""
        return {"W_in": self.net.W_in.flatten(0, 1)}

    def outputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the outputs (n_seeds, B, n_features) and the neurons' activations (n_seeds, B, d_mlp)."""
        x = self.per_seed(batch["x"])
        h = self.net.hidden(x)
        return self.net.read(x, h), h

    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        """Return ReLU(x) + M x, (n_seeds, B, n_features)."""
        x = at_least_float32(self.per_seed(batch["x"]))
        return x.relu() + x @ self.net.M.mT.to(x.dtype)

    def losses(self, batch: dict[str, Tensor], y: Tensor) -> Tensor:
        """Return the mean |error|^q of every seed, (n_seeds,)."""
        return (y - self.targets(batch)).abs().pow(self.q).mean((1, 2))

    def reference_losses(self) -> dict[str, float]:
        """Return the exact losses of y = 0 and of dedicated neurons and, for q = 2, the bound.

        For q other than 2 there are none if labels are mixed.
        """
        data = require(self, datamodule(self.trainer), SyntheticFeatures)
        shares = np.atleast_1d(data.active.n_active) / data.n_features  # one for all seeds, or one for each
        lines = [self._lines(data.n_features, float(p)) for p in shares]
        return {name: fmean(one[name] for one in lines) for name in lines[0]}

    def mixing_matrix(self) -> Tensor | None:
        """Return the matrix M of the labels that the neurons have to learn, (n_features, n_features); None if it is 0.

        In a residual stream it is I - W_E W_Eᵀ, because the outputs contain W_E W_Eᵀ x.
        """
        net = self.net
        if net.config["residual"]:
            return torch.eye(len(net.W_E), device=net.W_E.device) - net.W_E @ net.W_E.T
        return net.M if net.config["mixing"] else None

    def _lines(self, n: int, p: float) -> dict[str, float]:
        """Return the reference losses for inputs that are not 0 with probability p."""
        d, M = self.net.config["d_mlp"], self.mixing_matrix()
        if self.q == 2:
            found = {"zero_map": p * exact.zero_map_loss(M)}
            if d < n:
                found["dedicated"] = p * (
                    exact.dedicated_loss(d, n, p) if M is None else exact.dedicated_mixed_loss(d, M)
                )
                found["bound"] = p * exact.least_loss(d, n, p, M)
            return found
        if M is not None:
            return {}
        moment = p / (2 * (self.q + 1))  # E[ReLU(x)^q]
        return {"zero_map": moment} | ({"dedicated": (1 - d / n) * moment} if d < n else {})

    def update_own_metrics(self, batch: dict[str, Tensor], y: Tensor, target: Tensor) -> None:
        """Accumulate the correlations of outputs and clean labels."""
        if y.shape[1]:
            clean = self.per_seed(batch["x"]).relu()
            self.correlation.update(*(values.transpose(0, 1).flatten(1).float() for values in (y, clean)))

    def log_own_metrics(self, split: str) -> None:
        """Log the number of functions that are computed, averaged over seeds, and reset the correlations."""
        found = self.correlation.compute().double().square().nan_to_num(0.0)
        self.correlation.reset()
        self.computed = found.reshape(self.n_seeds, -1).sum(1)
        self.log(f"{split}/computed", self.computed.mean().float())
