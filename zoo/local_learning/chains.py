"""The loop that advances all chains, records their losses, and can be resumed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.local_learning.hmc import HMC
from zoo.local_learning.losses import Target
from zoo.local_learning.samplers import SGLD, State

Sampler = SGLD | HMC


class Checkpoint:
    """A file from which interrupted chains continue bit for bit.

    Args:
        path: The file, or None for none.
        every: Number of steps between two writes.
        settings: Everything that the chains depend on, in words. A file of other settings is refused.
    """

    def __init__(self, path: str | Path | None, every: int, settings: str) -> None:
        if every < 1:
            raise ZooError(f"checkpoint_every is {every}: it must be at least 1")
        self.path, self.every, self.settings = path and Path(path), every, settings

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """Return the last state, or None if there is no file.

        Raises:
            ZooError: If the file is damaged or was written with other settings.
        """
        if not self.path or not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location=device, weights_only=True)
            same = saved["settings"] == self.settings
        except Exception as error:
            raise ZooError(f"{self.path} is not a file of interrupted chains: {error}") from error
        if not same:
            raise ZooError(f"{self.path} belongs to other chains: its model, data or settings differ; use another file")
        return saved

    def write(self, saved: dict[str, Any]) -> None:
        """Write the state atomically: a reader finds this state or the one before."""
        assert self.path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        torch.save(saved | {"settings": self.settings}, partial)
        os.replace(partial, self.path)


def temper(t: int, sampler: Sampler, n_beta: float, anneal: bool) -> float:
    """Return the factor of nβ at step t.

    With `anneal`, nβ rises geometrically from 1 to its value during the first two thirds of burn-in.
    """
    rising = 2 * sampler.burn_in / 3
    return n_beta ** (t / rising - 1) if anneal and t < rising and n_beta > 1 else 1.0


def run_chains(
    target: Target,
    sampler: Sampler,
    W: Tensor,
    step_size: float,
    generator: torch.Generator,
    batch_size: int | None,
    loss_of_rows: Tensor | None,
    anneal: bool,
    checkpoint: Checkpoint,
) -> tuple[State, Tensor]:
    """Return the last state of all chains and the losses at all steps, (burn_in + steps, C).

    Args:
        target: The density.
        sampler: The sampler.
        W: Parameter vectors at which chains start, (C, d).
        step_size: ε.
        generator: Generator on the device of W for noise and batches.
        batch_size: Number of rows of a batch, or None for all rows.
        loss_of_rows: Loss of every row at the centre, (rows,), if there are batches. A batch's loss at the centre is
            subtracted from its loss, and that of all data added. This does not change the mean over batches.
        anneal: Whether nβ rises during burn-in, see `temper`.
        checkpoint: The file of interrupted chains.
    """
    total, rows = sampler.burn_in + sampler.steps, target.losses.rows
    saved = checkpoint.read(W.device)
    if saved:
        state, traces, begun = saved["state"], saved["traces"], saved["step"]
        generator.set_state(saved["generator"].cpu())
    else:
        state, begun = sampler.start(target, W.clone(), step_size), 0
        traces = W.new_full((total, *target.losses.total(W).shape), torch.nan)
    for t in range(begun, total):
        index = None
        if batch_size:
            assert rows
            index = torch.randint(rows, (len(W), batch_size), generator=generator, device=W.device)
        factor = temper(t, sampler, target.n_beta, anneal)
        values = sampler.advance(state, target, generator, index, factor, t < sampler.burn_in, t)
        if index is not None and loss_of_rows is not None:
            values = values - loss_of_rows[index].mean(1) + loss_of_rows.mean(0)
        traces[t] = values
        if checkpoint.path and ((t + 1) % checkpoint.every == 0 or t + 1 == total):
            now = {"state": state, "traces": traces, "step": t + 1, "generator": generator.get_state()}
            checkpoint.write(now)
    return state, traces
