"""Do few neurons compute more functions ReLU(x_i) than there are neurons, and what makes it seem so?

Compressed computation: n functions ReLU(x_i) of rare inputs are computed by d < n neurons (Braun et al. 2025). Losses
are compared with exact ones: of outputs of 0, of dedicated neurons (neuron i computes function i, for d functions), and
a lower bound for every network of that width. Labels are clean or mixed: mixed labels contain M x as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jsonargparse.typing import OpenUnitInterval, PositiveInt

from zoo.errors import ZooError
from zoo.estimates import Estimate, mean
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.toys import Settings, TrainToy, exact_exponent, exponent, line, over
from zoo.study import AtLeastTwo, Result, Results, Study, Task

POWERS = (2.0, 3.0, 4.0)
OF_ALL_WIDTHS = (2.0, 4.0)  # exponents of the error that are trained at all widths and probabilities
SHARED = 0.9  # loss over that of dedicated neurons below which neurons count as shared
LOOKS = (
    "*Look computed*: the output's response to its own input alone has at least half the height of ReLU, and an R² of "
    "at least 0.9 with it."
)
LABELS: dict[str, Settings] = {
    "clean": (),
    "mixed, +1": (("mixing", 1.0),),
    "mixed, -1": (("mixing", -1.0),),
    "residual stream": (("residual", True),),
}


class Arm(NamedTuple):
    """One way to train.

    Args:
        labels: A key of `LABELS`.
        q: Exponent of the error.
        d: Number of neurons.
        p: Probability that an input is not 0.
    """

    labels: str
    q: float
    d: int
    p: float


Runs = Mapping[Arm, Result]


@dataclass(frozen=True)
class CompressedComputation(Study):
    """Networks with fewer neurons than functions ReLU(x_i) are trained on clean and on mixed labels.

    Args:
        n_functions: Number n of functions.
        widths: Numbers d of neurons.
        probabilities: Probabilities that an input is not 0; most networks have the first.
        steps: Number of optimizer steps of every training.
        seeds: Number of networks for each way of training.
    """

    n_functions: PositiveInt = 40
    widths: tuple[PositiveInt, ...] = (10, 20, 30)
    probabilities: tuple[OpenUnitInterval, ...] = (0.03, 0.1, 0.3)
    steps: PositiveInt = 3000
    seeds: AtLeastTwo = 4

    def check(self) -> None:
        """Refuse as many neurons as functions."""
        if max(self.widths) >= self.n_functions:
            raise ZooError(f"widths are {self.widths}; all must be below n_functions, {self.n_functions}")

    @property
    def middle(self) -> int:
        """The number of neurons of networks with mixed labels and with other probabilities."""
        return self.widths[len(self.widths) // 2]

    def arms(self) -> list[Arm]:
        """Return all ways to train."""
        d, (p, *others) = self.middle, self.probabilities
        found = [Arm("clean", q, width, p) for q in OF_ALL_WIDTHS for width in self.widths]
        found += [Arm("clean", q, d, p) for q in POWERS if q not in OF_ALL_WIDTHS]
        found += [Arm("clean", q, d, other) for q in OF_ALL_WIDTHS for other in others]
        return found + [Arm(labels, 2.0, d, p) for labels in LABELS if labels != "clean"]

    def task(self, arm: Arm) -> TrainToy:
        """Return the task that trains the networks of one arm."""
        n = self.n_functions
        own: Settings = (("d_mlp", arm.d), ("q", arm.q), ("d_embed", 10 * n), *LABELS[arm.labels])
        data: Settings = (("n_features", n), ("values", "signed"), ("batch_size", 1024), ("n_validation", 1 << 15))
        cost = 0.02 * self.seeds * n
        return TrainToy(
            "CompressedComputation", own, ("BernoulliActive", arm.p * n), data, self.steps, 3e-3, self.seeds, cost / 12
        )

    def tasks(self) -> Sequence[Task]:
        """Return one task for every arm."""
        return [self.task(arm) for arm in self.arms()]

    def report(self, results: Results) -> Report:
        """Return a report on clean labels, and on what mixed labels make it seem."""
        runs = {arm: results[self.task(arm)] for arm in self.arms()}
        clean, labels = _clean(self, runs), _labels(self, runs)
        evidence = [
            [
                f"With errors to the power {q:g}, do {self.middle} neurons have a smaller loss than dedicated ones?",
                f"loss / dedicated {ratio}",
                _shared(ratio),
            ]
            for q, ratio in _ratios(self, runs).items()
        ]
        looks, computed = _looks(self, runs)
        evidence.append(
            [
                f"With labels mixed by M (-1), are {looks.mean:.0f} of {self.n_functions} functions computed, as their "
                "curves suggest?",
                f"sum of R² on clean labels {computed:.1f}",
                "no" if computed.high < looks.low else "undecided",
            ]
        )
        table = Table(["question", "measured", "answer"], evidence).markdown()
        headline = f"{clean.finding.partition('. ')[0]}. {labels.finding.partition('. ')[0]}."
        verdict = Verdict(headline, _certainty(self), table, {"evidence": evidence})
        subject = f"{self.n_functions} functions ReLU(x_i), with fewer neurons than functions"
        return Report(subject, verdict, [clean, labels])


def _certainty(study: CompressedComputation) -> str:
    return (
        f"Brackets are 95 % Student t intervals over {study.seeds} networks. Reference losses are exact and have no "
        "interval. Networks that share a mixing matrix have the same one. Training uses "
        f"{study.steps:,} steps of Adam at one learning rate, so a loss above a reference loss can mean that training "
        "has not converged."
    )


def _ratios(study: CompressedComputation, runs: Runs) -> dict[float, Estimate]:
    """Return the loss over that of dedicated neurons, by exponent of the error, at the middle width."""
    return {q: over(runs[Arm("clean", q, study.middle, study.probabilities[0])], "dedicated") for q in POWERS}


def _shared(ratio: Estimate) -> str:
    return "yes" if ratio.high < SHARED else "no" if ratio.low > SHARED else "undecided"


def _looks(study: CompressedComputation, runs: Runs) -> tuple[Estimate, Estimate]:
    """Return how many functions look computed by their own curves, and the sum of R², with labels mixed by -1."""
    mixed = runs[Arm("mixed, -1", 2.0, study.middle, study.probabilities[0])]
    return mean(mixed["looks"]), mean(mixed["computed"])


def _clean(study: CompressedComputation, runs: Runs) -> Section:
    shown = {arm: r for arm, r in runs.items() if arm.labels == "clean"}
    rows: list[list[Any]] = []
    for arm, r in shown.items():
        exact = [line(r, name) / arm.p for name in ("zero_map", "dedicated", "bound")]
        loss = mean(np.asarray(r["loss"]) / arm.p)
        rows.append(
            [
                f"{arm.q:g}",
                arm.d,
                f"{arm.p:g}",
                loss,
                *exact,
                over(r, "dedicated"),
                mean(r["looks"]),
                mean(r["computed"]),
            ]
        )
    n, p, d = study.n_functions, study.probabilities[0], study.middle
    fits: list[list[Any]] = []
    for q in OF_ALL_WIDTHS:
        row: list[Any] = [f"{q:g}"]
        for varied, x, arms in (
            ("widths", [n - width for width in study.widths], [Arm("clean", q, width, p) for width in study.widths]),
            ("probabilities", study.probabilities, [Arm("clean", q, d, other) for other in study.probabilities]),
        ):
            known = len(getattr(study, varied)) > 1
            losses = np.array([runs[arm]["loss"] for arm in arms])
            row.append(exponent(x, losses) if known else None)
            row.append(exact_exponent(x, [line(runs[arm], "dedicated") for arm in arms]) if known else None)
        fits.append(row)
    ratios = _ratios(study, runs)
    least, most = ratios[POWERS[0]], ratios[POWERS[-1]]
    sums = [mean(runs[Arm("clean", q, d, p)]["computed"]) for q in (POWERS[0], POWERS[-1])]
    looks = mean(runs[Arm("clean", POWERS[-1], d, p)]["looks"])
    finding = (
        f"With squared errors, {d} neurons for {n} functions have {least} times the loss of dedicated neurons, and "
        f"with |error|^{POWERS[-1]:g} {most} times. The sum of R² over all functions is {sums[0]:.1f} with squared "
        f"errors and {sums[1]:.1f} with |error|^{POWERS[-1]:g}, where dedicated neurons have {d}: a smaller |error|^q "
        f"does not mean that more functions are computed. With |error|^{POWERS[-1]:g}, {looks.mean:.0f} of the {n} "
        "functions look computed if their inputs are on alone."
    )
    charts = [
        Chart(
            "clean-loss",
            "Loss on clean labels",
            [
                Series.of(
                    f"|error|^{q:g}",
                    study.widths,
                    [over(runs[Arm("clean", q, width, p)], "dedicated") for width in study.widths],
                )
                for q in OF_ALL_WIDTHS
            ],
            "neurons",
            "loss / loss of dedicated neurons",
            caption=f"Inputs are not 0 with probability {p:g}. Bands: 95 % intervals over networks.",
        ),
        Chart(
            "clean-computed",
            "Functions that are computed",
            [
                Series.of(
                    f"|error|^{q:g}",
                    study.widths,
                    [mean(runs[Arm("clean", q, width, p)]["computed"]) for width in study.widths],
                )
                for q in OF_ALL_WIDTHS
            ]
            + [Series("dedicated neurons", study.widths, study.widths, "dashed")],
            "neurons",
            "sum of R² over functions",
        ),
    ]
    columns = ["q", "neurons", "p", "loss / p", "outputs of 0", "dedicated", "bound", "loss / dedicated"]
    columns += ["look computed", "sum of R²"]
    fitted = ["q", "exponent in n - d", "dedicated, n - d", "exponent in p", "dedicated, p"]
    return Section(
        "clean",
        "Do few neurons compute more functions ReLU(x_i) than there are neurons?",
        finding,
        tables=[
            Table(
                columns,
                rows,
                5,
                note=(
                    "The loss is the mean |error|^q. p: probability that an input is not 0. *Bound*: for every network "
                    f"of this width, known for q = 2. {LOOKS} *Sum of R²*: over outputs, the squared correlation with "
                    "ReLU(x_i) on all inputs."
                ),
            ),
            Table(fitted, fits, 3, note="Exponents of power laws that are fitted to the loss: d is varied, and p."),
        ],
        charts=charts,
        null_models="Outputs of 0 and dedicated neurons, both exact, and a bound for every network of that width.",
        not_shown="Neurons with biases, other numbers of functions, and other functions than ReLU.",
        numbers={
            "ratios": {f"{q:g}": ratio for q, ratio in ratios.items()},
            "widths": list(study.widths),
            "runs": [arm._asdict() | r for arm, r in shown.items()],
        },
    )


def _labels(study: CompressedComputation, runs: Runs) -> Section:
    d, n, p = study.middle, study.n_functions, study.probabilities[0]
    shown = {labels: runs[Arm(labels, 2.0, d, p)] for labels in LABELS}
    usual = line(shown["clean"], "dedicated") / p
    rows = [
        [
            labels,
            mean(np.asarray(r["loss"]) / p),
            usual,
            line(r, "dedicated") / p,
            line(r, "bound") / p,
            mean(r["looks"]),
            mean(r["computed"]),
            mean(r["alone"]),
        ]
        for labels, r in shown.items()
    ]
    looks, computed = _looks(study, runs)
    mixed = shown["mixed, -1"]
    loss = mean(np.asarray(mixed["loss"]) / p)
    side = {"below": "below", "above": "above", "undecided": "near"}[mean(np.asarray(mixed["loss"]) / p - usual).sign]
    finding = (
        f"With labels mixed by M (-1), {looks:.1f} of {n} functions look computed if their inputs are on alone, but "
        f"the sum of R² on clean labels is {computed:.1f}, with {d} neurons. The loss / p of these networks, "
        f"{loss:.4f}, is {side} the usual line of dedicated neurons, {usual:.4f}, which leaves M out of the labels. "
        f"Dedicated neurons have {line(mixed, 'dedicated') / p:.4f} on the mixed labels: the networks gain by fitting "
        "M x, and not by computing more functions."
    )
    names = list(LABELS)
    bars = [
        Series.of("look computed", names, [mean(r["looks"]) for r in shown.values()], "bars"),
        Series.of("sum of R²", names, [mean(r["computed"]) for r in shown.values()], "bars"),
    ]
    return Section(
        "labels",
        "Are functions computed that look computed with mixed labels?",
        finding,
        tables=[
            Table(
                [
                    "labels",
                    "loss / p",
                    "dedicated, M left out",
                    "dedicated",
                    "bound",
                    "look computed",
                    "sum of R²",
                    "loss / p, one input on",
                ],
                rows,
                4,
                note=(
                    f"q = 2, {d} neurons, p = {p:g}. Mixed labels are ReLU(x) + M x, M = +-(W_E W_Eᵀ - I); neurons of "
                    f"a residual stream have the task of -1. {LOOKS} *Sum of R²*: over outputs, on clean labels and "
                    "all inputs. In a residual stream, linear parts of the outputs pass by the neurons, so that this "
                    "sum can exceed their number. *One input on*: the exact loss for p -> 0."
                ),
            )
        ],
        charts=[Chart("labels-computed", "Functions that look computed, and that are", bars, "", "functions")],
        null_models="Dedicated neurons without M and with M in the labels, and the bound; all are exact.",
        not_shown=f"One size of the embedding that mixes labels, {10 * n} dimensions, and one width.",
        numbers={"usual": usual, "runs": [{"labels": name} | r for name, r in shown.items()]},
    )
