"""Do trained narrow networks compute gates in superposition better than random neurons do?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jsonargparse.typing import PositiveInt

from zoo.errors import ZooError
from zoo.estimates import mean
from zoo.report import Chart, Report, Section, Series, Style, Table, Verdict
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work
from zoo.wording import listed

GATES = ("and", "xor")
AFFINE = {"and": 0.25, "xor": 0.5}  # |error| of the best affine readoff of the inputs, in each of the four cases
METHODS = {
    "affine": "affine in the inputs",
    "explicit": "random layer, explicit readoff",
    "least squares": "random layer, best linear readoff",
    "frozen": "random layer, trained readoff",
    "trained": "both layers trained",
}
COMPUTED = ("affine", "explicit", "least squares", "discriminant")
CLOSED = ("least squares", "discriminant")  # readoffs of a random layer that are optimal
POWERS = (2, 3, 4, 6)  # of the loss, tried at the first width
WEIGHTS = {"natural": "as they occur", "ones": "ones as much as zeros", "four": "four cases alike"}
COLORS = ("first", "second", "third", "fourth")
INPUTS = [f"inputs {case}" for case in ("00", "01", "10", "11")]
RIGHT = 0.5  # error below which an output rounds to what it should be
WORDS = {"better": "better", "worse": "worse", "undecided": "neither clearly"}


class Arm(NamedTuple):
    """One way to get a gate.

    Args:
        gate: "and" or "xor".
        d_mlp: Neurons.
        method: A key of `METHODS`, or "discriminant".
        weights: What cases weigh in training: "natural", as they occur; "ones", the same but ones weigh as much as all
            zeros; "zero_one", zeros and ones alike; or "four", the four cases alike.
        p: Exponent of the loss.
    """

    gate: str
    d_mlp: int
    method: str
    weights: str = "four"
    p: int = 2


@dataclass(frozen=True)
class ComputeReadoff(Task):
    """A readoff that needs no training, of the random first layers with which training starts, or of the inputs."""

    gate: str
    d_mlp: int
    method: str  # one of COMPUTED
    n_features: int
    n_seeds: int

    def do(self, work: Work) -> Result:
        """Errors by seed and case over all vectors with two inputs on."""
        from zoo.analysis.gate_simulations import computed_readoff, errors_on_all_vectors

        net = _module(Arm(self.gate, self.d_mlp, self.method), self.n_features, self.n_seeds).net
        outputs = computed_readoff(self.method, self.gate, net, self.n_features)
        return errors_on_all_vectors(outputs, self.gate, self.n_features, self.n_seeds)

    def seconds(self) -> float:
        """Least squares for every pair, and errors of all vectors and pairs."""
        solved = 1e-10 * self.n_features**2 * self.d_mlp**3 if self.method in CLOSED else 0.0
        return 0.05 + self.n_seeds * (solved + 1.5e-8 * self.n_features**4)


@dataclass(frozen=True)
class TrainGates(Task):
    """Networks of all seeds, trained in one way, side by side in one module."""

    gate: str
    d_mlp: int
    method: str  # "trained" or "frozen"
    weights: str
    p: int
    n_features: int
    steps: int
    n_seeds: int

    def do(self, work: Work) -> Result:
        """Errors by seed and case over all vectors with two inputs on."""
        from zoo.active_inputs import FixedActive
        from zoo.analysis.gate_simulations import errors_on_all_vectors
        from zoo.datamodules import SparseFeaturesDataModule
        from zoo.quiet_fit import fit

        arm = Arm(self.gate, self.d_mlp, self.method, self.weights, self.p)
        module = _module(arm, self.n_features, self.n_seeds)
        data = SparseFeaturesDataModule(self.n_features, FixedActive(2), n_seeds=self.n_seeds, batch_size=128)
        fit(module, data, self.steps)
        module.eval()
        return errors_on_all_vectors(lambda f: module.net(f)[0], self.gate, self.n_features, self.n_seeds)

    def seconds(self) -> float:
        """Mostly products of matrices, forward and back."""
        step = 0.001 + 7.7e-9 * self.n_features**2 * self.d_mlp
        return 0.1 + self.n_seeds * (self.steps * step + 1.2e-8 * self.n_features**4)


def _module(arm: Arm, n_features: int, n_seeds: int) -> Any:
    """Networks before training; their first layers are the same for all methods."""
    import torch

    from zoo.models import AdamLinear, UniversalGates

    torch.manual_seed(0)
    ones = arm.weights == "ones"
    return UniversalGates(
        n_features,
        n_features,
        arm.d_mlp,
        n_seeds,
        arm.gate,  # type: ignore[arg-type]
        trained_first_layer=arm.method == "trained",
        p=arm.p,
        case_weights="natural" if ones else arm.weights,  # type: ignore[arg-type]
        weight_on_ones=n_features * (n_features - 1) / 2 - 1 if ones else 1.0,  # zeros for every 1 of AND
        optimizer=AdamLinear(0.01, warmup_steps=0, decay_fraction=0.5),
    )


@dataclass(frozen=True)
class UniversalGates(Study):
    """Networks with one hidden layer are trained to compute AND and XOR of all pairs of sparse inputs.

    Two inputs are on at once, so all vectors can be listed, and every network is judged on every one of them. At the
    first width all exponents of the loss and all weights of the cases are trained, at the others p = 2 and 4 with the
    four cases weighing alike.

    Args:
        n_features: Inputs m.
        widths: Neurons d.
        steps: Optimizer steps of every training.
        seeds: Networks trained side by side.
    """

    n_features: PositiveInt = 100
    widths: tuple[PositiveInt, ...] = (100, 200, 400)
    steps: PositiveInt = 1500
    seeds: AtLeastTwo = 3

    def check(self) -> None:
        """Refuse fewer inputs than pairs without either of two need."""
        if self.n_features < 4:
            raise ZooError(f"n_features is {self.n_features}; it must be at least 4")

    def arms(self) -> list[Arm]:
        """All ways to get a gate."""
        first, *others = self.widths
        found = [Arm(gate, first, method) for gate in GATES for method in COMPUTED]
        weightings = [("and", w, p) for w in WEIGHTS for p in POWERS] + [("xor", "four", p) for p in POWERS]
        weightings.append(("xor", "zero_one", 2))
        found += [Arm(gate, first, m, w, p) for gate, w, p in weightings for m in ("frozen", "trained")]
        for d in others:
            for gate in GATES:
                found += [Arm(gate, d, method) for method in COMPUTED]
                found += [Arm(gate, d, method, "four", p) for method in ("frozen", "trained") for p in (2, 4)]
        return found

    def tasks(self) -> Sequence[Task]:
        """One for every arm."""
        return [self.task(arm) for arm in self.arms()]

    def task(self, arm: Arm) -> Task:
        """What computes the errors of an arm."""
        if arm.method in COMPUTED:
            return ComputeReadoff(arm.gate, arm.d_mlp, arm.method, self.n_features, self.seeds)
        return TrainGates(*arm, self.n_features, self.steps, self.seeds)

    def report(self, results: Results) -> Report:
        """Trained networks beside random neurons and readoffs of the inputs."""
        runs = {arm: results[self.task(arm)] for arm in self.arms()}
        compared = comparisons(runs)
        scope = (
            f"Inputs of which more than two are on, or a varying number; other widths; other training than "
            f"{self.steps:,} steps of Adam at one learning rate. {self.seeds} seeds are few."
        )
        sections = [
            _cases(runs, self.n_features, scope),
            _random_layers(runs, compared, scope),
            _affine(runs),
            _losses(runs, scope),
        ]
        evidence = [
            [
                f"Does training beat random neurons: {one['gate'].upper()}, d = {one['d']:,}?",
                f"{one['trained']} against {one['best']}, difference {one['against_best']}; of rms "
                f"{one['against_best_rms']}",
                one["answer"],
            ]
            for one in compared
        ]
        certainty = (
            f"Brackets are 95 % Student t intervals over {self.seeds} trained networks for each way of training them. "
            "Training is better or worse only if mean and root mean square error both say so; a network that training "
            "left worse than a readoff which it could have found has not converged, so that 'worse' speaks of this "
            "training, not of what networks can do. Intervals are not corrected for their number."
        )
        table = Table(["question", "measured", "answer"], evidence).markdown()
        numbers = {"evidence": evidence, "comparisons": compared, "seeds": self.seeds}
        subject = (
            f"Gates of all pairs of {self.n_features:,} inputs, by {listed([f'{d:,}' for d in self.widths])} neurons"
        )
        return Report(subject, Verdict(f"{_answer(compared)}.", certainty, table, numbers), sections)


Runs = Mapping[Arm, Result]


def widths(runs: Runs) -> list[int]:
    """Neurons d, ascending."""
    return sorted({arm.d_mlp for arm in runs})


def errors(runs: Runs, *arm: Any, name: str = "mean") -> np.ndarray:
    """Errors of one arm, whose arguments come first, by seed and case, (seeds, 4): `mean`, `rms`, `max` or `bias`."""
    return np.array(runs[Arm(*arm)][name])


def overall(runs: Runs, *arm: Any, name: str = "mean") -> np.ndarray:
    """The same over the four cases: the mean of `mean`, the root mean square of `rms`; (seeds,)."""
    found = errors(runs, *arm, name=name)
    return np.sqrt((found**2).mean(1)) if name == "rms" else found.mean(1)


def comparisons(runs: Runs) -> list[dict[str, Any]]:
    """Trained networks against random neurons, at every gate and width.

    Seeds are paired, for all methods start from the same first layers. The best readoff of a random layer is the better
    of least squares and discriminant. `against_best` is the mean |error| of trained networks minus that of it, and
    `against_best_rms` the same of the root mean square, which training with p = 2 makes small; `against_readoff` is
    against a readoff of the random layer that is trained in the same way. `answer` is `better` or `worse` if the first
    two say so, and else `undecided`.
    """
    found = []
    for gate in GATES:
        for d in widths(runs):
            one: dict[str, Any] = {"gate": gate, "d": d}
            for name, end in (("mean", ""), ("rms", "_rms")):
                trained, readoff, *closed = (
                    overall(runs, gate, d, method, name=name) for method in ("trained", "frozen", *CLOSED)
                )
                best = min(closed, key=np.mean)
                one |= {
                    f"trained{end}": mean(trained),
                    f"best{end}": mean(best),
                    f"readoff{end}": mean(readoff),
                    f"against_best{end}": mean(trained - best),
                    f"against_readoff{end}": mean(trained - readoff),
                }
            signs = {one["against_best"].sign, one["against_best_rms"].sign}
            one["answer"] = "better" if signs == {"below"} else "worse" if signs == {"above"} else "undecided"
            found.append(one)
    return found


def places(compared: list[dict[str, Any]], answer: str) -> str:
    """At which gates and widths the answer of `comparisons` is this one; nothing if at none."""
    found = []
    for gate in GATES:
        at = [f"{one['d']:,}" for one in compared if (one["gate"], one["answer"]) == (gate, answer)]
        if at:
            found.append(f"{gate.upper()} at d = {listed(at)}")
    return listed(found)


def _answer(compared: list[dict[str, Any]]) -> str:
    better, worse = places(compared, "better"), places(compared, "worse")
    subject, rival = "Training the first layer too", "the best readoff of random neurons"
    if {one["answer"] for one in compared} == {"better"}:
        return f"{subject} beats {rival} at every width"
    if {one["answer"] for one in compared} == {"worse"}:
        return f"{subject}, as it was done here, does not come up to {rival} at any width"
    if not better and not worse:
        return f"{subject} is not clearly better or worse than {rival}"
    if not worse:
        return f"{subject} beats {rival} for {better}, and nowhere falls short of it"
    if not better:
        return f"{subject}, as it was done here, nowhere beats {rival}, and falls short of it for {worse}"
    return f"{subject} beats {rival} for {better}, and, as it was done here, falls short of it for {worse}"


def _chosen(runs: Runs, wanted: Callable[[Arm], bool]) -> tuple[Table, list[dict[str, Any]]]:
    """Errors of some arms: a table, and all their numbers."""
    rows: list[list[Any]] = []
    shown = {arm: r for arm, r in runs.items() if wanted(arm)}
    for arm, r in shown.items():
        average, most = np.array(r["mean"]), np.array(r["max"])  # (seeds, 4)
        columns = [average[:, 0], average[:, 1:3].mean(1), average[:, 3], average.mean(1), most[:, 0], most[:, 3]]
        trained = (None, None) if arm.method in ("affine", "explicit") else (arm.weights, arm.p)
        rows.append([arm.gate, arm.d_mlp, arm.method, *trained, *map(mean, columns)])
    columns = ["gate", "d", "method", "weights", "p", "mean error 00", "01 and 10", "11", "all four"]
    return Table([*columns, "largest error 00", "11"], rows), [arm._asdict() | r for arm, r in shown.items()]


def _bars(name: str, values: np.ndarray, **options: Any) -> Series:
    """Errors (seeds, 4) by case."""
    return Series.of(name, INPUTS, [*map(mean, values.T)], "bars", **options)


def _cases(runs: Runs, m: int, scope: str) -> Section:
    d = next(iter(runs)).d_mlp
    told, learned, right = [], [], []
    for gate in GATES:
        average, most = (errors(runs, gate, d, "trained", name=name) for name in ("mean", "max"))
        columns = (average[:, 0], average[:, 1:3].mean(1), average[:, 3], average.mean(1), most.max(1))
        none, one, both, all_four, worst = map(mean, columns)
        told.append(
            f"{gate.upper()} errs by {none} at 00, {one} at 01 and 10, {both} at 11 (mean |error|; over the four "
            f"{all_four}), and by {worst:.2f} at most."
        )
        learned += [gate.upper()] if all_four.high < AFFINE[gate] else []
        right += [gate.upper()] if worst.high < RIGHT else []
    blind = errors(runs, "xor", d, "trained", "zero_one")
    seen, unseen = mean(blind[:, :3].max(1)), mean(blind[:, 3])
    trap = "is wrong where both are on" if unseen.low > RIGHT else "is not clearly wrong where both are on"
    finding = (
        f"Networks of d = {d:,} neurons, trained on all {m * (m - 1) // 2:,} pairs of {m} inputs, compute "
        f"{listed(learned) or 'neither gate'} with less error on average than any affine readoff of the inputs does. "
        f"{' '.join(told)} Rounded to 0 or 1, "
        f"{listed(right) or 'neither'} is right for every pair and input. XOR that is judged by zeros and "
        f"ones alone {trap}: mean |error| {unseen} at 11, and at most {seen} in any other case."
    )
    caption = "The four cases weigh alike in training, p = 2. Whiskers: 95 % over seeds."
    charts = [
        Chart(
            f"cases-{gate}",
            f"{gate.upper()}, d = {d:,}: errors by case",
            [_bars(name, errors(runs, gate, d, method)) for method, name in METHODS.items()],
            "",
            "mean |error|",
            caption=caption,
        )
        for gate in GATES
    ]
    caption = "Both layers trained, p = 2. Nearly all zeros of a sparse XOR are 00; few are 11."
    judged = [
        _bars("four cases alike", errors(runs, "xor", d, "trained"), color=COLORS[2]),
        _bars("zeros and ones alike", blind, color=COLORS[3]),
    ]
    title = "XOR: what judging by zeros and ones hides"
    charts.append(Chart("cases-judged", title, judged, "", "mean |error|", caption=caption))
    table, shown = _chosen(runs, lambda arm: arm.d_mlp == d and arm.p == 2 and arm.weights in ("four", "zero_one"))
    return Section(
        "cases",
        "Do narrow networks learn AND and XOR of all pairs of inputs?",
        finding,
        tables=[table],
        charts=charts,
        null_models=(
            "The affine readoff of the inputs, which needs no neurons; random first layers with the readoff that is "
            "written down (explicit), with the best linear readoff (least squares) and with a trained one (frozen). "
            "Every network is judged on all vectors with two inputs on."
        ),
        not_shown=f"{scope} Histograms of errors and the share within a given error, which are not kept.",
        numbers={"runs": shown},
    )


def _random_layers(runs: Runs, compared: list[dict[str, Any]], scope: str) -> Section:
    beat = all(one["best"].high < AFFINE[one["gate"]] for one in compared)
    told = [
        f"{gate.upper()} "
        + ", ".join(f"{o['trained']} against {o['best']} at d = {o['d']:,}" for o in compared if o["gate"] == gate)
        for gate in GATES
    ]
    by_answer = [f"{text} for {places(compared, answer)}" for answer, text in WORDS.items() if places(compared, answer)]
    helped = sum(one["against_readoff"].sign == "below" for one in compared)
    finding = (
        f"Random layers {'compute' if beat else 'do not everywhere compute'} the gates better than no neurons do. Mean "
        f"|error| of networks with both layers trained against the best readoff of their random first layers: "
        f"{'; '.join(told)}. Judged by mean and by root mean square, training is {listed(by_answer)}. Against a "
        "readoff of the same random layer that is trained in the same way, training the first layer too makes the "
        f"mean error smaller in {helped} of {len(compared)} comparisons."
    )
    names = {d: f"{d:,}" for d in widths(runs)}
    charts = []
    for gate in GATES:
        lines = []
        for method, name in METHODS.items():
            style: Style = "line" if method in ("trained", "frozen") else "dashed"
            spans = [mean(overall(runs, gate, d, method)) for d in names]
            lines.append(Series.of(name, [*names.values()], spans, style))
        caption = "Bands: 95 % over seeds. Solid: trained; dashed: computed."
        title, labels = f"{gate.upper()} against width", ("neurons d", "mean |error| of the four cases")
        charts.append(Chart(f"random-layers-{gate}", title, lines, *labels, log_y=True, caption=caption))
    lines = []
    for gate, color in zip(GATES, COLORS, strict=False):
        spans = [one["against_best"] for one in compared if one["gate"] == gate]
        lines.append(Series.of(gate.upper(), [*names.values()], spans, "points", color=color))
    title, labels = "Trained networks minus the best readoff", ("neurons d", "difference of mean |error|")
    caption = "Below 0 training wins. Whiskers: 95 % over seeds, which share their first layers."
    charts.append(Chart("random-layers-difference", title, lines, *labels, caption=caption))
    keys = ("trained", "best", "against_best", "against_best_rms", "against_readoff")
    columns = ["gate", "d", "both layers trained", "best readoff of random neurons", "difference", "of rms"]
    columns += ["difference from a trained readoff", "training is"]
    rows = [[one["gate"], one["d"], *(one[key] for key in keys), one["answer"]] for one in compared]
    table, shown = _chosen(runs, lambda arm: (arm.weights, arm.p) == ("four", 2))
    return Section(
        "random-layers",
        "Do trained networks compute gates better than random neurons do?",
        finding,
        tables=[Table(columns, rows), table],
        charts=charts,
        null_models=(
            "The first layer is drawn as at the start of training and kept. Its best linear readoff is computed: least "
            "squares, which is the optimum for p = 2, or the same stretched to be right on average (discriminant), "
            "whichever errs less. The trained readoff of that layer shows what the optimizer loses."
        ),
        not_shown=(
            f"{scope} What networks can do at best: where training is worse than a readoff that it could have "
            "found, it has not converged, and other training may win."
        ),
        numbers={"comparisons": compared, "runs": shown},
    )


def _affine(runs: Runs) -> Section:
    d, names = next(iter(runs)).d_mlp, [gate.upper() for gate in GATES]
    off = max(float(np.abs(errors(runs, gate, d, "affine") - AFFINE[gate]).max()) for gate in GATES)
    compared = []
    for gate in GATES:
        explicit = overall(runs, gate, d, "explicit")
        side = mean(explicit - AFFINE[gate]).sign
        word = {"above": "more", "below": "less", "undecided": "not clearly more or less"}[side]
        compared.append(f"{word} for {gate.upper()} ({mean(explicit)})")
    finding = (
        f"AND by (x_i + x_j) / 2 - 1/4, which errs by 1/4 in each case, and of XOR only the constant 1/2: "
        f"{'so measured' if off < 1e-6 else f'measured errors differ from that by up to {off:.2g}'}. The readoff of "
        f"{d:,} random neurons that is written down errs {' and '.join(compared)}."
    )
    bars = [
        Series.of(name, names, [mean(overall(runs, gate, d, method)) for gate in GATES], "bars")
        for method, name in METHODS.items()
    ]
    title, label = f"Without neurons, and with d = {d:,}", "mean |error| of the four cases"
    table, _ = _chosen(runs, lambda arm: arm.d_mlp == d and arm.method in ("affine", "explicit"))
    _, shown = _chosen(runs, lambda arm: arm.d_mlp == d and arm.method == "affine")
    return Section(
        "affine",
        "Which gates can be read off the inputs without any neurons?",
        finding,
        tables=[table],
        charts=[Chart("affine", title, bars, "", label)],
        null_models="It is itself what every other readoff is compared with.",
        not_shown="Affine readoffs whose cases do not weigh alike: where nearly all is 00, the constant 0 errs less.",
        numbers={"off_closed_form": off, "runs": shown},
    )


def _losses(runs: Runs, scope: str) -> Section:
    d, low, high = next(iter(runs)).d_mlp, POWERS[0], POWERS[-1]

    def of(weights: str, p: int, name: str = "mean") -> np.ndarray:
        return errors(runs, "and", d, "trained", weights, p, name=name)

    zero = mean(of("natural", low)[:, 3])
    wins = "the zero map wins" if zero.low > 0.9 else "the zero map does not quite win"
    ones, alike = (mean(of(w, low)[:, 1:3].mean(1)) for w in ("ones", "four"))
    both = mean(of("ones", low)[:, 3])
    mended = "mends 11 and spoils 01 and 10" if both.high < 0.25 < ones.low else "does not spoil 01 and 10 clearly"
    change = mean(of("four", low).mean(1) - of("four", high).mean(1))
    most = mean(of("four", low, "max").max(1) - of("four", high, "max").max(1))
    verbs = {"below": "less than", "above": "more than", "undecided": "about as much as"}
    largest = {"below": "smaller", "above": "larger", "undecided": "not clearly different"}
    errors_by_p = ", ".join(f"{of('four', p).mean():.3f} (p = {p})" for p in POWERS)
    finding = (
        f"As cases occur, {wins}: with p = {low} the error at 11 is {zero}. To weigh ones as much as all "
        f"zeros {mended} ({both} at 11; {ones} at 01 and 10, against {alike} with "
        f"the four cases alike). With the four cases alike p = {low} errs {verbs[change.sign]} p = {high} in the "
        f"mean: {errors_by_p}, difference {change}; its largest error is {largest[most.sign]} (difference "
        f"{most:.2f})."
    )
    x_label = "exponent p of the loss"

    def chart(name: str, title: str, label: str, column: slice, measure: str = "mean") -> Chart:
        lines = []
        for (weights, text), color in zip(WEIGHTS.items(), COLORS, strict=False):
            found = [of(weights, p, measure)[:, column] for p in POWERS]
            spans = [mean(values.max(1) if measure == "max" else values.mean(1)) for values in found]
            lines.append(Series.of(text, POWERS, spans, "line", color=color))
        return Chart(f"losses-{name}", title, lines, x_label, label, caption="Both layers trained. Bands: 95 %.")

    styles: dict[str, Style] = {"and": "line", "xor": "dashed"}
    methods = [
        Series.of(METHODS[method], POWERS, [mean(overall(runs, gate, d, method, "four", p)) for p in POWERS], style)
        for gate, style in styles.items()
        for method in ("frozen", "trained")
    ]
    charts = [
        chart("all", "AND: all four cases", "mean |error| of the four cases", slice(0, 4)),
        chart("ones", "AND: where both inputs are on", "mean |error| at 11", slice(3, 4)),
        chart("one-on", "AND: where one input is on", "mean |error| at 01 and 10", slice(1, 3)),
        chart("largest", "AND: the largest error", "largest |error|", slice(0, 4), "max"),
        Chart(
            "losses-methods",
            "One layer trained, and both",
            methods,
            x_label,
            "mean |error| of the four cases",
            caption="Solid: AND; dashed: XOR. The four cases weigh alike. Bands: 95 %.",
        ),
    ]
    table, shown = _chosen(runs, lambda arm: arm.d_mlp == d and arm.method in ("trained", "frozen"))
    of_xor = ", ".join(f"{overall(runs, 'xor', d, 'trained', 'four', p).mean():.3f} ({p})" for p in POWERS)
    return Section(
        "losses",
        "Which loss, and which weights of the four cases, teach a gate?",
        finding,
        tables=[table],
        charts=charts,
        null_models=(
            "The constant 0 errs by 1 at 11 and by 0 elsewhere; the affine readoff by 1/4 everywhere. Weights: as "
            "cases occur (natural), the same but ones as much as all zeros (ones), zeros and ones alike (zero_one), "
            f"four alike. Of XOR (four cases alike), by p: {of_xor}."
        ),
        not_shown=f"{scope} Other learning rates for p above 2, which may not have settled at this one.",
        numbers={"runs": shown},
    )
