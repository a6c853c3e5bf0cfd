"""How exactly do random neurons compute gates with a readoff that is written down, and is it as theory says?"""

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
STEADY = 1.1  # growth per depth up to which errors count as kept small
AGREE = {
    "yes": "Random neurons compute gates of sparse inputs with the errors that theory says",
    "no": "Random neurons do not compute gates of sparse inputs with the errors that theory says",
    "undecided": "Whether random neurons err as theory says is undecided",
}
HOW = {"yes": "agree", "no": "do not agree", "undecided": "agree or not, which more draws have to tell"}

Found = Mapping[Any, Sequence[Result]]  # by setting: results of all draws


@dataclass(frozen=True)
class On:
    """How many inputs are on: always so many, or each by itself with the same chance, so many in the mean."""

    n: float
    bernoulli: bool = False

    def __str__(self) -> str:
        return f"Bernoulli {self.n:g}" if self.bernoulli else f"{self.n:g}"

    @property
    def told(self) -> str:
        """In a legend."""
        return f"{self.n:g} on in the mean (Bernoulli)" if self.bernoulli else f"{self.n:g} on"


@dataclass(frozen=True)
class ComputeGates(Task):
    """A gate of all pairs of inputs, by random neurons and the readoff for so many active inputs."""

    gate: str
    on: On
    d_mlp: int
    n_features: int
    n_vectors: int
    seed: int

    def do(self, work: Work) -> Result:
        """Errors by case, and the rms error of 00 in theory."""
        from zoo.active_inputs import BernoulliActive, FixedActive
        from zoo.analysis.gate_simulations import errors_of_gates

        active = BernoulliActive(self.on.n) if self.on.bernoulli else FixedActive(int(self.on.n))
        return errors_of_gates(self.gate, active, self.d_mlp, self.n_features, self.n_vectors, self.seed)

    def seconds(self) -> float:
        """Mostly a product of matrices."""
        return _seconds(self.n_features, self.d_mlp, self.n_vectors)


@dataclass(frozen=True)
class UseAtOtherNumber(Task):
    """AND by a readoff that was built for another number of active inputs."""

    n_active: int
    n_features: int
    n_vectors: int
    seed: int
    built_for: int = 4
    d_mlp: int = 2048

    def do(self, work: Work) -> Result:
        """Errors by case, and the mean output of 11 in theory."""
        from zoo.analysis.gate_simulations import errors_at_other_numbers

        sizes = (self.d_mlp, self.n_features, self.n_vectors)
        return errors_at_other_numbers(self.built_for, self.n_active, *sizes, self.seed)

    def seconds(self) -> float:
        """Mostly a product of matrices."""
        return _seconds(self.n_features, self.d_mlp, self.n_vectors)


@dataclass(frozen=True)
class ComputeOnSuperposed(Task):
    """AND of inputs that are superposed in few dimensions."""

    d_in: int
    d_mlp: int
    n_features: int
    n_vectors: int
    seed: int
    n_active: int = 2

    def do(self, work: Work) -> Result:
        """Errors by case, and the rms error of 00 in theory, with its floor."""
        from zoo.analysis.gate_simulations import errors_of_superposed_inputs

        sizes = (self.d_mlp, self.n_active, self.n_features, self.n_vectors)
        return errors_of_superposed_inputs(self.d_in, *sizes, self.seed)

    def seconds(self) -> float:
        """Mostly a product of matrices."""
        return _seconds(self.n_features, self.d_mlp, self.n_vectors) + 0.15


@dataclass(frozen=True)
class ComputeInDepth(Task):
    """Gates of gates: ANDs in several small networks, then ORs, and ORs of these."""

    d_mlp: int
    error_correction: bool
    in_group: int
    n_vectors: int
    seed: int
    depth: int = 4
    n_groups: int = 4

    def do(self, work: Work) -> Result:
        """Rms errors, by depth."""
        from zoo.analysis.gate_simulations import errors_in_depth

        sizes = (self.depth, self.n_groups, self.in_group, self.n_vectors)
        return {"rms": errors_in_depth(self.d_mlp, self.error_correction, *sizes, self.seed)}

    def seconds(self) -> float:
        """Mostly products of matrices."""
        return _seconds(self.n_groups * self.in_group, self.d_mlp, self.n_vectors)


def _seconds(n_features: int, d_mlp: int, n_vectors: int) -> float:
    return 0.05 + 3.5e-11 * n_features**2 * d_mlp * (n_vectors + 100)


@dataclass(frozen=True)
class ExplicitGates(Study):
    """Random neurons compute AND and XOR of all pairs of sparse inputs; their errors are compared with theory.

    Args:
        n_features: Inputs m.
        n_vectors: Input vectors per draw of weights.
        widths: Neurons d over which AND and XOR are simulated.
        active: Inputs that are on.
        bernoulli: Inputs that are on in the mean, each by itself.
        used_at: Inputs that are on where a readoff built for 4 is used.
        superposed_in: Dimensions in which inputs are superposed.
        superposed_widths: Neurons that read superposed inputs.
        depth_widths: Neurons of every layer of gates of gates.
        in_group: Inputs of each of the 4 networks whose gates feed further gates.
        seeds: Draws of the weights.
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
        """Refuse too few inputs and widths."""
        if len(set(self.widths)) < 2:
            raise ZooError(f"widths is {self.widths}; the fall of errors needs at least 2 widths")
        if self.n_features < (least := max(*self.used_at, *self.active) + 2):
            raise ZooError(f"n_features is {self.n_features}, at least {least} are needed, 2 more than are on")
        if min(*self.used_at, *self.active) < 2:
            raise ZooError("a gate of two inputs that are on needs at least 2 in active and used_at")

    def tasks(self) -> Sequence[Task]:
        """One for every setting and draw."""
        kinds = (self._gates(), self._elsewhere(), self._superposed(), self._depth())
        return [task for kind in kinds for tasks in kind.values() for task in tasks]

    def _gates(self) -> dict[tuple[str, On, int], list[Task]]:
        on = [*map(On, self.active), *(On(n, bernoulli=True) for n in self.bernoulli)]
        return {
            (gate, n, d): [ComputeGates(gate, n, d, self.n_features, self.n_vectors, s) for s in range(self.seeds)]
            for gate in GATES
            for n in on
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
        """Errors over widths, numbers of inputs, dimensions and depths, beside theory."""

        def read(kind: Mapping[Any, Sequence[Task]]) -> Found:
            return {setting: [results[task] for task in tasks] for setting, tasks in kind.items()}

        gates, elsewhere = read(self._gates()), read(self._elsewhere())
        superposed, depth = read(self._superposed()), read(self._depth())
        sections = [
            _closed_form(gates, self.seeds),
            _width(gates, elsewhere),
            _superposed_section(superposed),
            _depth_section(depth),
        ]
        fits = {"closed form": Agreement.of(_ratios(gates)), "superposed": Agreement.of(_ratios(superposed))}
        slope, kept, d = exponents(gates, "and", On(self.active[0]))["mean"], steady(depth), self.depth_widths[-1]
        falls = "yes" if -0.5 in slope else "about" if abs(slope.mean + 0.5) < 0.05 else "no"
        stops = f"at d = {listed([f'{n:,}' for n in kept])}" if kept else "at no width"
        grows = f"{growth(depth, d, True):.2f}, without it {growth(depth, d, False):.2f}"
        evidence = [
            ["Do random neurons err as the closed form says?", fits["closed form"].brief, fits["closed form"].answer],
            ["Does the error fall like 1 / sqrt(d)?", f"exponent {slope}", falls],
            ["Do superposed inputs leave the floor of theory?", fits["superposed"].brief, fits["superposed"].answer],
            ["Does error correction keep errors small in depth?", f"growth per depth at d = {d:,} {grows}", stops],
        ]
        certainty = (
            f"Brackets are 95 % Student t intervals over {self.seeds} draws of the weights. Theory counts as right if "
            f"the overall ratio is within {100 * TOLERANCE:g} % and no setting's interval lies outside that. Intervals "
            "are not corrected for their number."
        )
        numbers = {"evidence": evidence, "draws": self.seeds, "agreement": fits, "exponent": slope, "steady": kept}
        table = Table(["question", "measured", "answer"], evidence).markdown()
        verdict = Verdict(f"{AGREE[fits['closed form'].answer]}.", certainty, table, numbers)
        subject = f"Gates of all pairs of {self.n_features:,} inputs, by up to {max(self.widths):,} random neurons"
        return Report(subject, verdict, sections)


def exponents(gates: Found, gate: str, on: On) -> dict[str, Estimate]:
    """Slope of log error of 00 against log d, of the mean and of the largest error, over draws."""
    runs = {d: found for (g, n, d), found in gates.items() if (g, n) == (gate, on)}
    draws = range(len(next(iter(runs.values()))))
    return {
        name: mean(
            [np.polyfit(np.log([*runs]), np.log([each[i][name]["00"] for each in runs.values()]), 1)[0] for i in draws]
        )
        for name in ("mean", "max")
    }


def growth(depth: Found, d: int, corrected: bool) -> Estimate:
    """By what factor the error grows per depth, from the second on, which is the first that reads other gates."""
    rms = np.array([r["rms"] for r in depth[d, corrected]])
    return mean((rms[:, -1] / rms[:, 1]) ** (1 / (rms.shape[1] - 2)))


def steady(depth: Found) -> list[int]:
    """Widths at which error correction stops the growth of errors."""
    return [d for d in dict.fromkeys(d for d, _ in depth) if growth(depth, d, True).high <= STEADY]


def _ratios(runs: Found) -> np.ndarray:
    """Measured over theory of the rms error of 00, (settings, seeds), where there is a theory."""
    ratios = [[r["rms"]["00"] / r["theory"] for r in each] for each in runs.values()]
    return np.array([row for row in ratios if np.isfinite(row).all()])


def _of_00(runs: Sequence[Result], name: str = "rms") -> Estimate:
    return mean([r[name]["00"] for r in runs])


def _points(name: str, x: Sequence[Any], estimates: Sequence[Estimate], y: Sequence[float], color: str) -> list[Series]:
    """What was measured as points, and theory as a dashed line."""
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
        lines.append(Series("affine in the inputs", widths, [AFFINE[gate]] * len(widths), "dotted"))
        title, label = f"{gate.upper()}: error of 00 against width", "rms error of 00"
        caption = "Dashed: kappa sqrt(l / 2) / sqrt(d)." if gate == "and" else "Dashed: the closed form."
        caption += " Whiskers, often smaller than the points: 95 % over draws of the weights."
        charts.append(Chart(f"closed-form-{gate}", title, lines, "neurons d", label, True, True, caption=caption))
        title, label = f"{gate.upper()}: measured over theory", "ratio"
        charts.append(Chart(f"closed-form-{gate}-ratio", title, beside, "neurons d", label, caption="Whiskers: 95 %."))
    rows = []
    for (gate, on, d), each in gates.items():
        theory = each[0]["theory"]
        cases = [float(np.mean([r["mean"][case] for r in each])) for case in ("00", "01", "10", "11")]
        ratio = mean([r["rms"]["00"] / theory for r in each]) if np.isfinite(theory) else None
        most = float(np.mean([max(r["max"].values()) for r in each]))
        rows.append([gate, str(on), d, _of_00(each), theory, ratio, *cases, most])
    columns = ["gate", "inputs on", "d", "rms error of 00", "theory", "ratio"]
    columns += ["mean error 00", "01", "10", "11", "largest"]
    known = ", ".join(f"kappa({on}) = {float(kappa(int(on.n))):.3f}" for on in fixed)
    return Section(
        "closed-form",
        "Do random neurons with an explicit readoff err as the closed form says?",
        f"Simulated errors and their closed form {HOW[fit.answer]}: {fit}.",
        tables=[
            f"{known}; for many inputs kappa(l) tends to {np.pi * np.sqrt(np.pi / 2):.3f} sqrt(l).",
            Table(columns, rows, 4),
        ],
        charts=charts,
        null_models="The closed form, which has nothing to fit; and the affine readoff, which needs no neurons.",
        not_shown=(
            "Biases, other distributions of the weights, gates of three inputs. The theory of Bernoulli inputs' "
            f"errors is not worked out. {seeds} draws of the weights are few, and with so many intervals some miss 1 "
            "by chance."
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


def _width(gates: Found, elsewhere: Found) -> Section:
    kinds = list(dict.fromkeys((gate, on) for gate, on, _ in gates))
    slopes = {f"{gate.upper()}, {on.told}": exponents(gates, gate, on) for gate, on in kinds}

    def holds(name: str) -> str:
        half, means = sum(-0.5 in slope[name] for slope in slopes.values()), [s[name].mean for s in slopes.values()]
        return f"{min(means):.3f} to {max(means):.3f}, with -1/2 in {half} of {len(slopes)} intervals"

    near = max(abs(slope[name].mean + 0.5) for slope in slopes.values() for name in ("mean", "max"))
    on = list(elsewhere)
    ones = {n: mean([1 + r["bias"]["11"] for r in each]) for n, each in elsewhere.items()}
    zeros = {n: mean([r["bias"]["00"] for r in each]) for n, each in elsewhere.items()}
    expected = {n: each[0]["theory"] for n, each in elsewhere.items()}
    biased = [str(n) for n in on if 0 not in zeros[n]]
    finding = (
        f"Errors {'fall like 1 / sqrt(d)' if near < 0.05 else 'do not all fall like 1 / sqrt(d)'}: exponents of the "
        f"mean error are {holds('mean')}, of the largest {holds('max')}. A readoff built for 4 inputs and used at "
        f"{on[-1]} gives {ones[on[-1]]} where it should give 1 (theory {expected[on[-1]]:.3f}); zeros "
        + (f"are biased at {listed(biased)} inputs." if biased else "stay unbiased.")
    )
    lines = []
    for (gate, n), color in zip([kind for kind in kinds if kind[0] == "and"], cycle(COLORS)):
        runs = {d: each for (g, k, d), each in gates.items() if (g, k) == (gate, n)}
        for name, style in (("mean", "line"), ("max", "dotted")):
            spans = [_of_00(each, name) for each in runs.values()]
            labels = ["mean" if name == "mean" else "largest"] * len(runs)
            lines.append(Series.of(n.told, [*runs], spans, style, labels=labels, color=color))  # type: ignore[arg-type]
    caption = "Solid: mean; dotted: largest. Bands: 95 % over draws of the weights."
    title, label = "AND: mean and largest error of 00", "|error| of 00"
    charts = [Chart("width-errors", title, lines, "neurons d", label, True, True, caption=caption)]
    lines = _points("mean output of 11", on, [*ones.values()], [*expected.values()], COLORS[0])
    lines += _points("mean output of 00", on, [*zeros.values()], [0.0] * len(on), COLORS[1])
    title, caption = (
        "A readoff for 4 inputs, used at other numbers",
        "Dashed: kappa(4) / kappa(l), and 0. Whiskers: 95 %.",
    )
    charts.append(Chart("width-used-at", title, lines, "inputs on", "mean output", caption=caption))
    falls = [[gate, str(n), *slopes[f"{gate.upper()}, {n.told}"].values()] for gate, n in kinds]
    used = [[n, ones[n], expected[n], zeros[n]] for n in on]
    return Section(
        "width",
        "How do errors of random neurons grow with fewer neurons, and with other numbers of inputs?",
        finding,
        tables=[
            Table(["gate", "inputs on", "exponent of the mean error", "of the largest"], falls),
            Table(["inputs on, built for 4", "mean output of 11", "theory", "of 00"], used, 4),
        ],
        charts=charts,
        null_models="The exponent -1/2 and kappa(4) / kappa(l) of the theory, neither of which is fitted.",
        not_shown=(
            "Widths outside those simulated. The largest error is that of so many vectors and pairs, and grows with "
            "their number. Intervals are over draws of the weights, of which there are few."
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
        f"They leave a floor that no number of neurons removes: rms {floors[ends[0]]:.3f} in {ends[0]:,} dimensions, "
        f"{floors[ends[1]]:.3f} in {ends[1]:,}. At d = {most:,} it makes up {shares[0]:.2f} and {shares[1]:.2f} of the "
        f"squared error. Simulation and theory {HOW[fit.answer]}: {fit}."
    )
    theory = {setting: float(np.mean([r["theory"] for r in each])) for setting, each in runs.items()}
    lines: list[Series] = []
    for d, color in zip(widths, cycle(COLORS[:3])):
        spans = [_of_00(runs[n, d]) for n in d_ins]
        lines += _points(f"d = {d:,}", d_ins, spans, [theory[n, d] for n in d_ins], color)
    lines.append(Series("floor: d without end", d_ins, list(floors.values()), "dotted", color=COLORS[3]))
    title, labels = "AND of superposed inputs, 2 on", ("dimensions d0 of the inputs", "rms error of 00")
    caption = "Dashed: theory; dotted: its floor. Whiskers: 95 % over draws."
    rows = [
        [n, d, _of_00(each), theory[n, d], float(np.mean([r["floor"] for r in each]))] for (n, d), each in runs.items()
    ]
    return Section(
        "superposed-inputs",
        "How do random neurons err if their inputs are in superposition themselves?",
        finding,
        tables=[Table(["d0", "d", "rms error of 00", "theory", "its floor"], rows, 4)],
        charts=[Chart("superposed-inputs", title, lines, *labels, True, True, caption=caption)],
        null_models="The theory for the very directions that were drawn, with nothing to fit; dimensions above the "
        "number of inputs, where they still overlap.",
        not_shown="Directions other than random ones, which could overlap less; more than two inputs on; other "
        "readoffs.",
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
        f"At d = {d:,} errors grow by a factor of {growth(runs, d, False):.2f} per depth from the second on, and of "
        f"{growth(runs, d, True):.2f} with error correction: rms {last[False]} against {last[True]} at depth {deep}. "
        f"Error correction {stops} (a factor of at most {STEADY})."
    )
    styles: dict[bool, tuple[Style, str]] = {False: ("dashed", ""), True: ("line", ", corrected")}
    lines, rows, x = [], [], [str(t + 1) for t in range(deep)]
    colors = dict(zip(widths, cycle(COLORS)))
    for (n, corrected), each in runs.items():
        spans, (style, end) = [mean([r["rms"][t] for r in each]) for t in range(deep)], styles[corrected]
        lines.append(Series.of(f"d = {n:,}{end}", x, spans, style, color=colors[n]))
        rows.append([n, "yes" if corrected else "no", *spans])
    caption = "Solid: with two neurons per value between depths that remove errors below 1/4. Bands: 95 %."
    return Section(
        "depth",
        "How do errors grow when gates feed gates?",
        finding,
        tables=[Table(["d", "error correction", *(f"depth {t}" for t in x)], rows)],
        charts=[Chart("depth", "ANDs, then ORs of ORs", lines, "depth", "rms error", log_y=True, caption=caption)],
        null_models="The same networks and inputs without error correction.",
        not_shown="Trained networks in depth; gates other than ANDs and then ORs of two; more than "
        f"{deep} depths; other thresholds of the correction.",
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
