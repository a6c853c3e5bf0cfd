"""Callback that measures the local learning coefficient during training."""

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from zoo import estimates
from zoo.callbacks.embedding_drift import EmbeddingDrift
from zoo.callbacks.learning_coefficient_picture import draw_learning_coefficient
from zoo.callbacks.progress import RunProgress
from zoo.callbacks.sample_of_training import n_points, sample_of_training, seed_by_seed
from zoo.callbacks.tables_and_pictures import logged_step, markdown_table, show, write_table
from zoo.errors import ZooError
from zoo.estimates import Estimate
from zoo.local_learning import HMC, SGLD, LocalLearningCoefficient, RMSPropSGLD, local_learning_coefficient
from zoo.local_learning.in_training import problems_in_training, value_in_training
from zoo.local_learning.side_by_side import local_learning_coefficients
from zoo.protocols import HasMeanLoss, TracksRows, missing_in, offered, require

SAMPLERS = {"sgld": SGLD, "rmsprop": RMSPropSGLD, "hmc": HMC}


class LearningCoefficient(L.Callback):
    """Measures the local learning coefficient of any module with a `mean_loss`, on a fixed sample of the training data.

    See `zoo.local_learning` for the convention. The estimate is nβ (E[L(w)] - L(w*)), where L is the module's mean loss
    per data point on the sample, w* the parameters at this step, and w is sampled near them. It is measured with every
    validation or, with `steps` or `every_n_steps`, after these optimizer steps. Each measurement logs `llc/mean`, the
    ends of its 95 % interval `llc/low` and `llc/high`, `llc/n`, `llc/n_beta`, and `llc/loss`, the loss at w*. If a
    diagnostic of the chains fails, or they find lower losses than that at w*, nothing is logged for this step, and a
    note gives the reason when it first occurs.

    For networks that are trained side by side, such as the seeds of toys, every network has its own estimate. Then
    `llc/mean` is the mean over the networks whose diagnostics are good, with the interval over these networks.

    With every checkpoint and at the end, it writes `learning_coefficient/steps.csv` into the run's folder, with a line
    per step and network, and `steps.png`, with the loss and, if `EmbeddingDrift` is among the callbacks, the drift.

    Training is not disturbed: weights are the same bits with and without this callback. Dropout is off in the
    measurement. With several processes, the first one measures, and the others wait for it.

    Args:
        examples: Number of examples of the sample: sequences, vectors, or vectors of every seed. It is drawn from the
            first training batches.
        count: What a data point of a language model is. With `tokens`, n is the number of tokens of the sample; with
            `sequences`, n is the number of sequences, and the loss is that of a whole sequence. It has no effect on
            other models.
        every_n_steps: Number of optimizer steps between two measurements; null for every validation or `steps`.
        steps: Optimizer steps after which it is measured, in addition to `every_n_steps`; 0 is before training.
        parameters: Names of the parameters that are sampled, or patterns such as "*.h.0.*"; the others keep their
            values. Names of `embedding_rows()`, such as W_E, can be used too. By default all that are trained.
        sampler: `sgld`, `rmsprop` (SGLD with the preconditioner of RMSProp) or `hmc`.
        chains: Number of chains, at least 2.
        chain_steps: Number of steps of every chain after burn-in.
        burn_in: Number of steps before them, which are not used.
        step_size: Step size ε; by default it is chosen from the largest curvature of the loss.
        batch_size: Examples of the sample that a step of a chain uses; by default all of them.
        localization: Strength γ with which chains are held near w*.
        n: Number of data points n, if it is not that of the sample.
        n_beta: nβ; by default n / ln n.
        seed: Seed of the chains, the same at every step.

    Raises:
        ZooError: If a number is out of range, or, before training, if the module has no `mean_loss`, or an argument
            does not fit to it.
    """

    def __init__(
        self,
        examples: int = 1024,
        count: Literal["tokens", "sequences"] = "tokens",
        every_n_steps: int | None = None,
        steps: list[int] | None = None,
        parameters: list[str] | None = None,
        sampler: Literal["sgld", "rmsprop", "hmc"] = "sgld",
        chains: int = 8,
        chain_steps: int = 2000,
        burn_in: int = 1000,
        step_size: float | None = None,
        batch_size: int | None = None,
        localization: float = 1.0,
        n: int | None = None,
        n_beta: float | None = None,
        seed: int = 0,
    ) -> None:
        least = {"examples": (examples, 2), "every_n_steps": (every_n_steps, 1), "chains": (chains, 2)}
        least |= {"batch_size": (batch_size, 1), "n": (n, 2), "steps": (min(steps, default=0) if steps else None, 0)}
        for name, (value, smallest) in least.items():
            if value is not None and value < smallest:
                raise ZooError(f"{name} is {value}; it must be at least {smallest}")
        if batch_size is not None and batch_size > examples:
            raise ZooError(f"batch_size is {batch_size}, more than the {examples} examples of the sample")
        if not 0 <= localization < math.inf or not (n_beta is None or 0 < n_beta < math.inf):
            raise ZooError(
                f"localization is {localization} and n_beta {n_beta}; localization must be at least 0, n_beta above 0"
            )
        self.examples, self.count, self.parameters = examples, count, parameters
        self.every_n_steps, self.steps = every_n_steps, set(steps or ())
        self.sampler = SAMPLERS[sampler](step_size=step_size, steps=chain_steps, burn_in=burn_in)
        self.n, self.chosen = n, {"chains": chains, "batch_size": batch_size, "n_beta": n_beta, "seed": seed}
        self.chosen["localization"] = localization
        self.history: list[dict[str, Any]] = []  # one entry per measurement, plain numbers and texts
        self._told: set[str] = set()
        self._unwritten = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a module without a mean loss."""
        require(self, pl_module, HasMeanLoss)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the sample, and refuse arguments or losses that do not fit, before training."""
        self._names = self._sampled(pl_module)
        self._data = sample_of_training(trainer, pl_module, self.examples)
        found = len(next(iter(self._data.values())))
        if self.chosen["batch_size"] is not None and self.chosen["batch_size"] > found:
            raise ZooError(f"batch_size is {self.chosen['batch_size']}, but the training data have {found} examples")
        self._points = n_points(self._data, self.count)
        with isolate_rng(), _in_eval_mode(pl_module), torch.no_grad():
            self._networks(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure before the first step if asked to, or after the step at which a run is resumed, if it is not done."""
        self._measure_if_due(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure after the optimizer steps that were asked for."""
        self._measure_if_due(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure with every validation, unless other steps were asked for."""
        if not trainer.sanity_checking and trainer.state.fn == "fit" and not (self.every_n_steps or self.steps):
            self._measure(trainer, pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the table and draw, if there is anything new."""
        self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table and draw, if there is anything new."""
        self._write(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the curve so far."""
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the curve of the run that is resumed."""
        self.history = state["history"]

    def summary(self) -> dict[str, str]:
        """Return the line for the table at the end of a run."""
        if not self.history:
            return {}
        last = self.history[-1]
        value = _mean(last)
        text = f"{value:.2f} at step {last['step']}" if math.isfinite(value.mean) else f"refused: {_reason(last)}"
        return {"local learning coefficient": f"{text} (n = {last['n']:,})"}

    def _measure_if_due(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = trainer.global_step
        due = step in self.steps or (self.every_n_steps is not None and step % self.every_n_steps == 0)
        if due and not any(entry["step"] == step for entry in self.history):
            self._measure(trainer, pl_module)

    def _measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step, begun = trainer.global_step, time.monotonic()
        entry: dict[str, Any] = {}
        if trainer.is_global_zero:
            with isolate_rng(), _in_eval_mode(pl_module), _shown(trainer, self.sampler) as told:
                entry = {"step": step} | self._estimates(pl_module, told)
        entry = trainer.strategy.broadcast(entry)
        self.history = [one for one in self.history if one["step"] < step] + [entry]
        self._unwritten = True
        value, why = _mean(entry), _reason(entry)
        if math.isfinite(value.mean):
            found = {"mean": value.mean, "low": value.low, "high": value.high, "n": entry["n"], "loss": _loss(entry)}
            found["n_beta"] = entry["n_beta"]
            for logger in trainer.loggers:
                known = {f"llc/{name}": float(x) for name, x in found.items() if math.isfinite(x)}
                logger.log_metrics(known, logged_step(trainer))
        seconds = f"{time.monotonic() - begun:.0f} s"
        if why and (kind := re.sub(r"[\d.,\[\]e+-]+", "", why)) not in self._told:  # whatever its numbers
            self._told.add(kind)
            refused = sum(bool(network["problems"]) for network in entry["networks"])
            share = f" of {refused} of {len(entry['networks'])} networks" if len(entry["networks"]) > 1 else ""
            rank_zero_info(f"note: the local learning coefficient{share} at step {step} is refused ({seconds}): {why}")

    def _estimates(self, pl_module: Any, told: Any) -> dict[str, Any]:
        """Return the estimates of all networks as plain numbers and texts."""
        networks, rows = self._networks(pl_module), len(next(iter(self._data.values())))
        points = self._points if self.count == "tokens" else rows
        n, per_point = self.n or points, self._points / points

        def loss(module: Any, batch: dict[str, Tensor]) -> Tensor:
            told()
            value: Tensor = module.mean_loss(seed_by_seed(batch) if networks else batch)
            return value * per_point

        measure: Any = local_learning_coefficients if networks else local_learning_coefficient
        arguments = {"sampler": self.sampler, "n": n, "parameters": self._names} | self.chosen
        try:
            found = measure(pl_module, loss, self._data, **arguments)
        except ZooError as error:
            nothing = {"mean": None, "low": None, "high": None, "loss": None, "problems": [str(error)]}
            return {"n": n, "n_beta": self.chosen["n_beta"] or n / math.log(n), "networks": [nothing]}
        results: list[LocalLearningCoefficient] = found if isinstance(found, list) else [found]
        plain = []
        for one in results:
            value = value_in_training(one)
            ends = {name: x if math.isfinite(x) else None for name, x in vars(value).items() if name != "n"}
            plain.append(ends | {"loss": one.center_loss / per_point, "problems": problems_in_training(one)})
        return {"n": n, "n_beta": results[0].n_beta, "networks": plain}

    def _networks(self, pl_module: Any) -> int:
        """Return the number of networks that are trained side by side, 0 for a module with a single loss."""
        first = {name: x[:1].to(pl_module.device) for name, x in self._data.items()}
        side_by_side = all(x.ndim > 2 for x in first.values()) and offered(pl_module, "n_seeds") is not None
        losses = pl_module.mean_loss(seed_by_seed(first) if side_by_side else first)
        return len(losses) if losses.ndim else 0

    def _sampled(self, pl_module: L.LightningModule) -> list[str]:
        """Return the names of the parameters that are sampled."""
        trained = {name: p for name, p in pl_module.named_parameters() if p.requires_grad}
        for name, p in trained.items():
            if p.dtype not in (torch.float32, torch.float64):
                raise ZooError(f"{name} is {p.dtype}; chains need trainer.precision 32-true, 64-true or a mixed one")
        if self.parameters is None:
            return list(trained)
        rows = {} if missing_in(pl_module, TracksRows) else pl_module.embedding_rows()  # type: ignore[operator]
        places = {matrix.data_ptr(): name for name, matrix in rows.items()}
        known = {name: {name, name.removeprefix("net."), places.get(p.data_ptr(), name)} for name, p in trained.items()}
        for pattern in self.parameters:
            if not any(fnmatchcase(one, pattern) for names in known.values() for one in names):
                raise ZooError(f"parameters has {pattern!r}, which matches no trained parameter: {', '.join(known)}")
        return [
            name
            for name, names in known.items()
            if any(fnmatchcase(one, pattern) for pattern in self.parameters for one in names)
        ]

    def _write(self, trainer: L.Trainer) -> None:
        if not self._unwritten or not trainer.is_global_zero:
            return
        self._unwritten = False
        rows: list[list[Any]] = []
        for entry in self.history:
            for i, one in enumerate(entry["networks"]):
                numbers = ["" if one[key] is None else one[key] for key in ("mean", "low", "high", "loss")]
                rows.append([entry["step"], i, *numbers, entry["n"], entry["n_beta"], "; ".join(one["problems"])])
        names = ("step", "network", "llc", "low", "high", "loss", "n", "n_beta", "problems")
        folder = Path(trainer.default_root_dir) / "learning_coefficient"
        write_table(folder / "steps.csv", dict(zip(names, zip(*rows, strict=True), strict=True)))
        drift = next((c.history for c in trainer.callbacks if isinstance(c, EmbeddingDrift)), {})  # type: ignore[attr-defined]
        figure = draw_learning_coefficient(self.history, [_mean(entry) for entry in self.history], drift)
        lines = [[str(entry["step"]), format(_mean(entry), ".2f"), _reason(entry)] for entry in self.history]
        table = markdown_table(["step", "local learning coefficient", "refused because"], lines)
        show(trainer, figure, folder / "steps.png", "llc/steps", {"by_step": table})


def _mean(entry: dict[str, Any]) -> Estimate:
    """Return the estimate of a measurement; of several networks, the mean over those that are not refused."""
    good = [one for one in entry["networks"] if one["mean"] is not None]
    if len(entry["networks"]) == 1:
        return Estimate(*(good[0][end] for end in ("mean", "low", "high"))) if good else estimates.UNKNOWN
    if len(good) == 1:
        return Estimate(good[0]["mean"], math.nan, math.nan)  # one network says nothing of the others
    return estimates.mean([one["mean"] for one in good])


def _loss(entry: dict[str, Any]) -> float:
    losses = [one["loss"] for one in entry["networks"]]
    return math.nan if None in losses else sum(losses) / len(losses)


def _reason(entry: dict[str, Any]) -> str:
    """Return the first problem of a measurement, or an empty text."""
    return next((problem for one in entry["networks"] for problem in one["problems"]), "")


@contextmanager
def _in_eval_mode(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into eval mode inside the block, and every part of it back into its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def _shown(trainer: L.Trainer, sampler: Any) -> Iterator[Callable[[], None]]:
    """Show in the progress bar how far the chains are; the function inside the block is called with every loss."""
    bar, total, done = trainer.progress_bar_callback, sampler.burn_in + sampler.steps, 0

    def told() -> None:
        nonlocal done
        done += 1
        if isinstance(bar, RunProgress) and done % max(1, total // 50) == 0:
            bar.say(f"local learning coefficient {min(99, 100 * done // total)} %")

    yield told
    if isinstance(bar, RunProgress):
        bar.say("")
