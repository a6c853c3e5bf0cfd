"""How close do trained networks come to the smallest possible error of the products of all pairs of inputs?

s of m inputs are on, with the value 1 (then products are ANDs) or random signs, and there are fewer neurons than pairs.
Losses are compared with exact ones: of outputs of 0, of dedicated neurons (one for each of d pairs), and a lower bound
for every network of that width, of any depth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, NamedTuple

import numpy as np
from jsonargparse.typing import PositiveInt

from zoo.errors import ZooError
from zoo.estimates import mean
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.toys import Settings, TrainToy, exact_exponent, exponent, line, over, spanned
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work
from zoo.wording import listed

DRAWS = 4  # draws of the weights for each seed, for everything that is not trained
BY_DEGREE = ((2, 4), (3, 6))  # inputs that are on, and all inputs, for networks without biases
OF_DEGREE = 64  # their neurons
SAME = 0.01  # share of a loss within which losses on drawn vectors count as equal
NEAR = 0.05  # share of the bound within which a loss counts as reaching it


@dataclass(frozen=True)
class FitReadoffs(Task):
    """Compute the best readoffs of random ReLU neurons for ANDs of all pairs, without training."""

    n_inputs: int
    widths: tuple[int, ...]
    n_seeds: int

    def do(self, work: Work) -> Result:
        """Return the balanced losses without and with output biases, `loss` (2, widths, draws)."""
        from zoo.analysis.product_readoffs import best_readoff_loss

        m, seeds = self.n_inputs, range(self.n_seeds)
        return {
            "loss": np.array(
                [[[best_readoff_loss(m, d, b, k) for k in seeds] for d in self.widths] for b in (False, True)]
            )
        }

    def seconds(self) -> float:
        """Return an estimate of the time for least squares of every pair."""
        return 1 + 3e-7 * self.n_seeds * self.n_inputs**4 * sum(self.widths)


class Arm(NamedTuple):
    """One way to train.

    Args:
        neuron: Kind of neurons.
        d: Number of neurons.
        s: Number of inputs that are on.
        m: Number of inputs.
        values: "one", "sign", or "signed": uniform in [-1, 1].
        q: Exponent of the error.
        superposed: Number of dimensions in which the inputs are superposed; 0 if they are not.
        bias: Whether neurons have biases.
        output_bias: Whether outputs have biases.
        balanced: Whether the loss is balanced between pairs that are on and off.
    """

    neuron: str
    d: int
    s: int
    m: int
    values: str = "one"
    q: float = 2.0
    superposed: int = 0
    bias: bool = True
    output_bias: bool = True
    balanced: bool = True


Runs = Mapping[Arm, Result]


@dataclass(frozen=True)
class PairProducts(Study):
    """Networks are trained to compute the products of all pairs of inputs.

    Args:
        inputs: Numbers m of inputs; most networks have the first.
        widths: Numbers d of neurons of trained networks.
        active: Numbers s of inputs that are on at once; most networks have the first, 2.
        steps: Number of optimizer steps of every training.
        seeds: Number of networks for each way of training; random neurons have 4 times as many draws.
    """

    inputs: tuple[PositiveInt, ...] = (12, 8, 16)
    widths: tuple[PositiveInt, ...] = (12, 20, 40)
    active: tuple[PositiveInt, ...] = (2, 3, 4, 6)
    steps: PositiveInt = 3000
    seeds: AtLeastTwo = 4

    def check(self) -> None:
        """Refuse sizes that do not fit together."""
        m, least, middle = self.inputs[0], min(self.inputs), self.widths[len(self.widths) // 2]
        if min(self.active) < 2 or 2 * max(self.active) > m:
            raise ZooError(f"active is {self.active}; numbers must be 2 to half of the first of inputs, {m // 2}")
        if self.active[0] != 2:
            raise ZooError(f"active is {self.active}; it must begin with 2")
        if least < 4:
            raise ZooError(f"inputs are {self.inputs}; all must be at least 4")
        if max(self.widths) + 1 >= comb(m, 2) or middle + 1 >= comb(least, 2):
            raise ZooError(
                f"widths are {self.widths}; with output biases, all must be below the number of pairs of {m} inputs, "
                f"{comb(m, 2)}, and the middle one below that of {least} inputs, {comb(least, 2)}"
            )

    @property
    def middle(self) -> int:
        """The number of neurons of networks with other numbers of inputs."""
        return self.widths[len(self.widths) // 2]

    def groups(self) -> dict[str, list[Arm]]:
        """Return all ways to train, by what is varied; an arm can be in several groups."""
        m, s, d = self.inputs[0], self.active[0], self.widths[-1]
        signs = {neuron: [Arm(neuron, d, on, m, "sign") for on in self.active] for neuron in ("absolute", "bilinear")}
        usual = Arm("absolute", d, s, m, "sign")
        return {
            "d": [Arm("relu", width, s, m) for width in self.widths],
            "d, no output bias": [Arm("relu", width, s, m, output_bias=False) for width in self.widths],
            "m": [Arm("relu", self.middle, s, number) for number in sorted(self.inputs)],
            "s": [Arm("relu", d, on, m) for on in self.active],
            **{f"s, {neuron}": arms for neuron, arms in signs.items()},
            "q": [usual._replace(q=q) for q in (2.0, 3.0, 4.0)],
            "superposed": [usual, *(usual._replace(superposed=n) for n in (m - 1, 2 * m // 3))],
            "plain": [Arm("relu", width, s, m, output_bias=False, balanced=False) for width in self.widths],
            "degree": [
                Arm("relu", OF_DEGREE, on, number, "signed", bias=bias, output_bias=False, balanced=False)
                for on, number in BY_DEGREE
                for bias in (False, True)
            ],
        }

    def arms(self) -> list[Arm]:
        """Return all ways to train, each once."""
        return list(dict.fromkeys(arm for arms in self.groups().values() for arm in arms))

    def task(self, arm: Arm) -> TrainToy:
        """Return the task that trains the networks of one arm."""
        own: Settings = (("d_mlp", arm.d), ("neuron", arm.neuron), ("bias", arm.bias), ("output_bias", arm.output_bias))
        own += (("q", arm.q), ("balanced", arm.balanced))
        data: Settings = (("n_features", arm.m), ("values", arm.values), ("batch_size", 128), ("n_validation", 1 << 13))
        data += (("d_superposed", arm.superposed),) if arm.superposed else ()
        cost = 1 + 4e-4 * self.seeds * comb(arm.m, 2) * arm.d / 10
        return TrainToy("UniversalProducts", own, ("FixedActive", arm.s), data, self.steps, 1e-2, self.seeds, cost)

    def fitted(self) -> FitReadoffs:
        """Return the task of the best readoffs of random neurons, with two inputs on."""
        return FitReadoffs(self.inputs[0], self.widths, DRAWS * self.seeds)

    def tasks(self) -> Sequence[Task]:
        """Return the tasks of random neurons and of trained networks."""
        return [self.fitted(), *(self.task(arm) for arm in self.arms())]

    def report(self, results: Results) -> Report:
        """Return a report on the bounds, on the plain squared error, and on networks without biases."""
        runs = {arm: results[self.task(arm)] for arm in self.arms()}
        parts = [_trained(self, runs, results[self.fitted()]), _plain(self, runs), _degree(self, runs)]
        evidence = [row for _, row in parts]
        sections = [section for section, _ in parts]
        certainty = (
            f"Brackets are 95 % Student t intervals over {self.seeds} networks for each way of training, and over "
            f"{DRAWS * self.seeds} draws of the weights of readoffs that are not trained. Reference losses are exact. "
            f"Training uses {self.steps:,} steps of Adam at one learning rate, so a loss above a reference loss can "
            "mean that training has not converged. Intervals are not corrected for their number."
        )
        table = Table(["question", "measured", "answer"], evidence).markdown()
        headline = f"{sections[0].finding.partition('. ')[0]}. {sections[1].finding.partition(': ')[0]}."
        subject = f"Products of all pairs of {self.inputs[0]} inputs"
        return Report(subject, Verdict(headline, certainty, table, {"evidence": evidence}), sections)


Part = tuple[Section, list[str]]


def _trained(study: PairProducts, runs: Runs, fitted: Result) -> Part:
    groups, d, M = study.groups(), study.widths[-1], comb(study.inputs[0], 2)
    names = {
        "d": "neurons",
        "d, no output bias": "neurons, without output biases",
        "m": "inputs",
        "s": "inputs on",
        "s, absolute": "inputs on, |z| neurons",
        "s, bilinear": "inputs on, bilinear neurons",
        "q": "exponent of the error",
        "superposed": "dimensions of the inputs",
    }
    rows: list[list[Any]] = []
    for name, varied in names.items():
        for arm in groups[name]:
            r = runs[arm]
            bound, dedicated = line(r, "bound"), 1 - arm.d / comb(arm.m, 2)
            ratio = over(r, "bound") if np.isfinite(bound) else None
            what = {"one": "AND", "sign": "signs"}[arm.values]
            sizes = [arm.neuron, what, arm.d, arm.s, arm.m, f"{arm.q:g}", arm.superposed or arm.m]
            rows.append([varied, *sizes, mean(r["loss"]), max(dedicated, 0.0), bound, ratio, mean(r["computed"])])
    fits: list[list[Any]] = []
    for name, x in (("d", study.widths), ("m", sorted(study.inputs)), ("s", study.active)):
        if len(x) > 1:
            losses = np.array([runs[arm]["loss"] for arm in groups[name]])
            bounds = [line(runs[arm], "bound") for arm in groups[name]]
            fits.append([names[name], exponent(x, losses), exact_exponent(x, bounds)])
    biased = [over(runs[arm], "bound") for arm in groups["d"]]
    plain = [over(runs[arm], "bound") for arm in groups["d, no output bias"]]
    random = np.asarray(fitted["loss"])  # (2, widths, draws)
    below = [
        [line(runs[arm], "bound") for arm in groups[name]] for name in ("d, no output bias", "d")
    ]  # bounds without and with output biases
    best: list[list[Any]] = [
        [width, *(cell for k in range(2) for cell in (mean(random[k, i] / below[k][i]), mean(random[k, i])))]
        for i, width in enumerate(study.widths)
    ]
    above = [row[1].mean for row in best]
    finding = (
        f"For ANDs of all pairs of {study.inputs[0]} inputs, two of which are on, trained ReLU networks have "
        f"{spanned([one.mean for one in plain], '.3f')} times the smallest loss that is possible for their width "
        f"without output biases, and {spanned([one.mean for one in biased], '.3f')} times with them, where the bound "
        f"is that of one neuron more. The best readoffs of random ReLU neurons have {spanned(above, '.2f')} times the "
        "bound without output biases. No exact optimum is known for more inputs on, inputs in superposition, and "
        "larger q; the table has what training reaches."
    )
    series = [
        Series.of("trained", study.widths, [mean(runs[arm]["loss"]) for arm in groups["d"]]),
        Series("bound", study.widths, below[1], "dotted", color="trained"),
        Series.of(
            "trained, no output bias", study.widths, [mean(runs[a]["loss"]) for a in groups["d, no output bias"]]
        ),
        Series("bound, no output bias", study.widths, below[0], "dotted", color="trained, no output bias"),
        Series.of("random, best readoff", study.widths, [row[4] for row in best], "dashed"),
    ]
    on = [
        Series.of(f"{neuron}", study.active, [over(runs[arm], "bound") for arm in groups[f"s, {neuron}"]])
        for neuron in ("absolute", "bilinear")
    ]
    caption = "Bands: 95 % intervals over networks."
    columns = ["varied", "neurons", "inputs", "d", "on", "m", "q", "dimensions of inputs", "loss", "dedicated", "bound"]
    section = Section(
        "trained",
        "How close do trained networks come to the smallest possible error of all products?",
        finding,
        tables=[
            Table(
                [*columns, "loss / bound", "sum of R²"],
                rows,
                5,
                note=(
                    "The loss is balanced between pairs that are on and off; outputs of 0 have the loss 1. *Bound*: "
                    "for every network of this width, of any depth; known for q = 2. An output bias counts as one more "
                    f"neuron, but with random signs it does not help. *Sum of R²*: over the {M} pairs of "
                    f"{study.inputs[0]} inputs, or those of m."
                ),
            ),
            Table(["varied", "exponent of the loss", "of the bound"], fits, note="Power laws fitted to ReLU networks."),
            Table(
                ["d", "no output bias: loss / bound", "loss", "output bias: loss / bound", "loss, output bias"],
                best,
                4,
                note="Random ReLU neurons with the best readoff of all, computed exactly.",
            ),
        ],
        charts=[
            Chart("trained", "Loss of all ANDs", series, "neurons", "balanced loss", log_y=True, caption=caption),
            Chart("trained-on", f"{d} neurons, more inputs on", on, "inputs on", "loss / bound", caption=caption),
        ],
        null_models="Outputs of 0 (loss 1), dedicated neurons (1 - d / pairs), random neurons, and a bound; all exact.",
        not_shown="More than one hidden layer, and other learning rates.",
        numbers={"runs": [arm._asdict() | runs[arm] for name in names for arm in groups[name]]},
    )
    near = all(one.high <= 1 + NEAR for one in plain)
    told = "loss / bound " + listed([f"{one} (d = {width})" for one, width in zip(plain, study.widths, strict=True)])
    question = f"Do trained networks reach the bound for ANDs, within {NEAR:.0%}?"
    return section, [question, told, "yes" if near else "no"]


def _plain(study: PairProducts, runs: Runs) -> Part:
    arms = study.groups()["plain"]
    rows: list[list[Any]] = []
    off = []
    for arm in arms:
        r, M = runs[arm], comb(arm.m, 2)
        rows.append([arm.d, mean(r["loss"]), 1 - arm.d / M, line(r, "bound"), mean(r["computed"])])
        off.append(mean(np.asarray(r["loss"]) / line(r, "bound")))
    finding = (
        "The plain squared error cannot reward superposition: the smallest possible loss is exactly that of dedicated "
        f"neurons, 1 - d / M for M pairs. Trained networks have {spanned([one.mean for one in off], '.4f')} "
        "times this loss, and sums of R² over all pairs of "
        f"{listed([f'{row[4]:.1f} at d = {row[0]}' for row in rows])}, where dedicated neurons have d."
    )
    widths = [arm.d for arm in arms]
    series = [
        Series.of("trained", widths, [row[1] for row in rows]),
        Series("dedicated neurons, and bound", widths, [row[2] for row in rows], "dashed"),
    ]
    section = Section(
        "plain",
        "Can the plain squared error reward products in superposition?",
        finding,
        tables=[
            Table(
                ["d", "plain loss", "dedicated, 1 - d / M", "bound", "sum of R²"],
                rows,
                4,
                note="The loss is divided by the share of pairs that are on. ReLU neurons, no output biases.",
            )
        ],
        charts=[Chart("plain", "Plain squared error of all ANDs", series, "neurons", "loss / loss of outputs of 0")],
        null_models="Dedicated neurons, and the bound for every network of this width, which are equal here.",
        not_shown="More than two inputs on without signs, where targets are correlated and the bound is lower.",
        numbers={"runs": [arm._asdict() | runs[arm] for arm in arms]},
    )
    told = f"smallest trained loss / loss of dedicated neurons {min(off, key=lambda one: one.mean)}"
    better, worse = (one.high < 1 - SAME for one in off), (one.low > 1 - SAME for one in off)
    answer = "yes" if any(better) else "no" if all(worse) else "undecided"
    return section, ["With plain squared errors, is any trained network better than dedicated neurons?", told, answer]


def _degree(study: PairProducts, runs: Runs) -> Part:
    from zoo.models.toy.products import homogeneous_r2

    rows: list[list[Any]] = []
    told = []
    for arm in study.groups()["degree"]:
        r2, bound = mean(np.asarray(runs[arm]["computed"]) / comb(arm.m, 2)), homogeneous_r2(arm.s)
        rows.append([arm.s, arm.m, "yes" if arm.bias else "no", r2, None if arm.bias else bound])
    for k in range(0, len(rows), 2):
        without, having = rows[k : k + 2]
        told.append(
            f"{without[3]} without biases and {having[3]} with biases at s = {without[0]}, where {without[4]:.4f} is "
            "possible without biases"
        )
    finding = (
        "ReLU networks without biases cannot multiply: for s inputs on, uniform in [-1, 1], the R² of a product is at "
        f"most (s + 2)(s + 4) / (s + 3)². Networks of {OF_DEGREE} neurons have an R² of {'; '.join(told)}."
    )
    names = [f"{row[0]} of {row[1]} on" for row in rows[::2]]
    missing = [1 - np.asarray(runs[arm]["computed"]) / comb(arm.m, 2) for arm in study.groups()["degree"]]
    least = [1 - row[4] for row in rows[::2]]
    series = [
        Series.of("without biases", names, [mean(part) for part in missing[::2]], "bars"),
        Series.of("with biases", names, [mean(part) for part in missing[1::2]], "bars"),
        Series("smallest possible without biases", names, least, "points"),
    ]
    section = Section(
        "degree",
        "Can ReLU networks without biases multiply real numbers?",
        finding,
        tables=[
            Table(
                ["on", "inputs", "biases", "mean R² of a product", "largest possible"],
                rows,
                4,
                note="Plain squared error, no output biases. R² is the mean over pairs of the squared correlation.",
            )
        ],
        charts=[Chart("degree", "Error of products of real numbers", series, "", "1 - mean R² of a product")],
        null_models="The largest R² of any network without biases, of any width and depth.",
        not_shown="Wider networks, and inputs of other distributions.",
        numbers={"missing": [mean(part) for part in missing], "least": least},
    )
    kept = all(row[3].low <= row[4] for row in rows[::2])
    passed = all(after[3].low > row[4] for row, after in zip(rows[::2], rows[1::2], strict=True))
    measured = "; ".join(
        f"R² {row[3]} without, {after[3]} with biases" for row, after in zip(rows[::2], rows[1::2], strict=True)
    )
    answer = "yes" if kept and passed else "no" if not kept else "undecided"
    return section, ["Do ReLU networks need biases to multiply?", measured, answer]
