"""The LightningModule that trains networks to compute the products of all pairs of sparse real inputs."""

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import PearsonCorrCoef

from zoo.active_inputs import FixedActive
from zoo.errors import ZooError
from zoo.metrics import CASES, CaseErrors
from zoo.models.optimizers import AdamLinear
from zoo.models.toy.neurons import Neuron, NeuronNet
from zoo.models.toy.pair_bounds import least_balanced_loss, least_squared_loss
from zoo.models.toy.products import sign_readoff
from zoo.models.toy.readoffs import all_pairs
from zoo.models.toy_module import ToyModule
from zoo.protocols import SyntheticFeatures, datamodule, require


class UniversalProducts(ToyModule):
    """Trains narrow networks to compute x_i x_j for every pair of sparse inputs.

    With inputs 0 and 1, the product is AND. The loss is |error|^q, balanced: the mean over pairs of the mean where both
    inputs are on, plus the mean elsewhere. The plain loss is the mean over all inputs and pairs, divided by the share
    of pairs that are on. If inputs are +-1 or 1, both losses of y = 0 are 1 (`loss_zero_map`), and those of one neuron
    each for d pairs are 1 - d / pairs (`loss_dedicated`). For q = 2 and a fixed number of inputs that are on,
    `loss_bound` is a lower bound for every network of this width. Validation also logs the errors by case, and
    `computed`, the sum over pairs of the squared correlation of output and product.

    Args:
        n_features: Number of inputs m. On the command line it follows the data.
        d_in: Number of inputs of the network: the dimension in which the features are superposed, or 0 if the inputs
            are the features. On the command line it follows the data.
        d_mlp: Number of neurons d.
        n_seeds: Number of independent networks. On the command line it follows the data.
        neuron: Kind of neurons, see `NeuronNet`.
        bias: Whether neurons have biases, initially uniform in [-`largest_bias`, `largest_bias`].
        largest_bias: Largest initial bias.
        output_bias: Whether outputs have biases. In the bounds they count as one more neuron, unless inputs are +-1:
            the mean of the products is then 0, and biases do not help.
        first_layer: `trained`: initially Gaussian. `gaussian` and `signs`: random weights that are not trained.
        readoff: `trained`, or `written`: the exact unbiased readoff of `sign_readoff` for weights +-1.
        q: Exponent of the error, at least 1.
        balanced: Whether the loss is balanced between pairs that are on and off; False for the plain loss.
        optimizer: Optimizer and learning-rate schedule. The default learning rate is 1e-2.
        init_from: Checkpoint of the same sizes whose weights training starts from: the name of a pretrained checkpoint,
            a folder, a Lightning .ckpt or hf:org/repo[@revision]. None for random weights.

    Raises:
        ZooError: If a number is out of range, or the readoff cannot be written.
    """

    net: NeuronNet

    def __init__(
        self,
        n_features: int = 0,
        d_in: int = 0,
        d_mlp: int = 40,
        n_seeds: int = 1,
        neuron: Neuron = "relu",
        bias: bool = True,
        largest_bias: float = 0.0,
        output_bias: bool = True,
        first_layer: Literal["trained", "gaussian", "signs"] = "trained",
        readoff: Literal["trained", "written"] = "trained",
        q: float = 2.0,
        balanced: bool = True,
        optimizer: AdamLinear = AdamLinear(),  # noqa: B008 - a default that --help can show, never mutated
        init_from: str | None = None,
    ) -> None:
        super().__init__(n_seeds, optimizer)
        shape = {"n_features": n_features, "d_in": d_in, "d_mlp": d_mlp, "n_seeds": n_seeds, "neuron": neuron}
        how: dict[str, Any] = {"bias": bias, "largest_bias": largest_bias, "first_layer": first_layer}
        how |= {"output_bias": output_bias, "readoff": readoff, "q": q, "balanced": balanced}
        self.save_plain_hyperparameters(**shape, **how, optimizer=optimizer, init_from=init_from)
        if not 1 <= q < float("inf"):
            raise ZooError(f"q is {q}; it must be a number of at least 1")
        if largest_bias < 0 or (largest_bias and not bias):
            raise ZooError(
                f"largest_bias is {largest_bias} with bias {bias}; it must be at least 0, and 0 without bias"
            )
        if n_features < 2:
            raise ZooError(f"n_features is {n_features}; products of pairs need at least 2")
        if readoff == "written" and (
            first_layer != "signs" or bias or not output_bias or neuron in ("linear", "bilinear")
        ):
            raise ZooError(
                "a written readoff requires first_layer signs, bias false, output_bias true, and neurons relu, "
                "absolute or square"
            )
        self.pairs: Tensor
        self.register_buffer("pairs", all_pairs(n_features), persistent=False)
        self.net = NeuronNet(d_in or n_features, d_mlp, self.pairs.shape[1], n_seeds, neuron, bias, output_bias)
        with torch.no_grad():
            if first_layer == "signs":
                self.net.W_in.bernoulli_(0.5).mul_(2).sub_(1)
            if self.net.b_in is not None:
                self.net.b_in.uniform_(-largest_bias, largest_bias)
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(first_layer == "trained" or name in ("W_out", "b_out"))
        self.start_from(init_from)
        self.readoff, self.q, self.balanced = readoff, q, balanced
        self.metric, self.correlation = CaseErrors(n_seeds), PearsonCorrCoef(num_outputs=n_seeds * self.pairs.shape[1])
        self.case_errors: list[dict[str, Tensor]] = []
        self.computed = torch.full((n_seeds,), torch.nan, dtype=torch.float64)
        self.share_on = float("nan")

    def setup(self, stage: str) -> None:
        """Refuse data that do not match, and write the readoff if it is to be written."""
        super().setup(stage)
        data = require(self, datamodule(self.trainer), SyntheticFeatures)
        self.share_on = float(data.active.pair_probabilities(data.n_features)[3])
        if not 0 < self.share_on < 1:
            raise ZooError("data.active never turns on two inputs at once, or always all; change n_active")
        if self.readoff == "trained":
            return
        if not isinstance(data.active, FixedActive) or data.values == "signed" or data.active.n_groups != 1:
            raise ZooError(
                "a written readoff requires data.active FixedActive in one group, and data.values one or sign"
            )
        if stage == "fit":
            raise ZooError("with readoff written nothing is trained; measure it with `python -m zoo validate`")
        self._write_readoff(data.active.n_active)

    def _write_readoff(self, s: int) -> None:
        """Set the readoff to factor w_i w_j (h - offset) / d."""
        known, W = sign_readoff(self.net.neuron, s), self.net.W_in.detach()  # type: ignore[arg-type]
        signs = W[:, self.pairs[0]] * W[:, self.pairs[1]]  # (S, P, d)
        self.net.W_out.data = known.factor * signs.mT / W.shape[2]
        assert self.net.b_out is not None
        self.net.b_out.data = -known.offset * self.net.W_out.data.sum(1)

    def embedding_rows(self) -> dict[str, Tensor]:
        """Return the weights from every input to the neurons, (n_seeds * inputs, d_mlp)."""
        return {"W_in": self.net.W_in.flatten(0, 1)}

    def outputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the outputs (n_seeds, B, pairs) and the neurons' activations (n_seeds, B, d_mlp)."""
        h = self.net.hidden(self.per_seed(batch["x"]))
        return self.net.read(h), h

    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the products of all pairs, (n_seeds, B, pairs)."""
        by_input = batch["f"].T.contiguous()  # rows are read from memory much faster than columns
        products = by_input.index_select(0, self.pairs[0]) * by_input.index_select(0, self.pairs[1])
        return self.per_seed(products.T.contiguous())

    def losses(self, batch: dict[str, Tensor], y: Tensor) -> Tensor:
        """Return the loss of every seed, (n_seeds,)."""
        target = self.targets(batch)
        error = y - target
        size = error.square() if self.q == 2 else error.abs().pow(self.q)
        if not self.balanced:
            return size.mean((1, 2)) / self.share_on
        on, off = y.new_full((), self.share_on), y.new_full((), 1 - self.share_on)
        return (size / torch.where(target != 0, on, off)).mean((1, 2))

    def reference_losses(self) -> dict[str, float]:
        """Return the exact losses of y = 0 and of dedicated neurons, and the bound where it is known."""
        data = require(self, datamodule(self.trainer), SyntheticFeatures)
        d, M = self.net.config["d_mlp"], self.pairs.shape[1]
        if data.values not in ("one", "sign"):
            return {}
        found = {"zero_map": 1.0} | ({"dedicated": 1 - d / M} if d < M else {})
        plain = isinstance(data.active, FixedActive) and data.active.n_groups == 1
        if self.q == 2 and plain and (self.share_on <= 0.5 or not self.balanced):
            least = least_balanced_loss if self.balanced else least_squared_loss
            s: int = data.active.n_active
            signed = data.values == "sign"
            neurons = d if signed or self.net.b_out is None else d + 1
            found["bound"] = least(data.n_features, neurons, s, signed)
        return found

    def update_own_metrics(self, batch: dict[str, Tensor], y: Tensor, target: Tensor) -> None:
        """Accumulate the errors by case, and the correlations of outputs and products."""
        if not y.shape[1]:
            return
        on = (self.per_seed(batch["f"]) != 0).to(torch.uint8)
        self.metric.update(y - target, 2 * on[..., self.pairs[0]] + on[..., self.pairs[1]])
        self.correlation.update(*(values.transpose(0, 1).flatten(1).float() for values in (y, target)))

    def log_own_metrics(self, split: str) -> None:
        """Log the rms error of each case and the number of computed products, over seeds, and reset the metrics."""
        self.case_errors = [self.metric.compute()]
        self.metric.reset()
        for i, case in enumerate(CASES):
            if not (value := self.case_errors[0]["rms"][:, i].square().mean().sqrt()).isnan():
                self.log(f"{split}/rms_error_{case}", value.float())
        found = self.correlation.compute().double().square().nan_to_num(0.0)
        self.correlation.reset()
        self.computed = found.reshape(self.n_seeds, -1).sum(1)
        self.log(f"{split}/computed", self.computed.mean().float())
