"""Have readoffs of random neurons for products, which are not trained, the errors and the reach that theory states?

s of m inputs are on, with random signs, and a readoff gives the products of all pairs. Readoffs that are written by a
formula have an exact variance. The best readoffs of random square neurons have an exact sum of R².
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveInt

from zoo.analysis.agreement import Agreement
from zoo.errors import ZooError
from zoo.estimates import mean
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.toys import exact_exponent, exponent
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work

WRITTEN = (  # weights and neurons of readoffs that are written by a formula
    ("signs", "square"),
    ("signs", "absolute"),
    ("signs", "relu"),
    ("signs and biases", "absolute"),
    ("signs and biases", "relu"),
    ("gaussian", "square"),
    ("gaussian", "bilinear"),
)
KINDS = ("gaussian", "signs")  # weights of square neurons
DRAWS = 4  # draws of the weights for each seed
VECTORS = 256  # vectors for each draw
CASES = ("none on", "one on", "both on")
PROBABILITY = 0.25  # that an input of square neurons is not 0


@dataclass(frozen=True)
class WriteReadoffs(Task):
    """Measure the errors of one kind of readoff for all products.

    Widths, numbers of inputs that are on, and numbers of inputs are varied one at a time. The others are then the last
    width, and the first of the other numbers.
    """

    weights: str
    neuron: str
    widths: tuple[int, ...]
    active: tuple[int, ...]
    inputs: tuple[int, ...]
    n_seeds: int

    def do(self, work: Work) -> Result:
        """Return d times the mean squared errors by case, (values, draws, 3), and their exact values, (values, 3)."""
        from zoo.analysis.product_readoffs import exact_variances, written_variances

        found: Result = {}
        for name, sizes in self.sizes().items():
            found[name] = np.array(
                [
                    [written_variances(self.weights, self.neuron, *size, VECTORS, seed) for seed in range(self.n_seeds)]  # type: ignore[arg-type]
                    for size in sizes
                ]
            )
            exact = [exact_variances(self.weights, self.neuron, s) for s, _, _ in sizes]  # type: ignore[arg-type]
            found[f"{name}_exact"] = np.array(exact)
        return found

    def sizes(self) -> dict[str, list[tuple[int, int, int]]]:
        """Return inputs on, inputs and neurons, by which of them is varied."""
        s, m, d = self.active[0], self.inputs[0], self.widths[-1]
        return {
            "d": [(s, m, width) for width in self.widths],
            "s": [(on, m, d) for on in self.active],
            "m": [(s, number, d) for number in self.inputs],
        }

    def seconds(self) -> float:
        """Return an estimate of the time for products of matrices."""
        work = sum(d * m**2 for sizes in self.sizes().values() for _, m, d in sizes)
        return 0.5 + 2e-7 * self.n_seeds * work


@dataclass(frozen=True)
class FitSquares(Task):
    """Compute the best readoffs of random square neurons for all products and squares."""

    n_inputs: int
    widths: tuple[int, ...]
    n_seeds: int

    def do(self, work: Work) -> Result:
        """Return sums of R², and errors of exact readoffs.

        `gaussian` and `signs` (widths, draws, 2) are the sums over pairs and over squares. `gaussian_error` and
        `signs_error` (draws,) are the largest errors of exact readoffs at the largest width, NaN where there is none.
        """
        from zoo.analysis.product_readoffs import error_of_exact_readoff, random_weights, square_r2

        found: Result = {}
        for kind in KINDS:
            drawn = [[random_weights(kind, d, self.n_inputs, k) for k in range(self.n_seeds)] for d in self.widths]
            found[kind] = np.array([[square_r2(W, PROBABILITY) for W in row] for row in drawn])
            found[f"{kind}_error"] = np.array([error_of_exact_readoff(W, 0) for W in drawn[-1]])
        return found

    def seconds(self) -> float:
        """Return an estimate of the time for singular values."""
        return 0.5 + 1e-9 * self.n_seeds * self.n_inputs**4 * sum(self.widths)


@dataclass(frozen=True)
class ProductReadoffs(Study):
    """Readoffs of random neurons for products of all pairs of inputs are written by a formula, or fitted.

    Args:
        inputs: Numbers m of inputs; most readoffs have the first.
        active: Numbers s of inputs that are on at once; most readoffs have the first.
        widths: Numbers d of neurons of written readoffs; most have the last.
        square_widths: Numbers d of square neurons, apart from those from which on all products are exact.
        seeds: A fourth of the number of draws of random weights.
    """

    inputs: tuple[PositiveInt, ...] = (12, 8, 16)
    active: tuple[PositiveInt, ...] = (2, 3, 4, 6)
    widths: tuple[PositiveInt, ...] = (64, 256, 1024, 4096)
    square_widths: tuple[PositiveInt, ...] = (12, 20, 40)
    seeds: AtLeastTwo = 4

    def check(self) -> None:
        """Refuse numbers of active inputs that do not fit."""
        if min(self.active) < 2 or max(self.active) > self.inputs[0]:
            raise ZooError(f"active is {self.active}; numbers must be 2 to the first of inputs, {self.inputs[0]}")
        if self.active[0] > min(self.inputs):
            raise ZooError(f"inputs are {self.inputs}; all must be at least the first of active, {self.active[0]}")

    def written(self) -> dict[tuple[str, str], WriteReadoffs]:
        """Return the tasks of readoffs that are written by a formula, by weights and neurons."""
        n = DRAWS * self.seeds
        return {kind: WriteReadoffs(*kind, self.widths, self.active, self.inputs, n) for kind in WRITTEN}

    def squares(self) -> FitSquares:
        """Return the task of square neurons."""
        m, M = self.inputs[0], comb(self.inputs[0], 2)
        return FitSquares(m, (*self.square_widths, M + 1, M + m, M + 2 * m), DRAWS * self.seeds)

    def tasks(self) -> Sequence[Task]:
        """Return the tasks of written readoffs and of square neurons."""
        return [*self.written().values(), self.squares()]

    def report(self, results: Results) -> Report:
        """Return a report on written readoffs, and on square neurons."""
        written, first = _written(self, {kind: results[task] for kind, task in self.written().items()})
        squares, second = _squares(self, results[self.squares()])
        evidence = [first, second]
        certainty = (
            f"Brackets are 95 % Student t intervals over {DRAWS * self.seeds} draws of the random weights. Theory is "
            "exact and has no fitted parameters. Intervals are not corrected for their number."
        )
        table = Table(["question", "measured", "answer"], evidence).markdown()
        headline = f"{written.finding.partition('. ')[0]}. {squares.finding.partition('. ')[0]}."
        subject = f"Readoffs of random neurons for products of all pairs of {self.inputs[0]} inputs"
        return Report(subject, Verdict(headline, certainty, table, {"evidence": evidence}), [written, squares])


Part = tuple[Section, list[str]]


def _written(study: ProductReadoffs, written: Mapping[tuple[str, str], Result]) -> Part:
    rows: list[list[Any]] = []
    fits: list[list[Any]] = []
    ratios = []  # measured / exact
    sizes = {"d": study.widths, "s": study.active, "m": study.inputs}
    for (weights, neuron), r in written.items():
        for s, values, exact in zip(study.active, np.asarray(r["s"]), np.asarray(r["s_exact"]), strict=True):
            cells = [cell for k in range(3) for cell in (mean(values[:, k]), float(exact[k]))]
            rows.append([neuron, weights, s, *cells])
        row: list[Any] = [neuron, weights]
        for name, x in sizes.items():
            per = np.asarray(x) if name == "d" else 1.0  # variances are measured times d
            values, exact = np.asarray(r[name])[..., 0].T / per, np.asarray(r[f"{name}_exact"])[:, 0] / per
            known = len(x) > 1
            row += [exponent(x, values.T) if known else None, exact_exponent(x, exact.tolist()) if known else None]
            ratios += list(values.T / exact[:, None])
        fits.append(row)
    slopes, agreement = [row[2] for row in fits], Agreement.of(np.array(ratios))
    finding = (
        f"Squared errors of readoffs written by a formula are proportional to 1 / d: the exponent is "
        f"{min(one.mean for one in slopes):.3f} to {max(one.mean for one in slopes):.3f}, and "
        f"{sum(-1 in one for one in slopes)} of {len(slopes)} intervals contain -1. They grow with the number s of "
        f"inputs that are on as the exact formulas say, and do not depend on the number of inputs m: {agreement}."
    )
    series = []
    for (weights, neuron), r in written.items():
        values = [mean(v[:, 0] / d) for d, v in zip(study.widths, np.asarray(r["d"]), strict=True)]
        series.append(Series.of(f"{neuron}, {weights}", study.widths, values))
    title, label = f"Written readoffs, {study.active[0]} inputs on", "mean squared error, none on"
    chart = Chart("written", title, series, "neurons", label, True, True, caption="Bands: 95 % intervals over draws.")
    columns = [
        "neurons",
        "weights",
        "on",
        *(name for case in CASES for name in (f"error² x d, {case}", f"exact, {case}")),
    ]
    fitted = ["neurons", "weights", *(cell for name in sizes for cell in (f"exponent in {name}", f"exact, {name}"))]
    section = Section(
        "written",
        "Have readoffs that are written by a formula the errors that theory states?",
        finding,
        tables=[
            Table(
                columns,
                rows,
                note=(
                    f"d = {study.widths[-1]:,} neurons, inputs on are +-1. *Signs*: weights +-1. *Signs and "
                    "biases*: also biases that are uniform in [-s, s]; only these ReLU and absolute neurons are also "
                    "right for inputs of other sizes. *Gaussian*: standard normal weights."
                ),
            ),
            Table(fitted, fits, note="Exponents of power laws fitted to the mean squared error, none of the pair on."),
        ],
        charts=[chart],
        null_models="Exact variances over all random weights, without fitted parameters.",
        not_shown="A number of inputs on that varies, and inputs other than +-1.",
        numbers={
            "drawn": [one.y for one in series],
            "kinds": [list(kind) for kind in written],
            "runs": [dict(r) for r in written.values()],
        },
    )
    question = "Do errors of written products depend on d, s and m as theory states?"
    return section, [question, agreement.brief, agreement.answer]


def _squares(study: ProductReadoffs, found: Result) -> Part:
    m, M = study.inputs[0], comb(study.inputs[0], 2)
    rows: list[list[Any]] = []
    off = 0.0
    for kind, most in (("gaussian", M + m), ("signs", M + 1)):
        for d, values in zip(study.squares().widths, np.asarray(found[kind]), strict=True):
            total = mean(values.sum(1))
            rows.append([kind, d, mean(values[:, 0]), mean(values[:, 1]), total, min(d, most)])
            off = max(off, abs(total.mean - min(d, most))) if kind == "gaussian" else off
    errors = [error for kind in KINDS for error in np.asarray(found[f"{kind}_error"]).tolist() if np.isfinite(error)]
    d = study.squares().widths[-1]
    finding = (
        "The best readoffs of d random square neurons with Gaussian weights have a sum of R² over all pairs and "
        f"squares of min(d, M + m), here up to {M + m} (largest difference {off:.1g}). Below that width squares take "
        f"a part of it. With weights +-1, squares are seen only by their sum, and M + 1 = {M + 1} neurons in general "
        f"position are enough. For {len(errors)} of {2 * DRAWS * study.seeds} draws of {d} neurons, a readoff "
        f"gives all products, with errors of at most {max(errors):.1g}."
    )
    series = []
    for kind in KINDS:
        chosen = [row for row in rows if row[0] == kind]
        series.append(Series.of(f"{kind} weights", [row[1] for row in chosen], [row[4] for row in chosen]))
        x, y = [row[1] for row in chosen], [row[5] for row in chosen]
        series.append(Series(f"{kind} weights, theory", x, y, "dotted", color=f"{kind} weights"))
    section = Section(
        "squares",
        "How many products do random square neurons compute?",
        finding,
        tables=[
            Table(
                ["weights", "d", "sum of R², pairs", "squares", "both", "in theory"],
                rows,
                2,
                note=(
                    f"M = {M} pairs, m = {m} inputs, which are independent, uniform in [-1, 1] and not 0 with "
                    f"probability {PROBABILITY}. Random signs can repeat a neuron, which then adds nothing."
                ),
            )
        ],
        charts=[Chart("squares", "Sum of R² of square neurons", series, "neurons", "sum of R² over pairs and squares")],
        null_models="The number of dimensions that the neurons span, in closed form.",
        not_shown="Inputs that are not independent: their squares are correlated, and R² no longer add up.",
        numbers={"errors": errors, "theory": [row[5] for row in rows]},
    )
    told = f"largest difference {off:.1g}"
    return section, ["Is the sum of R² of square neurons min(d, M + m)?", told, "yes" if off < 1e-6 else "no"]
