"""The LightningModule that trains networks to compute Boolean gates in superposition."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.metrics import CASES, CaseErrors
from zoo.models.optimizers import AdamLinear
from zoo.models.toy.gate_loss import gate_losses
from zoo.models.toy.gates import GateNet
from zoo.models.toy_module import ToyModule
from zoo.precision import at_least_float32
from zoo.protocols import SyntheticFeatures, datamodule, require

# The frequencies of the cases of deeper gates are estimated from this number of vectors. They come from a stream of
# random numbers that is used neither for training nor for evaluation.
SAMPLE, SAMPLE_STREAM = 1 << 16, (0, 4)


class UniversalGates(ToyModule):
    """Trains narrow networks to compute a gate of every pair of Boolean inputs (U-AND, U-XOR), and ORs of the gates.

    A case is the pair of inputs of a gate: 00, 01, 10 or 11. The loss is the mean over gates of w_c |y - t|^p, summed
    over depths; w_c is the weight of the case c divided by the frequency of the case. Validation logs the errors
    separately for each case: when inputs are sparse, nearly all gates have the case 00, which would dominate a mean.

    Args:
        n_features: Number of Boolean features m. On the command line it follows the data.
        d_in: Number of inputs of the network: the dimension in which the features are superposed, or 0 if the inputs
            are the features. On the command line it follows the data.
        d_mlp: Number of neurons d of every network.
        n_seeds: Number of seeds, each with its own networks. On the command line it follows the data.
        gate: Gate that is computed for every pair.
        trained_first_layer: Whether the first layer is trained. If not, it keeps its random initial weights, and only
            the readoff is trained.
        depth: Number of depths. Depth 1 computes the gates; each further depth computes ORs of the previous outputs.
        n_groups: Number of networks at depth 1. The features are divided equally among them.
        error_correction: Whether errors of outputs are removed before the next depth reads them.
        p: Exponent of the error, at least 1.
        case_weights: Relative weights of the cases in the loss. `natural`: proportional to their frequencies.
            `zero_one`: the cases with target 0 have the same total weight as those with target 1. `four`: all four
            cases have equal weights.
        weight_on_ones: Factor on the weight of cases with target 1.
        optimizer: Optimizer and learning-rate schedule. The default learning rate is 1e-2.
        init_from: Checkpoint of the same sizes whose weights training starts from: the name of a pretrained checkpoint,
            a folder, a Lightning .ckpt or hf:org/repo[@revision]. None for random weights.

    Raises:
        ZooError: If a number is out of range.
    """

    net: GateNet
    metrics_by_depth: Any  # nn.ModuleList of CaseErrors

    def __init__(
        self,
        n_features: int = 0,
        d_in: int = 0,
        d_mlp: int = 100,
        n_seeds: int = 1,
        gate: Literal["and", "or", "xor"] = "and",
        trained_first_layer: bool = True,
        depth: int = 1,
        n_groups: int = 1,
        error_correction: bool = False,
        p: float = 2.0,
        case_weights: Literal["natural", "zero_one", "four"] = "four",
        weight_on_ones: float = 1.0,
        optimizer: AdamLinear = AdamLinear(),  # noqa: B008 - a default that --help can show, never mutated
        init_from: str | None = None,
    ) -> None:
        super().__init__(n_seeds, optimizer)
        for name, value, least in (("p", p, 1), ("weight_on_ones", weight_on_ones, 0)):
            if not least <= value < float("inf"):
                raise ZooError(f"{name} is {value}; it must be a number of at least {least}")
        shape = {"n_features": n_features, "d_mlp": d_mlp, "gate": gate, "n_seeds": n_seeds, "d_in": d_in}
        shape |= {"depth": depth, "n_groups": n_groups, "error_correction": error_correction}
        loss = {"p": p, "case_weights": case_weights, "weight_on_ones": weight_on_ones}
        self.save_plain_hyperparameters(
            **shape, **loss, trained_first_layer=trained_first_layer, optimizer=optimizer, init_from=init_from
        )
        self.net = GateNet(**shape)  # type: ignore[arg-type]
        self.start_from(init_from)
        if not trained_first_layer:
            for stage in self.net.stages:
                stage.freeze_first_layer()
        self.p, self.case_weights, self.weight_on_ones = p, case_weights, weight_on_ones
        self.metrics_by_depth = nn.ModuleList(CaseErrors(n_seeds) for _ in range(depth))
        self.case_errors: list[dict[str, Tensor]] = []  # errors in the last validation, one entry per depth
        self.register_buffer("weights", torch.full((depth, 4), torch.nan), persistent=False)
        self.weights: Tensor  # w_c, the weight of every case divided by its frequency, (depth, 4)

    def setup(self, stage: str) -> None:
        """Refuse data that do not match, and compute the weights w_c from the frequencies of the cases."""
        super().setup(stage)
        data = require(self, datamodule(self.trainer), SyntheticFeatures)
        if data.values != "one":
            raise ZooError(f"gates require Boolean inputs: data.values is {data.values}, not one")
        if (groups := data.active.n_groups) not in (1, self.net.n_groups):
            raise ZooError(f"data.active has {groups} groups of inputs, but model.n_groups is {self.net.n_groups}")
        probabilities = [data.active.pair_probabilities(data.n_features)]
        if probabilities[0][3] == 0:
            raise ZooError(
                "data.active never turns on the two inputs of a gate at once, so no gate can be learned; raise n_active"
            )
        if len(self.net.stages) > 1:
            per_seed = max(1, SAMPLE // data.n_seeds)
            f = data.vectors(SAMPLE_STREAM, 0, per_seed, per_seed)["f"].to(self.weights.device)  # still the CPU
            probabilities += [torch.bincount(case.flatten(), minlength=4) / case.numel() for case in self._cases(f)[1:]]
        self.weights = torch.stack(
            [self._weights(P.double().cpu(), self.net.gates(t)[1].double().cpu()) for t, P in enumerate(probabilities)]
        ).to(self.weights.device, torch.float32)

    def embedding_rows(self) -> dict[str, Tensor]:
        """Return the first-layer weights of every input, (n_seeds * n_groups * inputs per network, d_mlp)."""
        return {"W_in": self.net.stages[0].W_in.flatten(0, 1)}

    def outputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the outputs of all depths (n_seeds, B, gates) and their neurons' activations (n_seeds, B, neurons)."""
        hidden, y = zip(*self.net.hidden_and_outputs(self.per_seed(batch["x"])), strict=True)
        return _all(y), _all(hidden)

    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the correct values of all gates of all depths, (n_seeds, B, gates)."""
        return self.per_seed(_all([self.net.gates(t)[1][case.int()] for t, case in enumerate(self._cases(batch["f"]))]))

    def losses(self, batch: dict[str, Tensor], y: Tensor) -> Tensor:
        """Return the weighted loss of every seed, summed over depths, (n_seeds,)."""
        total = y.new_zeros(self.n_seeds)
        for t, (out, (place, case)) in enumerate(zip(self._by_depth(y), self.net.active(batch["f"]), strict=True)):
            table, weights = self.net.gates(t)[1].to(y.dtype), self.weights[t].to(y.dtype)
            total = total + gate_losses(out, place, table[case], weights[case], weights[0], self.p)
        return total

    def mean_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of every seed like `losses`, by dense operations, (n_seeds,).

        Raises:
            ZooError: If there are several depths: no gradients pass from one to the one before, so that training does
                not descend on one loss.
        """
        if len(self.net.stages) > 1:
            raise ZooError("gates of several depths do not descend on one loss; set model.depth to 1")
        (i, j), table = self.net.gates(0)
        on = (batch["f"] > 0).long()
        case = self.per_seed(2 * on[:, i] + on[:, j])
        error = (at_least_float32(self.outputs(batch)[0]) - table[case]).abs()
        return (self.weights[0][case] * error**self.p).mean((1, 2))

    def update_own_metrics(self, batch: dict[str, Tensor], y: Tensor, target: Tensor) -> None:
        """Accumulate the errors by case."""
        errors, cases = self._by_depth(y - target), self._cases(batch["f"])
        for metric, error, case in zip(self.metrics_by_depth, errors, cases, strict=True):
            metric.update(error, self.per_seed(case))

    def log_own_metrics(self, split: str) -> None:
        """Log the mean and the largest error of each case at every depth, averaged over seeds, and reset them."""
        self.case_errors = [metric.compute() for metric in self.metrics_by_depth]
        for t, (metric, found) in enumerate(zip(self.metrics_by_depth, self.case_errors, strict=True)):
            metric.reset()
            prefix = f"{split}/" if t == 0 else f"{split}/depth{t + 1}_"
            for i, case in enumerate(CASES):
                for name in ("mean", "max"):
                    if not (value := found[name][:, i].mean()).isnan():
                        self.log(f"{prefix}{name}_error_{case}", value.float())

    def _cases(self, f: Tensor) -> list[Tensor]:
        """Return the case, 0 to 3, of every gate for features (N, m): for every depth, (N, P) uint8."""
        found = []
        for t, (place, case) in enumerate(self.net.active(f)):
            dense = torch.zeros(len(f), self.net.gates(t)[0].shape[1], dtype=torch.uint8, device=f.device)
            dense.view(-1)[place] = case.to(torch.uint8)
            found.append(dense)
        return found

    def _by_depth(self, values: Tensor) -> tuple[Tensor, ...]:
        return values.split([self.net.gates(t)[0].shape[1] for t in range(len(self.net.stages))], dim=2)

    def _weights(self, probability: Tensor, table: Tensor) -> Tensor:
        """Return the weight of every case divided by its frequency, (4,) float64; 0 for a case that never occurs."""
        if self.case_weights == "natural":
            weight = probability.clone()
        elif self.case_weights == "zero_one":
            weight = torch.stack([probability * (table == value) for value in (0, 1)])
            weight = (weight / weight.sum(1, keepdim=True).clamp(min=1e-300)).sum(0)
        else:
            weight = torch.full_like(probability, 0.25)
        weight = (weight * self.weight_on_ones**table).where(probability > 0, 0)
        return (weight / (weight.sum() * probability)).nan_to_num(0.0)


def _all(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)
