"""Interference between circuits that share one network: how its size grows with depth.

There are T circuits, of which z are active: their state has mean square 1, and that of the others is 0. Every layer
stores the states in N dimensions, along fresh random unit vectors, so that two of them have mean squared inner product
1/N. A state is read by the inner product with its vector, then processed by a map that keeps its norm (a rotation), and
stored again. The errors are mean squares.

`block_network` is a construction without random vectors: N² circuits share N blocks of neurons, without any error if
one circuit is active. The problem is that of Bushnaq & Mendel (2024, "Circuits in Superposition: Compressing many small
neural networks into one").
"""

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError


def interference(depth: int, n_slots: int, n_circuits: int, n_active: int) -> float:
    """Return the mean squared error of an active circuit's state after `depth` layers without any correction.

    With m the squared error of an active circuit and S the sum of squares of all states, inactive ones included,

        m_0 = (z - 1) / N,  S_0 = z (1 + (T - 1) / N),
        m_(l+1) = m_l (1 - 1/N) + (S_l - 1) / N,  S_(l+1) = S_l (1 + (T - 1) / N).

    Depth 0 is the state that is read for the first time. A network of D neurons has N = D / d places for circuits of d
    neurons. With T = (D / d)² = N² circuits, one of them active, the error is m_1 = (T - 1) / N² = 1 - 1 / N² after the
    first layer already, as large as the state: T ~ (D / d)² needs idle circuits silenced, as in
    `interference_of_active` and `block_network`.

    Raises:
        ZooError: If a number is out of range.
    """
    _check(depth, n_slots, n_circuits, n_active)
    z, N, T = n_active, n_slots, n_circuits
    m, S = (z - 1) / N, z * (1 + (T - 1) / N)
    for _ in range(depth):
        m, S = m * (1 - 1 / N) + (S - 1) / N, S * (1 + (T - 1) / N)
    return m


def interference_of_active(depth: int, n_slots: int, n_active: int) -> float:
    """Return the same error if inactive circuits are set to 0 after every reading: (1 + (z - 1) / N)^(depth + 1) - 1.

    It does not depend on the number of circuits.

    Raises:
        ZooError: If a number is out of range.
    """
    _check(depth, n_slots, n_active, n_active)
    return (1 + (n_active - 1) / n_slots) ** (depth + 1) - 1


class BlockNetwork(NamedTuple):
    """N² circuits in one ReLU network, h' = ReLU(h W) in every layer, see `block_network`.

    Args:
        weights: Weights of every layer, (depth, D, D) with D = N (d + 2).
        n_blocks: Number of blocks N.
        d_state: Number of neurons d of a circuit.
    """

    weights: Tensor
    n_blocks: int
    d_state: int

    def inputs(self, states: Tensor, active: Tensor) -> Tensor:
        """Return the first activations (B, D) for states (B, N, N, d) of circuits (a, b), and which are active."""
        stored = (states * active.unsqueeze(3)).sum(2).flatten(1)
        idle = [1 - (active.sum(other) > 0).to(states.dtype) for other in (2, 1)]
        return torch.cat([stored, *idle], 1)

    def states(self, h: Tensor, layer: int) -> Tensor:
        """Return the states (B, N, N, d) that circuits (a, b) read from activations (B, D) after so many layers."""
        blocks = h[:, : self.n_blocks * self.d_state].unflatten(1, (self.n_blocks, self.d_state))
        shape = (-1, self.n_blocks, self.n_blocks, -1)
        return (blocks.unsqueeze(1) if layer % 2 else blocks.unsqueeze(2)).expand(shape)


def block_network(maps: Tensor, largest: float) -> BlockNetwork:
    """Return one ReLU network that runs N² circuits in N blocks of neurons, without error if one circuit is active.

    Circuit (a, b) computes x -> ReLU(x W_l[a, b]) in layer l. Its state is in block a before layers 0, 2, ..., and in
    block b before layers 1, 3, ..., so that every circuit has its own block of weights, from block a to block b or
    back. Two more sets of N neurons keep which a and which b are idle, and silence their blocks. Without them, all
    circuits that share the block of the active one would write into the others. With D = N (d + 2) neurons, there are
    T = N² ~ (D / d)² circuits. With one active circuit the error is exactly 0, apart from rounding. With two, (a, b)
    and (a', b'), block b also receives the state of block a' through the weights of the idle circuit (a', b).

    Args:
        maps: Weights W (depth, N, N, d, d). A bias is a neuron that is always 1.
        largest: Largest absolute value of a number in a state before the first layer.

    Raises:
        ZooError: If the shape does not fit, or `largest` is not positive.
    """
    if maps.ndim != 5 or maps.shape[1] != maps.shape[2] or maps.shape[3] != maps.shape[4] or not largest > 0:
        raise ZooError(
            f"maps has shape {tuple(maps.shape)} and largest is {largest}; the shape must be (depth, N, N, d, d), and "
            "largest positive"
        )
    depth, N, _, d, _ = maps.shape
    weights = maps.new_zeros(depth, N * (d + 2), N * (d + 2))
    blocks = torch.arange(N * d).unflatten(0, (N, d))
    for layer, W in enumerate(maps):
        to_b = layer % 2 == 0
        weights[layer, : N * d, : N * d] = (W if to_b else W.transpose(0, 1)).permute(0, 2, 1, 3).reshape(N * d, N * d)
        largest *= float(W.abs().sum(2).max())  # no state is larger after this layer
        for kept in range(2 * N):
            weights[layer, N * d + kept, N * d + kept] = 1.0
        for block, neurons in enumerate(blocks):
            weights[layer, N * d + N * to_b + block, neurons] = -2.0 * largest
    return BlockNetwork(weights, N, d)


def block_errors(maps: Tensor, states: Tensor, active: Tensor, silenced: bool = True) -> Tensor:
    """Return the squared error of active circuits in `block_network` over the square of their states, (depth + 1,).

    Both are sums over circuits and rows of the batch. Depth 0 is the state before the first layer. If all states of
    active circuits are 0, the value is nan.

    Args:
        maps: Weights of the circuits, (depth, N, N, d, d).
        states: First states of all circuits, (B, N, N, d).
        active: Which circuits are active, (B, N, N), 0 or 1.
        silenced: Whether the network knows which blocks are idle, and silences them.

    Raises:
        ZooError: If the shapes do not fit.
    """
    network, on = block_network(maps, float(states.abs().max())), active.unsqueeze(3)
    h, errors = network.inputs(states, active), []
    if not silenced:
        h[:, network.n_blocks * network.d_state :] = 0
    for layer in range(len(maps) + 1):
        error = ((network.states(h, layer) - states) * on).square().sum()
        errors.append(error / (states * on).square().sum())
        if layer < len(maps):
            h = torch.relu(h @ network.weights[layer])
            states = torch.relu(torch.einsum("bpqi,pqij->bpqj", states, maps[layer]))
    return torch.stack(errors)


def _check(depth: int, n_slots: int, n_circuits: int, n_active: int) -> None:
    if depth < 0 or n_slots < 1 or not 1 <= n_active <= n_circuits:
        raise ZooError(
            f"depth is {depth}, n_slots {n_slots}, n_circuits {n_circuits} and n_active {n_active}; depth must be at "
            "least 0, n_slots at least 1, and n_active 1 to n_circuits"
        )
