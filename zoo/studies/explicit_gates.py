"""How accurately do random neurons compute logic gates with an explicit readoff, and does theory predict the errors?

A readoff is the output layer of a network with one hidden layer. Here the hidden layer is random, and the weights of
the readoff are given by a formula; nothing is trained. Case 00 means that both inputs of a pair are off, case 11 that
both are on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveFloat, PositiveInt

from zoo.analysis.agreement import TOLERANCE, Agreement
from zoo.errors import ZooError
from zoo.estimates import Estimate, mean
from zoo.report import Chart, Report, Section, Series, Style, Table, Verdict
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work
from zoo.wording import listed

GATES = ("and", "xor")
AFFINE = {"and": 0.25, "xor": 0.5}  # |error| of the best affine readoff of the inputs
COLORS = ("first", "second", "third", "fourth")
STEADY = 1.1  # growth of errors per depth up to which they count as not growing
AGREE = {
    "yes": "Random neurons compute gates of sparse inputs with the errors that theory predicts",
    "no": "Random neurons do not compute gates of sparse inputs with the errors that theory predicts",
    "undecided": "It is undecided whether random neurons have the errors that theory predicts",
}
HOW = {"yes": "agree", "no": "do not agree", "undecided": "may or may not agree; more draws are needed to decide"}

Found = Mapping[Any, Sequence[Result]]  # by setting: results of all draws


@dataclass(frozen=True)
class On:
    """The number of inputs that are on.

    Args:
        n: Number of inputs that are on, exactly or on average.
        bernoulli: Whether each input is on independently with the same probability, so that `n` is the average.
    """

    n: float
    bernoulli: bool = False

    def __str__(self) -> str:
        return f"Bernoulli {self.n:g}" if self.bernoulli else f"{self.n:g}"

    @property
    def told(self) -> str:
        """The number in words, for a legend."""
        return f"{self.n:g} on average (Bernoulli)" if self.bernoulli else f"{self.n:g} on"


@dataclass(frozen=True)
class ComputeGates(Task):
    """Compute a gate of all pairs of inputs with random neurons and the readoff for this number of active inputs."""

    gate: str
    on: On
    d_mlp: int
    n_features: int
    n_vectors: int
    seed: int

    def do(self, work: Work) -> Result:
        """Return the errors by case, and the rms error of case 00 in theory."""
        from zoo.active_inputs import BernoulliActive, FixedActive
        from zoo.analysis.gate_simulations import errors_of_gates

        active = BernoulliActive(self.on.n) if self.on.bernoulli else FixedActive(int(self.on.n))
        return errors_of_gates(self.gate, active, self.d_mlp, self.n_features, self.n_vectors, self.seed)

    def seconds(self) -> float:
        """Return an estimate of the time for a product of matrices, which is most of the time."""
        return _seconds(self.n_features, self.d_mlp, self.n_vectors)


@dataclass(frozen=True)
class ComputeWithSigns(Task):
    """Compute a gate of all pairs of inputs with random neurons whose weights are 1 or -1, and their readoff."""

    gate: str
    n_active: int
    d_mlp: int
    n_features: int
    n_vectors: int
    seed: int

    def do(self, work: Work) -> Result:
        """Return the errors by case, and the rms error of case 00 in theory."""
        from zoo.analysis.gate_simulations import errors_with_signs

        return errors_with_signs(self.gate, self.n_active, self.d_mlp, self.n_features, self.n_vectors, self.seed)

    def seconds(self) -> float:
        """Return an estimate of the time for a product of matrices, which is most of the time."""
        return _seconds(self.n_features, self.d_mlp, self.n_vectors)


@dataclass(frozen=True)
class UseAtOtherNumber(Task):
    """Compute AND with a readoff that was built for another number of active inputs."""

    n_active: int
    n_features: int
    n_vectors: int
    seed: int
    built_for: int = 4
    d_mlp: int = 2048

    def do(self, work: Work) -> Result:
        """Return the errors by case, and the mean output of case 11 in theory."""
        from zoo.analysis.gate_simulations import errors_at_other_numbers

        sizes = (self.d_mlp, self.n_features, self.n_vectors)
        return errors_at_other_numbers(self.built_for, self.n_active, *sizes, self.seed)

    def seconds(self) -> float:
        """Return an estimate of the time for a product of matrices, which is most of the time."""
        return _seconds(self.n_features, self.d_mlp, self.n_vectors)


@dataclass(frozen=True)
class ComputeOnSuperposed(Task):
    """Compute AND of inputs that are superposed in few dimensions."""

    d_in: int
    d_mlp: int
    n_features: int
    n_vectors: int
    seed: int
    n_active: int = 2

    def do(self, work: Work) -> Result:
        """Return the errors by case, and the rms error of case 00 in theory with its floor."""
        from zoo.analysis.gate_simulations import errors_of_superposed_inputs

        sizes = (self.d_mlp, self.n_active, self.n_features, self.n_vectors)
        return errors_of_superposed_inputs(self.d_in, *sizes, self.seed)

    def seconds(self) -> float:
        """Return an estimate of the time for a product of matrices, which is most of the time."""
        return _seconds(self.n_features, self.d_mlp, self.n_vectors) + 0.15


@dataclass(frozen=True)
class ComputeInDepth(Task):
    """Compute gates of gates: ANDs in several small networks, then ORs of these, and ORs of the ORs."""

    d_mlp: int
    error_correction: bool
    in_group: int
    n_vectors: int
    seed: int
    depth: int = 4
    n_groups: int = 4

    def do(self, work: Work) -> Result:
        """Return the rms errors by depth."""
        from zoo.analysis.gate_simulations import errors_in_depth

        sizes = (self.depth, self.n_groups, self.in_group, self.n_vectors)
        return {"rms": errors_in_depth(self.d_mlp, self.error_correction, *sizes, self.seed)}

    def seconds(self) -> float:
        """Return an estimate of the time for products of matrices, which is most of the time."""
        return _seconds(self.n_groups * self.in_group, self.d_mlp, self.n_vectors)


def _seconds(n_features: int, d_mlp: int, n_vectors: int) -> float:
    return 0.05 + 3.5e-11 * n_features**2 * d_mlp * (n_vectors + 100)


@dataclass(frozen=True)
class ExplicitGates(Study):
    """Random neurons compute AND and XOR of all pairs of sparse inputs; their errors are compared with theory.

    Args:
        n_features: Number of inputs m.
        n_vectors: Number of input vectors per draw of weights.
        widths: Numbers of neurons d with which AND and XOR are simulated.
        active: Numbers of inputs that are on at once.
        bernoulli: Average numbers of inputs that are on, if each is on independently of the others.
        used_at: Numbers of inputs that are on when a readoff built for 4 is used.
        superposed_in: Numbers of dimensions in which inputs are superposed.
        superposed_widths: Numbers of neurons that read superposed inputs.
        depth_widths: Numbers of neurons in every layer of gates of gates.
        in_group: Number of inputs of each of the 4 networks whose gates feed further gates.
        seeds: Number of draws of the weights.
    """

    n_features: PositiveInt = 100
    n_vectors: PositiveInt = 200
    widths: tuple[PositiveInt, ...] = (128, 256, 512, 1024, 2048, 4096, 8192)
    active: tuple[PositiveInt, ...] = (2, 4, 8)
    bernoulli: tuple[PositiveFloat, ...] = (4.0,)
    used_at: tuple[PositiveInt, ...] = (2, 3, 4, 6, 8, 12, 16)
    superposed_in: tuple[PositiveInt, ...] = (25, 50, 100, 200, 400, 1600)
    superposed_widths: tuple[PositiveInt, ...] = (512, 2048, 8192)
    depth_widths: tuple[PositiveInt, ...] = (512, 2048, 8192)
    in_group: PositiveInt = 16
    seeds: AtLeastTwo = 3

    def check(self) -> None:
        """Refuse too few inputs or widths."""
        if len(set(self.widths)) < 2:
            raise ZooError(f"widths is {self.widths}; the exponent of the error requires at least 2 different widths")
        if self.n_features < (least := max(*self.used_at, *self.active) + 2):
            raise ZooError(
                f"n_features is {self.n_features}; it must be at least {least}, 2 more than the largest value in "
                "active and used_at"
            )
        if min(*self.used_at, *self.active) < 2:
            raise ZooError("active and used_at must be at least 2: case 11 of a gate requires two inputs that are on")

    def tasks(self) -> Sequence[Task]:
        """Return one task for every setting and draw."""
        kinds = (self._gates(), self._signs(), self._elsewhere(), self._superposed(), self._depth())
        return [task for kind in kinds for tasks in kind.values() for task in tasks]

    def _gates(self) -> dict[tuple[str, On, int], list[Task]]:
        on = [*map(On, self.active), *(On(n, bernoulli=True) for n in self.bernoulli)]
        return {
            (gate, n, d): [ComputeGates(gate, n, d, self.n_features, self.n_vectors, s) for s in range(self.seeds)]
            for gate in GATES
            for n in on
            for d in self.widths
        }

    def _signs(self) -> dict[tuple[str, On, int], list[Task]]:
        sizes = (self.n_features, self.n_vectors)
        return {
            (gate, On(n), d): [ComputeWithSigns(gate, n, d, *sizes, s) for s in range(self.seeds)]
            for gate in GATES
            for n in self.active
            for d in self.widths
        }

    def _elsewhere(self) -> dict[int, list[Task]]:
        sizes = (self.n_features, self.n_vectors)
        return {n: [UseAtOtherNumber(n, *sizes, s) for s in range(self.seeds)] for n in self.used_at}

    def _superposed(self) -> dict[tuple[int, int], list[Task]]:
        return {
            (d_in, d): [ComputeOnSuperposed(d_in, d, self.n_features, self.n_vectors, s) for s in range(self.seeds)]
            for d_in in self.superposed_in
            for d in self.superposed_widths
        }

    def _depth(self) -> dict[tuple[int, bool], list[Task]]:
        return {
            (d, corrected): [ComputeInDepth(d, corrected, self.in_group, self.n_vectors, s) for s in range(self.seeds)]
            for d in self.depth_widths
            for corrected in (False, True)
        }

    def report(self, results: Results) -> Report:
        """Return a report that compares errors with theory, by width, number of inputs, dimension and depth."""

        def read(kind: Mapping[Any, Sequence[Task]]) -> Found:
            return {setting: [results[task] for task in tasks] for setting, tasks in kind.items()}

        gates, signs, elsewhere = read(self._gates()), read(self._signs()), read(self._elsewhere())
        superposed, depth = read(self._superposed()), read(self._depth())
        sections = [
            _closed_form(gates, self.seeds),
            _signs_section(gates, signs),
            _width(gates, elsewhere),
            _superposed_section(superposed),
            _depth_section(depth),
        ]
        fits = {"closed form": Agreement.of(_ratios(gates)), "superposed": Agreement.of(_ratios(superposed))}
        fits["signs"] = Agreement.of(_ratios(signs))
        fewest = On(self.active[0])
        gained = gains(gates, signs)["and", fewest]
        slope, kept, d = exponents(gates, "and", fewest)["mean"], steady(depth), self.depth_widths[-1]
        falls = "yes" if -0.5 in slope else "about" if abs(slope.mean + 0.5) < 0.05 else "no"
        stops = f"at d = {listed([f'{n:,}' for n in kept])}" if kept else "at no width"
        grows = f"{growth(depth, d, True):.2f} per depth, without it {growth(depth, d, False):.2f}"
        evidence = [
            ["Does the closed form predict the errors?", fits["closed form"].brief, fits["closed form"].answer],
            ["Does theory predict the errors of weights 1 and -1?", fits["signs"].brief, fits["signs"].answer],
            [
                f"Have weights 1 and -1 smaller errors than Gaussian ones? AND, {fewest.told}",
                f"Gaussian / signs {gained}",
                "yes" if gained.low > 1 else "no" if gained.high < 1 else "undecided",
            ],
            ["Is the error proportional to 1 / sqrt(d)?", f"exponent {slope}", falls],
            ["Does theory predict errors of superposed inputs?", fits["superposed"].brief, fits["superposed"].answer],
            ["Does error correction stop the growth of errors with depth?", f"growth at d = {d:,}: {grows}", stops],
        ]
        certainty = (
            f"Brackets are 95 % Student t intervals over {self.seeds} draws of the weights. Theory counts as right if "
            "the interval of the overall ratio, measured over theory, lies within "
            f"{100 * TOLERANCE:g} % of 1 and no setting's interval lies outside that range. Intervals are not "
            "corrected for their number."
        )
        numbers = {"evidence": evidence, "draws": self.seeds, "agreement": fits, "exponent": slope, "steady": kept}
        table = Table(["question", "measured", "answer"], evidence).markdown()
        verdict = Verdict(f"{AGREE[fits['closed form'].answer]}.", certainty, table, numbers)
        subject = f"Gates of all pairs of {self.n_features:,} inputs, from up to {max(self.widths):,} random neurons"
        return Report(subject, verdict, sections)


def exponents(gates: Found, gate: str, on: On) -> dict[str, Estimate]:
    """Return the slopes of the log error of 00 against log d, of the mean and of the largest error, over draws."""
    runs = {d: found for (g, n, d), found in gates.items() if (g, n) == (gate, on)}
    draws = range(len(next(iter(runs.values()))))
    return {
        name: mean(
            [np.polyfit(np.log([*runs]), np.log([each[i][name]["00"] for each in runs.values()]), 1)[0] for i in draws]
        )
        for name in ("mean", "max")
    }


def gains(gates: Found, signs: Found) -> dict[tuple[str, On], Estimate]:
    """Return the rms error of 00 with Gaussian weights over that with weights 1 and -1, by gate and inputs on.

    The ratio is a geometric mean over widths; the interval is over draws.
    """
    found = {}
    for gate, on in dict.fromkeys((gate, on) for gate, on, _ in signs):
        pairs = [(gates[setting], each) for setting, each in signs.items() if setting[:2] == (gate, on)]
        logs = [[np.log(g["rms"]["00"] / s["rms"]["00"]) for g, s in zip(*pair, strict=True)] for pair in pairs]
        found[gate, on] = mean(np.exp(np.mean(logs, 0)))
    return found


def growth(depth: Found, d: int, corrected: bool) -> Estimate:
    """Return the factor by which the error grows per depth, from the second on, the first that reads other gates."""
    rms = np.array([r["rms"] for r in depth[d, corrected]])
    return mean((rms[:, -1] / rms[:, 1]) ** (1 / (rms.shape[1] - 2)))


def steady(depth: Found) -> list[int]:
    """Return the widths at which error correction stops the growth of errors."""
    return [d for d in dict.fromkeys(d for d, _ in depth) if growth(depth, d, True).high <= STEADY]


def _ratios(runs: Found) -> np.ndarray:
    """Return ratios of measured to theoretical rms error of 00, (settings, seeds), of settings with a theory."""
    ratios = [[r["rms"]["00"] / r["theory"] for r in each] for each in runs.values()]
    return np.array([row for row in ratios if np.isfinite(row).all()])


def _of_00(runs: Sequence[Result], name: str = "rms") -> Estimate:
    return mean([r[name]["00"] for r in runs])


def _points(name: str, x: Sequence[Any], estimates: Sequence[Estimate], y: Sequence[float], color: str) -> list[Series]:
    """Return two series: measurements as points, and theory as a dashed line."""
    theory = Series(name, x, y, "dashed", labels=["theory"] * len(x), color=color)
    return [theory, Series.of(name, x, estimates, "points", color=color)]


def _closed_form(gates: Found, seeds: int) -> Section:
    from zoo.models.toy.gaussian_signs import kappa

    fit, widths = Agreement.of(_ratios(gates)), list(dict.fromkeys(d for _, _, d in gates))
    fixed = [on for on in dict.fromkeys(on for _, on, _ in gates) if not on.bernoulli]
    charts = []
    for gate in GATES:
        lines: list[Series] = []
        beside: list[Series] = []
        for on, color in zip(fixed, cycle(COLORS)):
            runs = [gates[gate, on, d] for d in widths]
            lines += _points(
                on.told, widths, [_of_00(each) for each in runs], [each[0]["theory"] for each in runs], color
            )
            ratios = [mean([r["rms"]["00"] / r["theory"] for r in each]) for each in runs]
            beside.append(Series.of(on.told, [f"{d:,}" for d in widths], ratios, "points", color=color))
        lines.append(Series("best affine readoff of the inputs", widths, [AFFINE[gate]] * len(widths), "dotted"))
        title, label = f"{gate.upper()}: error of 00 against width", "rms error of 00"
        caption = "Dashed: kappa sqrt(l / 2) / sqrt(d)." if gate == "and" else "Dashed: the closed form."
        caption += " Whiskers, often smaller than the points: 95 % intervals over draws of the weights."
        charts.append(Chart(f"closed-form-{gate}", title, lines, "neurons d", label, True, True, caption=caption))
        title, label = f"{gate.upper()}: measured error of 00 over theory", "ratio"
        charts.append(
            Chart(f"closed-form-{gate}-ratio", title, beside, "neurons d", label, caption="Whiskers: 95 % intervals.")
        )
    rows = []
    for (gate, on, d), each in gates.items():
        theory = each[0]["theory"]
        cases = [float(np.mean([r["mean"][case] for r in each])) for case in ("00", "01", "10", "11")]
        ratio = mean([r["rms"]["00"] / theory for r in each]) if np.isfinite(theory) else None
        most = float(np.mean([max(r["max"].values()) for r in each]))
        rows.append([gate, str(on), d, _of_00(each), theory, ratio, *cases, most])
    columns = ["gate", "inputs on", "d", "rms error of 00", "theory", "ratio"]
    columns += ["mean |error| of 00", "of 01", "of 10", "of 11", "largest |error|"]
    known = ", ".join(f"kappa({on}) = {float(kappa(int(on.n))):.3f}" for on in fixed)
    return Section(
        "closed-form",
        "Does the closed form predict the errors of random neurons with an explicit readoff?",
        f"Simulated errors and their closed form {HOW[fit.answer]}: {fit}.",
        tables=[
            f"l is the number of inputs that are on. {known}; for large l, kappa(l) tends to "
            f"{np.pi * np.sqrt(np.pi / 2):.3f} sqrt(l).",
            Table(columns, rows, 4),
        ],
        charts=charts,
        null_models="The closed form, which has no fitted parameters; the best affine readoff of the inputs, which "
        "uses no neurons.",
        not_shown=(
            "Biases and gates of three inputs are not tested. There is no theory "
            f"of the errors for Bernoulli inputs. {seeds} draws of the weights are few, and with so many intervals "
            "some miss 1 by chance."
        ),
        numbers={
            "agreement": fit,
            "runs": [
                {"gate": gate, "on": str(on), "d": d, "seed": seed} | r
                for (gate, on, d), each in gates.items()
                for seed, r in enumerate(each)
            ],
        },
    )


def _signs_section(gates: Found, signs: Found) -> Section:
    fit, gained = Agreement.of(_ratios(signs)), gains(gates, signs)
    fixed, widths = list(dict.fromkeys(on for _, on, _ in signs)), list(dict.fromkeys(d for _, _, d in signs))
    theory = {
        (gate, on): gates[gate, on, widths[0]][0]["theory"] / signs[gate, on, widths[0]][0]["theory"]
        for gate, on in gained
    }
    few = fixed[0]
    told = {
        name: runs["and", few, widths[0]][0]["theory"] * widths[0] ** 0.5
        for name, runs in (("Gaussian", gates), ("signs", signs))
    }
    finding = (
        f"With {few} inputs on, the rms error of 00 of AND is in theory {told['signs']:.3f} / sqrt(d) with weights 1 "
        f"and -1, and {told['Gaussian']:.3f} / sqrt(d) with Gaussian weights. Measured, Gaussian weights have "
        f"{gained['and', few]} times the error of weights 1 and -1 (theory {theory['and', few]:.3f}), and for XOR "
        f"{gained['xor', few]} times ({theory['xor', few]:.3f}). Simulation and theory {HOW[fit.answer]}: {fit}."
    )
    charts = []
    for gate in GATES:
        lines: list[Series] = []
        for (name, runs), color in zip(
            (("Gaussian weights", gates), ("weights 1 and -1", signs)), COLORS, strict=False
        ):
            each = [runs[gate, few, d] for d in widths]
            lines += _points(name, widths, [_of_00(r) for r in each], [r[0]["theory"] for r in each], color)
        title = f"{gate.upper()}, {few.told}: Gaussian weights, and weights 1 and -1"
        caption = "Dashed: theory. Whiskers, often smaller than the points: 95 % intervals over draws of the weights."
        charts.append(Chart(f"signs-{gate}", title, lines, "neurons d", "rms error of 00", True, True, caption=caption))
    rows = [
        [gate, str(on), d, _of_00(gates[gate, on, d]), gates[gate, on, d][0]["theory"], _of_00(each),
         each[0]["theory"], mean([r["rms"]["00"] / r["theory"] for r in each]),
         mean([r["rms"]["11"] for r in each])]
        for (gate, on, d), each in signs.items()
    ]  # fmt: skip
    columns = ["gate", "inputs on", "d", "Gaussian: rms error of 00", "theory", "signs: rms error of 00", "theory"]
    columns += ["ratio", "signs: rms error of 11"]
    return Section(
        "signs",
        "Are errors smaller if the weights of random neurons are 1 and -1?",
        finding,
        tables=[
            Table(columns, rows, 4),
            Table(
                ["gate", "inputs on", "Gaussian / signs", "theory"],
                [[gate, str(on), ratio, theory[gate, on]] for (gate, on), ratio in gained.items()],
            ),
        ],
        charts=charts,
        null_models="Gaussian weights with their readoff, and the closed forms of both, without fitted parameters.",
        not_shown=(
            "The readoff of weights 1 and -1 subtracts the mean activation of a neuron, and the other one does not; "
            "with it, Gaussian weights would have 3.533 / sqrt(d) for AND with 2 inputs on. Readoffs that are trained, "
            "inputs that vary in size or number, and superposed inputs are not tested with weights 1 and -1."
        ),
        numbers={
            "agreement": fit,
            "gains": {f"{gate}, {on}": ratio for (gate, on), ratio in gained.items()},
            "runs": [
                {"gate": gate, "on": str(on), "d": d, "seed": seed} | r
                for (gate, on, d), each in signs.items()
                for seed, r in enumerate(each)
            ],
        },
    )


def _width(gates: Found, elsewhere: Found) -> Section:
    kinds = list(dict.fromkeys((gate, on) for gate, on, _ in gates))
    slopes = {f"{gate.upper()}, {on.told}": exponents(gates, gate, on) for gate, on in kinds}

    def holds(name: str) -> str:
        half, means = sum(-0.5 in slope[name] for slope in slopes.values()), [s[name].mean for s in slopes.values()]
        return f"{min(means):.3f} to {max(means):.3f} ({half} of {len(slopes)} intervals contain -1/2)"

    near = max(abs(slope[name].mean + 0.5) for slope in slopes.values() for name in ("mean", "max"))
    on = list(elsewhere)
    ones = {n: mean([1 + r["bias"]["11"] for r in each]) for n, each in elsewhere.items()}
    zeros = {n: mean([r["bias"]["00"] for r in each]) for n, each in elsewhere.items()}
    expected = {n: each[0]["theory"] for n, each in elsewhere.items()}
    biased = [str(n) for n in on if 0 not in zeros[n]]
    finding = (
        f"Errors {'are' if near < 0.05 else 'are not always'} proportional to 1 / sqrt(d): the exponent of the mean "
        f"error is {holds('mean')}, that of the largest error {holds('max')}. A readoff built for 4 inputs on gives "
        f"{ones[on[-1]]} with {on[-1]} inputs on, where 1 is right (theory {expected[on[-1]]:.3f}). Its outputs in "
        "case 00 are " + (f"biased at {listed(biased)} inputs." if biased else "unbiased.")
    )
    lines = []
    for (gate, n), color in zip([kind for kind in kinds if kind[0] == "and"], cycle(COLORS)):
        runs = {d: each for (g, k, d), each in gates.items() if (g, k) == (gate, n)}
        for name, style in (("mean", "line"), ("max", "dotted")):
            spans = [_of_00(each, name) for each in runs.values()]
            labels = ["mean" if name == "mean" else "largest"] * len(runs)
            lines.append(Series.of(n.told, [*runs], spans, style, labels=labels, color=color))  # type: ignore[arg-type]
    caption = "Solid: mean; dotted: largest. Bands: 95 % intervals over draws of the weights."
    title, label = "AND: mean and largest error of 00", "|error| of 00"
    charts = [Chart("width-errors", title, lines, "neurons d", label, True, True, caption=caption)]
    lines = _points("mean output of 11", on, [*ones.values()], [*expected.values()], COLORS[0])
    lines += _points("mean output of 00", on, [*zeros.values()], [0.0] * len(on), COLORS[1])
    title, caption = (
        "A readoff for 4 inputs on, used at other numbers",
        "Dashed: theory, kappa(4) / kappa(l) and 0. Whiskers: 95 % intervals.",
    )
    charts.append(Chart("width-used-at", title, lines, "inputs on", "mean output", caption=caption))
    falls = [[gate, str(n), *slopes[f"{gate.upper()}, {n.told}"].values()] for gate, n in kinds]
    used = [[n, ones[n], expected[n], zeros[n]] for n in on]
    return Section(
        "width",
        "How do the errors of random neurons depend on the number of neurons and on the number of inputs that are on?",
        finding,
        tables=[
            Table(["gate", "inputs on", "exponent of the mean error", "exponent of the largest error"], falls),
            Table(["inputs on (readoff built for 4)", "mean output of 11", "theory", "mean output of 00"], used, 4),
        ],
        charts=charts,
        null_models="The exponent -1/2 and kappa(4) / kappa(l) of the theory, neither of which is fitted.",
        not_shown=(
            "Other widths are not simulated. The largest error grows with the number of vectors and pairs over which "
            "it is taken. Intervals are over draws of the weights, of which there are few."
        ),
        numbers={
            "exponents": slopes,
            "used_at": [{"on": n, "seed": seed} | r for n, each in elsewhere.items() for seed, r in enumerate(each)],
        },
    )


def _superposed_section(runs: Found) -> Section:
    fit = Agreement.of(_ratios(runs))
    d_ins, widths = (list(dict.fromkeys(setting[i] for setting in runs)) for i in (0, 1))
    floors = {n: float(np.mean([r["floor"] for d in widths for r in runs[n, d]])) for n in d_ins}
    ends, most = (d_ins[0], d_ins[-1]), widths[-1]
    shares = [mean([(r["floor"] / r["rms"]["00"]) ** 2 for r in runs[n, most]]) for n in ends]
    finding = (
        f"The rms error has a floor that no number of neurons removes: {floors[ends[0]]:.3f} in {ends[0]:,} "
        f"dimensions and {floors[ends[1]]:.3f} in {ends[1]:,}. With d = {most:,} neurons the floor is a share of "
        f"{shares[0]:.2f} and {shares[1]:.2f} of the squared error. Simulation and theory {HOW[fit.answer]}: {fit}."
    )
    theory = {setting: float(np.mean([r["theory"] for r in each])) for setting, each in runs.items()}
    lines: list[Series] = []
    for d, color in zip(widths, cycle(COLORS[:3])):
        spans = [_of_00(runs[n, d]) for n in d_ins]
        lines += _points(f"d = {d:,}", d_ins, spans, [theory[n, d] for n in d_ins], color)
    lines.append(Series("floor: limit of large d", d_ins, list(floors.values()), "dotted", color=COLORS[3]))
    title, labels = "AND of superposed inputs, 2 on", ("dimensions d0 of the inputs", "rms error of 00")
    caption = "Dashed: theory; dotted: its floor. Whiskers: 95 % intervals over draws."
    rows = [
        [n, d, _of_00(each), theory[n, d], float(np.mean([r["floor"] for r in each]))] for (n, d), each in runs.items()
    ]
    return Section(
        "superposed-inputs",
        "How large are the errors of random neurons if their inputs are in superposition?",
        finding,
        tables=[Table(["d0", "d", "rms error of 00", "theory", "floor of theory"], rows, 4)],
        charts=[Chart("superposed-inputs", title, lines, *labels, True, True, caption=caption)],
        null_models="The theory for the directions that were drawn, without fitted parameters; more dimensions than "
        "inputs, where random directions still overlap.",
        not_shown="Directions that overlap less than random ones, more than two inputs on, and other readoffs are not "
        "tested.",
        numbers={
            "agreement": fit,
            "runs": [{"d0": n, "d": d, "seed": s} | r for (n, d), each in runs.items() for s, r in enumerate(each)],
        },
    )


def _depth_section(runs: Found) -> Section:
    widths, kept = list(dict.fromkeys(d for d, _ in runs)), steady(runs)
    d, deep = widths[-1], len(runs[widths[0], False][0]["rms"])
    last = {corrected: mean([r["rms"][-1] for r in runs[d, corrected]]) for corrected in (False, True)}
    stops = f"stops the growth at d = {listed([f'{n:,}' for n in kept])}" if kept else "stops the growth at no width"
    finding = (
        f"At d = {d:,} the rms error grows by a factor of {growth(runs, d, False):.2f} per depth from the second depth "
        f"on, and by a factor of {growth(runs, d, True):.2f} with error correction. At depth {deep} it is "
        f"{last[False]} without and {last[True]} with error correction. Error correction {stops} (a factor of at most "
        f"{STEADY} counts as no growth)."
    )
    styles: dict[bool, tuple[Style, str]] = {False: ("dashed", ""), True: ("line", ", corrected")}
    lines, rows, x = [], [], [str(t + 1) for t in range(deep)]
    colors = dict(zip(widths, cycle(COLORS)))
    for (n, corrected), each in runs.items():
        spans, (style, end) = [mean([r["rms"][t] for r in each]) for t in range(deep)], styles[corrected]
        lines.append(Series.of(f"d = {n:,}{end}", x, spans, style, color=colors[n]))
        rows.append([n, "yes" if corrected else "no", *spans])
    caption = (
        "Solid: with error correction, two neurons per value between depths that remove errors below 1/4. Dashed: "
        "without. Bands: 95 % intervals."
    )
    return Section(
        "depth",
        "How do errors grow when gates feed gates?",
        finding,
        tables=[Table(["d", "error correction", *(f"depth {t}" for t in x)], rows)],
        charts=[Chart("depth", "ANDs, then ORs of ORs", lines, "depth", "rms error", log_y=True, caption=caption)],
        null_models="The same networks and inputs without error correction.",
        not_shown="Trained networks with several layers of gates, gates other than ANDs followed by ORs of two inputs, "
        f"depths above {deep}, and other thresholds of the correction are not tested.",
        numbers={
            "growth": {n: {str(corrected): growth(runs, n, corrected) for corrected in (False, True)} for n in widths},
            "steady": kept,
            "runs": [
                {"d": n, "error_correction": corrected, "seed": seed} | r
                for (n, corrected), each in runs.items()
                for seed, r in enumerate(each)
            ],
        },
    )
