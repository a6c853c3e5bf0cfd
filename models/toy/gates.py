"""Networks that compute the Boolean gates of many pairs of features at once, in superposition."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.active_inputs import ActiveInputs
from zoo.errors import ZooError
from zoo.models.toy.readoffs import all_pairs, explicit_readoff, truth_table
from zoo.network import Network


class GateLayer(nn.Module):
    """Two-layer networks h = ReLU(x W_in + b_in), y = h W_out + b_out, several of them at once.

    The first layer is initialised as in the theory, with standard normal weights and no bias. The initial readoff is
    small.

    Args:
        d_in: Number of inputs.
        d_mlp: Number of neurons d.
        n_out: Number of outputs P.
        n_nets: Number of networks n.
    """

    def __init__(self, d_in: int, d_mlp: int, n_out: int, n_nets: int = 1) -> None:
        super().__init__()
        self.W_in = nn.Parameter(torch.randn(n_nets, d_in, d_mlp))
        self.b_in = nn.Parameter(torch.zeros(n_nets, d_mlp))
        self.W_out = nn.Parameter(torch.randn(n_nets, d_mlp, n_out) / d_mlp)
        self.b_out = nn.Parameter(torch.zeros(n_nets, n_out))

    def hidden(self, x: Tensor) -> Tensor:
        """Return the neurons' activations (n_nets, B, d_mlp) on inputs (n_nets, B, d_in)."""
        return F.relu(torch.baddbmm(self.b_in.unsqueeze(1), x, self.W_in))

    def read(self, h: Tensor) -> Tensor:
        """Return the outputs (n_nets, B, n_out) for activations of the neurons (n_nets, B, d_mlp)."""
        return torch.baddbmm(self.b_out.unsqueeze(1), h, self.W_out)

    def freeze_first_layer(self) -> None:
        """Freeze the first layer, so that only the readoff is trained."""
        self.W_in.requires_grad_(False)
        self.b_in.requires_grad_(False)


class GateNet(Network):
    """Gates of all pairs of Boolean features, and ORs of the gates, for several seeds at once.

    At depth 1, the features are divided among `n_groups` narrow networks, each of which computes the gate of all pairs
    of its features (U-AND and U-XOR: Hänni et al. 2024, "Mathematical Models of Computation in Superposition"). At
    every further depth, one network reads all outputs of the previous depth, including their noise, and computes ORs of
    two: output k is the OR of inputs k and k + n // 2. Each depth is trained only for its own gates; no gradient
    reaches the previous depth. With `error_correction`, a layer of two neurons per value is inserted between depths,
    ReLU(2z - 1/2) - ReLU(2z - 3/2), which removes errors below 1/4.

    Args:
        n_features: Number of features m.
        d_mlp: Number of neurons d of every network.
        gate: `and`, `or` or `xor`.
        n_seeds: Number of seeds, each of which has its own networks.
        d_in: Number of inputs: the dimension in which the features are superposed, or 0 if the inputs are the features
            themselves.
        depth: Number of depths; 1 means the gates alone, without ORs.
        n_groups: Number of networks at depth 1.
        error_correction: Whether errors of outputs are removed before the next depth reads them.

    Raises:
        ZooError: If the sizes do not fit together.
    """

    not_for = "Claims about trained language models: it is a network whose right answers are known."

    stages: Any  # nn.ModuleList of GateLayer, by depth

    def __init__(
        self,
        n_features: int,
        d_mlp: int,
        gate: str = "and",
        n_seeds: int = 1,
        d_in: int = 0,
        depth: int = 1,
        n_groups: int = 1,
        error_correction: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"n_features": n_features, "d_mlp": d_mlp, "n_seeds": n_seeds, "depth": depth, "n_groups": n_groups}
        for name, size in sizes.items():
            if size < 1:
                raise ZooError(f"{name} is {size}; it must be at least 1")
        if d_in < 0:
            raise ZooError(f"d_in is {d_in}; it must not be negative")
        self.config: dict[str, Any] = sizes | {"gate": gate, "d_in": d_in or n_features}
        self.config["error_correction"] = error_correction
        in_group, left = divmod(n_features, n_groups)
        if left or in_group < 2:
            raise ZooError(f"{n_features} features cannot be divided into {n_groups} equal groups of at least 2")
        if n_groups > 1 and self.config["d_in"] != n_features:
            raise ZooError("features in superposition cannot be divided into groups; set n_groups to 1")
        self.n_groups, self.n_seeds, self.error_correction = n_groups, n_seeds, error_correction
        small = all_pairs(in_group)
        starts = torch.arange(n_groups).repeat_interleave(small.shape[1]) * in_group
        pairs, tables = [small.repeat(1, n_groups) + starts], [truth_table(gate)]
        self.stages = nn.ModuleList(
            [GateLayer(self.config["d_in"] // n_groups, d_mlp, small.shape[1], n_seeds * n_groups)]
        )
        for deeper in range(2, depth + 1):
            n_in = pairs[-1].shape[1]
            if n_in < 2:
                raise ZooError(f"depth is {depth}, and depth {deeper} has only one input left; use a smaller depth")
            half = torch.arange(n_in // 2)
            pairs.append(torch.stack([half, half + n_in // 2]))
            tables.append(truth_table("or"))
            self.stages.append(GateLayer(n_in, d_mlp, len(half), n_seeds))
        for t, (pair, table) in enumerate(zip(pairs, tables, strict=True)):
            self.register_buffer(f"pairs_{t}", pair, persistent=False)
            self.register_buffer(f"table_{t}", table.float(), persistent=False)
            n_in = n_features if t == 0 else pairs[t - 1].shape[1]
            for name, members in _gates_of_inputs(pair, n_in).items():
                self.register_buffer(f"{name}_{t}", members, persistent=False)

    def gates(self, t: int) -> tuple[Tensor, Tensor]:
        """Return the pairs (2, P) of depth t + 1, as indices of its inputs, and their truth table (4,)."""
        return self.get_buffer(f"pairs_{t}"), self.get_buffer(f"table_{t}")

    def hidden_and_outputs(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return, for every depth, the activations (n_seeds, B, ·) and outputs (n_seeds, B, P).

        Inputs are (n_seeds, B, d_in).
        """
        found = []
        for t, stage in enumerate(self.stages):
            groups = self.n_groups if t == 0 else 1
            split = x.unflatten(2, (groups, -1)).movedim(2, 1).flatten(0, 1)  # (n_seeds * groups, B, ·)
            h = stage.hidden(split)
            h, y = (_join(values, groups) for values in (h, stage.read(h)))
            found.append((h, y))
            x = corrected(y.detach()) if self.error_correction else y.detach()
        return found

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the outputs (n_seeds, B, P) of every depth.

        Inputs are (n_seeds, B, d_in), or (B, d_in) if they are the same for all seeds.
        """
        x = x.expand(self.n_seeds, *x.shape[-2:])
        return [y for _, y in self.hidden_and_outputs(x)]

    @torch.no_grad()
    def construct(self, *active: ActiveInputs) -> None:
        """Replace the readoff of every depth by the explicit readoff (`explicit_readoff`), and the biases by 0.

        Args:
            active: For every depth, the distribution of the inputs of a network that are on at once.

        Raises:
            ZooError: If the features are superposed, because the weights from each feature are then not known.
        """
        if self.config["d_in"] != self.config["n_features"]:
            raise ZooError("the features are superposed: use explicit_readoff and its weights() with phi W_in")
        for t, (stage, inputs) in enumerate(zip(self.stages, active, strict=True)):
            pairs, n_in = self.gates(t)[0][:, : stage.W_out.shape[2]], stage.W_in.shape[1]
            gate = self.config["gate"] if t == 0 else "or"
            stage.W_out.copy_(explicit_readoff(gate, inputs, n_in).weights(stage.W_in, pairs))
            stage.b_in.zero_()
            stage.b_out.zero_()

    def active(self, f: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the gates whose inputs are not 00, for Boolean features (N, m).

        Returns:
            For every depth, the indices of these gates in a flattened (N, P) matrix, and their cases: 1, 2 and 3 for
            01, 10 and 11; (K,) int64 each.
        """
        values, found = f > 0, []
        for t in range(len(self.stages)):
            pairs, table = self.gates(t)
            gate, partner, is_first = (self.get_buffer(f"{name}_{t}") for name in ("gate", "partner", "is_first"))
            row, on = values.nonzero(as_tuple=True)
            both = values[row.unsqueeze(1), partner[on]]  # (inputs that are on, gates of an input)
            gate, is_first = gate[on], is_first[on]
            once = ((gate >= 0) & (is_first | ~both)).nonzero(as_tuple=True)  # list a gate with inputs 11 only once
            place = (row.unsqueeze(1) * pairs.shape[1] + gate)[once]
            case = (1 + is_first.long() + (is_first & both))[once]
            found.append((place, case))
            values = torch.zeros(len(f), pairs.shape[1], dtype=torch.bool, device=f.device)
            values.view(-1)[place] = table[case] > 0
        return found


def corrected(z: Tensor) -> Tensor:
    """Return values without errors below 1/4: 0 below 1/4, 1 above 3/4, and linear in between."""
    return F.relu(2 * z - 0.5) - F.relu(2 * z - 1.5)


def _join(values: Tensor, groups: int) -> Tensor:
    """Reshape values from (n_seeds * groups, B, n) to (n_seeds, B, groups * n)."""
    return values.unflatten(0, (-1, groups)).movedim(1, 2).flatten(2)


def _gates_of_inputs(pairs: Tensor, n_in: int) -> dict[str, Tensor]:
    """Return, for each input, its gates (-1 for none), its partner in each, and whether it is the first input.

    Each table is (n_in, largest number of gates of an input).
    """
    inputs, gates = pairs.flatten(), torch.arange(pairs.shape[1]).repeat(2)
    partners, is_first = pairs.flip(0).flatten(), torch.arange(2 * pairs.shape[1]) < pairs.shape[1]
    order = inputs.argsort(stable=True)
    counts = torch.bincount(inputs, minlength=n_in)
    column = torch.arange(len(inputs)) - (counts.cumsum(0) - counts)[inputs[order]]
    tables = {
        "gate": torch.full((n_in, int(counts.max())), -1),
        "partner": torch.zeros(n_in, int(counts.max()), dtype=torch.int64),
        "is_first": torch.zeros(n_in, int(counts.max()), dtype=torch.bool),
    }
    for table, values in zip(tables.values(), (gates, partners, is_first), strict=True):
        table[inputs[order], column] = values[order]
    return tables
