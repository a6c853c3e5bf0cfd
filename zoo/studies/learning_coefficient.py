"""How does the local learning coefficient of a network change over training?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jsonargparse.typing import NonNegativeFloat, PositiveInt

from zoo import estimates
from zoo.errors import ZooError
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.source import Source
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work

SHAPES = ("triangle", "square", "pentagon", "pentagon, sixth bias positive", "hexagon")
LOSSES = (7 / 48, 7 / 72, 0.068741, 0.061799, 0.048192)  # of these arrangements of six features, per active input
CLOSE = 0.003  # relative distance to one of these losses up to which a network counts as that arrangement
STARTS = {  # corners, bias of the features that are kept, and of the others, from which descents start
    "hexagon": (6, -0.6, 0.0),
    "pentagon, sixth bias positive": (5, -0.28, 0.05),
    "pentagon, sixth bias negative": (5, -0.28, -0.5),
    "square, other biases positive": (4, -0.05, 0.05),
    "square, other biases negative": (4, -0.05, -0.5),
}
DESCENT = 2000  # steps of these descents
N = 100_000  # number of data points n of the toys, whose loss is an exact expectation


@dataclass(frozen=True)
class ToyCurves(Task):
    """Train networks of six features in two dimensions, and measure each of them at every step, side by side."""

    seeds: int
    steps: tuple[int, ...]
    chain_steps: int
    localization: float

    def do(self, work: Work) -> Result:
        """Return `loss`, `rank` of the Hessian, `value` and `mean`, `low`, `high`, (steps, seeds) each; NaN if refused.

        `value` is the estimate whatever the diagnostics say.
        """
        import torch

        from zoo.local_learning import HMC
        from zoo.local_learning.in_training import value_in_training
        from zoo.local_learning.side_by_side import local_learning_coefficients
        from zoo.models.toy import SuperpositionNet
        from zoo.models.toy.superposition import one_sparse_loss

        torch.manual_seed(0)
        net, ones = SuperpositionNet(6, 2, self.seeds), torch.ones(6)
        optimizer, kept = torch.optim.Adam(net.parameters(), 0.003), []
        for step in range(max(self.steps) + 1):
            if step in self.steps:
                kept.append((net.W_in.detach().clone(), net.b.detach().clone()))
            for group in optimizer.param_groups:
                group["lr"] = 0.003 * min(1.0, 2 * (1 - step / (max(self.steps) + 1)))
            optimizer.zero_grad()
            one_sparse_loss(net.W_in, net.b, ones).sum().backward()
            optimizer.step()
        every = SuperpositionNet(6, 2, len(kept) * self.seeds).eval()
        for p, parts in zip((every.W_in, every.b), zip(*kept, strict=True), strict=True):
            p.data.copy_(torch.cat(parts))
        found = local_learning_coefficients(
            every,
            lambda net, _: losses_of(net, ones),
            torch.zeros(1, 1),
            sampler=HMC(steps=self.chain_steps, burn_in=self.chain_steps),
            n=N,
            localization=self.localization,
        )

        def loss(w: torch.Tensor) -> torch.Tensor:
            return one_sparse_loss(w[:12].view(1, 6, 2), w[12:].view(1, 6), ones.double()).squeeze()

        flat = torch.cat([every.W_in.flatten(1), every.b], 1).detach().double()
        curvatures = torch.stack([torch.linalg.eigvalsh(torch.func.hessian(loss)(w)) for w in flat])
        values = [value_in_training(one) for one in found]
        columns = {
            "loss": [one.center_loss for one in found],
            "rank": (curvatures.abs() > 1e-3).sum(1).tolist(),
            "value": [one.unchecked.mean for one in found],
            "mean": [one.mean for one in values],
            "low": [one.low for one in values],
            "high": [one.high for one in values],
        }
        return {name: np.array(x, float).reshape(len(kept), self.seeds) for name, x in columns.items()}

    def seconds(self) -> float:
        """Return an estimate from a measured run."""
        return 10 + 0.002 * self.chain_steps * len(self.steps) * self.seeds


@dataclass(frozen=True)
class CriticalPoints(Task):
    """Descend from regular polygons to critical points of the loss, and measure each of them."""

    chain_steps: int
    localization: float

    def do(self, work: Work) -> Result:
        """Return a line per polygon: its start, loss, rank of the Hessian, smallest eigenvalue, estimate, problems."""
        import math

        import torch

        from zoo.local_learning import HMC
        from zoo.local_learning.in_training import problems_in_training
        from zoo.local_learning.side_by_side import local_learning_coefficients
        from zoo.models.toy import SuperpositionNet
        from zoo.models.toy.superposition import one_sparse_loss

        ones, net = torch.ones(6, dtype=torch.float64), SuperpositionNet(6, 2, len(STARTS)).double().eval()
        for i, (corners, on, off) in enumerate(STARTS.values()):
            angles, kept = 2 * math.pi * torch.arange(6) / corners, torch.arange(6) < corners
            net.W_in.data[i] = 1.15 * torch.stack([angles.cos(), angles.sin()], 1) * kept.unsqueeze(1)
            net.b.data[i] = torch.where(kept, on, off)
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1e-6, DESCENT)
        for _ in range(DESCENT):
            optimizer.zero_grad()
            one_sparse_loss(net.W_in, net.b, ones).sum().backward()
            optimizer.step()
            decay.step()
        found = local_learning_coefficients(
            net,
            lambda net, _: losses_of(net, ones),
            torch.zeros(1, 1),
            sampler=HMC(steps=2 * self.chain_steps, burn_in=self.chain_steps),
            n=N,
            localization=self.localization,
        )

        def loss(w: torch.Tensor) -> torch.Tensor:
            return one_sparse_loss(w[:12].view(1, 6, 2), w[12:].view(1, 6), ones).squeeze()

        lines = []
        for name, one, w in zip(STARTS, found, torch.cat([net.W_in.flatten(1), net.b], 1).detach(), strict=True):
            curvatures = torch.linalg.eigvalsh(torch.func.hessian(loss)(w))
            value, rank = one.unchecked, int((curvatures.abs() > 1e-3).sum())
            line = {"name": name, "loss": one.center_loss, "rank": rank, "smallest": float(curvatures[0])}
            ends = [value.mean, value.low, value.high]
            lines.append(line | {"value": ends, "problems": problems_in_training(one)})
        return {"lines": lines}

    def seconds(self) -> float:
        """Return an estimate from a measured run."""
        return 15 + 0.1 * self.chain_steps


@dataclass(frozen=True)
class LanguageModelAt(Task):
    """Measure a language model at a training step, on windows of its own training text."""

    source: Source
    step: int | None
    parameters: tuple[str, ...]
    chain_steps: int
    localization: float
    here = True

    def named_by(self) -> dict[str, Any]:
        """Return the fields, with a hash of the weights instead of the name of the source."""
        return super().named_by() | {"source": self.source.weights_fingerprint(self.step)}

    def do(self, work: Work) -> Result:
        """Return `value`, the estimate whatever the diagnostics say, `problems`, `loss`, `n`, and diagnostics."""
        import torch
        import torch.nn.functional as F

        from zoo.datamodules.text import TokenLoader
        from zoo.local_learning import SGLD, local_learning_coefficient
        from zoo.local_learning.in_training import problems_in_training
        from zoo.shared_tasks.horizon import text_of

        model: Any = self.source.load(self.step)
        data, _ = text_of(self.source, None, len(model.W_E))
        batch = TokenLoader(data.cache.tokens("train"), 32, 64, 0).batch(0)
        found = local_learning_coefficient(
            model,
            lambda net, rows: F.cross_entropy(net(rows["input_ids"]).flatten(0, -2), rows["targets"].flatten()),
            batch,
            sampler=SGLD(steps=self.chain_steps, burn_in=self.chain_steps // 2),
            chains=3,
            batch_size=16,
            n=batch["targets"].numel(),
            localization=self.localization,
            parameters=self.parameters or None,
        )
        value, told = found.unchecked, found.diagnostics
        W, start = model.W_E.detach(), torch.zeros(())
        if self.step is not None and self.source.steps:
            start = self.source.embedding(self.source.steps[0])
        drift = float(((W - start).norm(dim=1) / start.norm(dim=1)).median()) if start.ndim else float("nan")
        return {
            "value": [value.mean, value.low, value.high],
            "problems": problems_in_training(found),
            "loss": found.center_loss,
            "n": found.n,
            "n_beta": found.n_beta,
            "parameters": found.n_parameters,
            "drift": drift,
            "effective": told.effective,
            "r_hat": told.r_hat,
        }

    def seconds(self) -> float:
        """Return a guess from measured runs."""
        return 20 + 0.2 * self.chain_steps


@dataclass(frozen=True)
class LearningCoefficientOverTraining(Study):
    """The local learning coefficient of toys and of shipped GPT-2s is measured at several steps of their training.

    Args:
        seeds: Number of networks of six features in two dimensions.
        steps: Training steps at which toys are measured.
        chain_steps: Trajectories of every chain of toys; as many before them are not used.
        localization: Strength γ with which chains of toys are held near the parameters.
        models: GPT-2s with several steps, of which the embedding is measured.
        model_steps: Training steps at which these are measured.
        last_model: GPT-2 whose last step is measured: the embedding alone, and everything.
        model_chain_steps: Steps of every chain of a GPT-2; half as many before them are not used.
        model_localization: Strength γ with which chains of a GPT-2 are held near the parameters.
    """

    seeds: AtLeastTwo = 12
    steps: tuple[int, ...] = (0, 100, 200, 300, 500, 700, 1000, 1500, 2000)
    chain_steps: PositiveInt = 60
    localization: NonNegativeFloat = 1.0
    models: tuple[str, ...] = ("gpt2-mini.learned", "gpt2-mini.frozen-gaussian")
    model_steps: tuple[int, ...] = (0, 512, 4096)
    last_model: str = "gpt2-stdlib.learned"
    model_chain_steps: PositiveInt = 60
    model_localization: NonNegativeFloat = 1000.0

    def check(self) -> None:
        """Refuse steps that are not ascending."""
        for name, steps in (("steps", self.steps), ("model_steps", self.model_steps)):
            if min(steps) < 0 or list(steps) != sorted(set(steps)):
                raise ZooError(f"{name} is {steps}; steps must be at least 0, ascending, without repeats")

    def tasks(self) -> Sequence[Task]:
        """Return the toys at this and at four times the localization, and one task for every GPT-2 and step."""
        toys: list[Task] = [self._toys(factor) for factor in (1, 4)]
        return [*toys, *(self._points(factor) for factor in (1, 4)), *self._models().values()]

    def _points(self, factor: float) -> CriticalPoints:
        return CriticalPoints(self.chain_steps, factor * self.localization)

    def _toys(self, factor: float) -> ToyCurves:
        return ToyCurves(self.seeds, self.steps, self.chain_steps, factor * self.localization)

    def _models(self) -> dict[tuple[str, str, int | None], LanguageModelAt]:
        shared = (self.model_chain_steps, self.model_localization)
        found: dict[tuple[str, str, int | None], LanguageModelAt] = {}
        for name in self.models:
            for step in self.model_steps:
                found[name, "everything", step] = LanguageModelAt(Source.open(name), step, (), *shared)
        for told, which in (("W_E", ("transformer.wte.weight",)), ("everything", ())):
            found[self.last_model, told, None] = LanguageModelAt(Source.open(self.last_model), None, which, *shared)
        return found

    def report(self, results: Results) -> Report:
        """Return a report on toys and on GPT-2s."""
        toys, models = self._toy_section(results), self._model_section(results)
        headline = f"{toys.finding}\n\n{models.finding}"
        certainty = (
            "Brackets are 95 % intervals over networks for toys, and over chains for GPT-2s. An estimate is refused if "
            "a diagnostic of its chains fails, and is then no result. Columns named *unchecked* show the estimates "
            "without regard to the diagnostics."
        )
        subject = f"{self.seeds} toys of six features in two dimensions, and {len(self.models) + 1} GPT-2s"
        numbers = {"toys": toys.numbers, "models": models.numbers}
        return Report(subject, Verdict(headline, certainty, numbers=numbers), [toys, models])

    def _toy_section(self, results: Results) -> Section:
        found, tighter = results[self._toys(1)], results[self._toys(4)]
        shapes = [[shape_of(loss) for loss in line] for line in found["loss"]]
        rows: list[list[Any]] = []
        for shape in SHAPES:
            here = [(i, j) for i, line in enumerate(shapes) for j, one in enumerate(line) if one == shape]
            last = {j: i for i, j in here}  # the last step at which a network has this shape
            own = np.array([found["mean"][i, j] for j, i in last.items()])
            other = np.array([tighter["mean"][i, j] for j, i in last.items()])
            ranks = sorted({int(found["rank"][i, j]) for j, i in last.items()})
            good, good_tighter = own[np.isfinite(own)], other[np.isfinite(other)]
            half = ", ".join(f"{rank / 2:g}" for rank in ranks)
            rows.append([shape, len(last), len(good), estimates.mean(good), half or None, estimates.mean(good_tighter)])
        lines = zip(results[self._points(1)]["lines"], results[self._points(4)]["lines"], strict=True)
        points = [
            [
                one["name"],
                one["loss"],
                f"{one['rank'] / 2:g}",
                f"{one['smallest']:.1g}",
                *(estimates.Estimate(*each["value"]) for each in (one, other)),
                "; ".join(one["problems"]) or "not refused",
            ]
            for one, other in lines
        ]
        columns = ["critical point", "loss", "rank of the Hessian / 2", "smallest eigenvalue", "unchecked"]
        exact = Table([*columns, "with 4 times the localization", "diagnostics"], points, 3)
        names = ["arrangement", "networks", "not refused", "local learning coefficient", "rank of the Hessian / 2"]
        table = Table([*names, "with 4 times the localization"], rows, 2, f"n = {N:,}; the loss is exact.")
        series = [
            Series(f"network {j}", self.steps, m.tolist(), labels=[s[j] for s in shapes])
            for j, m in enumerate(found["mean"].T)
        ]
        losses = [
            Series(f"network {j}", self.steps, line.tolist(), labels=[s[j] for s in shapes])
            for j, line in enumerate(found["loss"].T)
        ]
        refused: Any = np.isnan(found["mean"]).sum(1)
        final = estimates.mean(found["mean"][-1][np.isfinite(found["mean"][-1])])
        finding = (
            f"The diagnostics refuse the estimates of {refused[0]} of {self.seeds} toys at step {self.steps[0]}, and "
            f"of {refused[-1]} at step {self.steps[-1]:,}, where the others have a mean local learning coefficient of "
            f"{final:.2f}."
        )
        return Section(
            "toys",
            "What is the local learning coefficient of the polygons that toys of superposition find?",
            finding,
            tables=[table, exact],
            charts=[
                Chart("learning-coefficient-toys", "Local learning coefficient", series, "step", "coefficient"),
                Chart("learning-coefficient-toys-loss", "Loss", losses, "step", "loss per active input", log_y=True),
            ],
            null_models="Networks before training; half the Hessian's rank, which is the answer at regular minima.",
            not_shown="Sampled losses, other n and other sizes are not tested. At a pentagon whose sixth bias is "
            "negative, the loss is constant in some directions, but only up to a distance, so that its estimate "
            "depends on the localization. If the loss of a network exceeds the minimum nearby by a small d, its "
            "estimate is too small by nβ d, and the diagnostics do not detect this. Estimates well before the end of "
            "training are therefore too small.",
            numbers={name: value.tolist() for name, value in found.items()} | {"shapes": shapes},
        )

    def _model_section(self, results: Results) -> Section:
        lines = {key: results[task] for key, task in self._models().items()}
        rows: list[list[Any]] = []
        for (name, moved, step), one in lines.items():
            value = estimates.Estimate(*one["value"])
            verdict = "; ".join(one["problems"]) or "not refused"
            shown = [one["parameters"], one["loss"], one["drift"], value, one["effective"], verdict]
            rows.append([name, moved, "last" if step is None else f"{step:,}", *shown])
        names = [
            "model",
            "sampled",
            "step",
            "parameters",
            "loss",
            "median drift of W_E",
            "unchecked",
            "effective draws",
        ]
        good = sum(not one["problems"] for one in lines.values())
        n, n_beta = next((one["n"], one["n_beta"]) for one in lines.values())
        note = (
            f"n = {n:,} tokens, nβ = {n_beta:.0f}, γ = {self.model_localization:g}. Drift is a share of a row's norm."
        )
        return Section(
            "gpt2",
            "Does the local learning coefficient of small GPT-2s change over training?",
            f"Of {len(lines)} estimates for GPT-2s, {good} pass the diagnostics"
            + (", so nothing is claimed about GPT-2s." if not good else "."),
            tables=[Table([*names, "diagnostics"], rows, 2, note)],
            null_models="Step 0, before training.",
            not_shown="Longer chains, larger samples, other localizations and several runs are not tested. "
            "Frozen rows are sampled too.",
            numbers={"lines": [{"key": list(key)} | one for key, one in lines.items()]},
        )


def losses_of(net: Any, importance: Any) -> Any:
    """Return the exact loss of every network of a `SuperpositionNet`, (S,)."""
    from zoo.models.toy.superposition import one_sparse_loss

    return one_sparse_loss(net.W_in, net.b, importance)


def shape_of(loss: float) -> str:
    """Return the arrangement of six features that has this loss per active input, or "other"."""
    return next((shape for shape, own in zip(SHAPES, LOSSES, strict=True) if abs(loss / own - 1) < CLOSE), "other")
