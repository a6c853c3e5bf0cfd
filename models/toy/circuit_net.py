"""Many circuits in depth that share one network, with errors from their interference."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.network import Network

Correction = Literal["none", "ideal", "learned"]


class CircuitNet(Network):
    """T circuits in superposition: every layer stores all their states in N dimensions, for several seeds at once.

    The state of a circuit has `d_state` numbers and norm 1 if the circuit is active; otherwise it is 0. A layer stores
    the sum over circuits of code times state, with random unit vectors of N dimensions as codes, new in every layer.
    Each circuit reads its state by its code, corrects it, and applies its own map, which keeps the norm. (Bushnaq &
    Mendel 2024, "Circuits in Superposition: Compressing many small neural networks into one", have the problem.)

    Args:
        n_circuits: Number of circuits T.
        n_slots: Number of dimensions N in which the states are stored, for each of their numbers.
        d_state: Numbers in a state.
        depth: Number of layers after the first reading.
        kind: Map of every circuit in every layer. `rotation`: a random rotation, of states in random directions.
            `boolean`: a random permutation with random signs, of states +-1 / sqrt(d_state).
        correction: What is done with a state before its map. `none`: nothing. `ideal`: states of inactive circuits are
            set to 0, and Boolean ones are rounded; states of active circuits are not scaled. `learned`: the state is
            multiplied by scale * sigmoid(slope (|state|² - threshold)), with three numbers for each layer. A scale
            below 1 lowers the squared error, so that it can be smaller than with `ideal`.
        n_seeds: Number of networks.

    Raises:
        ZooError: If a size is out of range, or the kind or the correction is unknown.
    """

    not_for = "Claims about trained language models: it is a network whose right answers are known."
    codes: Tensor  # (depth + 1, n_seeds, n_circuits, n_slots)
    maps: Tensor  # (depth, n_seeds, n_circuits, d_state, d_state)
    states: Tensor  # first states of all circuits, (n_seeds, n_circuits, d_state)

    def __init__(
        self,
        n_circuits: int,
        n_slots: int = 64,
        d_state: int = 4,
        depth: int = 3,
        kind: Literal["rotation", "boolean"] = "rotation",
        correction: Correction = "none",
        n_seeds: int = 1,
    ) -> None:
        super().__init__()
        sizes = {"n_circuits": n_circuits, "n_slots": n_slots, "d_state": d_state, "depth": depth, "n_seeds": n_seeds}
        for name, size in sizes.items():
            if size < 1:
                raise ZooError(f"{name} is {size}; it must be at least 1")
        if kind not in ("rotation", "boolean") or correction not in ("none", "ideal", "learned"):
            raise ZooError(
                f"kind is {kind!r} and correction {correction!r}; kind must be rotation or boolean, and correction "
                "none, ideal or learned"
            )
        self.config: dict[str, Any] = sizes | {"kind": kind, "correction": correction}
        S, T = n_seeds, n_circuits
        self.register_buffer("codes", F.normalize(torch.randn(depth + 1, S, T, n_slots), dim=3))
        if kind == "rotation":
            maps, states = torch.linalg.qr(torch.randn(depth, S, T, d_state, d_state))[0], torch.randn(S, T, d_state)
        else:
            order = torch.rand(depth, S, T, d_state).argsort(3)
            maps = F.one_hot(order, d_state).float() * (2.0 * torch.randint(2, (depth, S, T, d_state, 1)) - 1)
            states = 2.0 * torch.randint(2, (S, T, d_state)) - 1
        self.register_buffer("maps", maps)
        self.register_buffer("states", F.normalize(states, dim=2))
        learned = correction == "learned"
        self.threshold = nn.Parameter(torch.full((S, depth), 0.5), requires_grad=learned)
        self.log_slope = nn.Parameter(torch.full((S, depth), 2.0), requires_grad=learned)
        self.scale = nn.Parameter(torch.ones(S, depth), requires_grad=learned)

    def forward(self, active: Tensor) -> tuple[Tensor, Tensor]:
        """Run all circuits.

        Args:
            active: Which circuits are active, (n_seeds, B, n_circuits), 0 or 1.

        Returns:
            The states that are read at every depth, before correction, and the correct states, both
            (depth + 1, n_seeds, B, n_circuits, d_state).
        """
        truth = active.unsqueeze(-1) * self.states.unsqueeze(1)  # (S, B, T, k)
        state, read, wanted = truth, [], [truth]
        for layer, codes in enumerate(self.codes):
            stored = torch.einsum("sbtk,stn->sbnk", state, codes)
            read.append(torch.einsum("sbnk,stn->sbtk", stored, codes))
            if layer < len(self.maps):
                corrected = self._correct(read[-1], active, layer)
                state, truth = (torch.einsum("stij,sbtj->sbti", self.maps[layer], x) for x in (corrected, truth))
                wanted.append(truth)
        return torch.stack(read), torch.stack(wanted)

    def _correct(self, state: Tensor, active: Tensor, layer: int) -> Tensor:
        if self.config["correction"] == "none":
            return state
        if self.config["correction"] == "ideal":
            state = state.sign() / state.shape[-1] ** 0.5 if self.config["kind"] == "boolean" else state
            return state * active.unsqueeze(-1)
        slope, threshold, scale = (
            parameter[:, layer].view(-1, 1, 1, 1) for parameter in (self.log_slope.exp(), self.threshold, self.scale)
        )
        return state * scale * torch.sigmoid(slope * (state.square().sum(-1, keepdim=True) - threshold))
