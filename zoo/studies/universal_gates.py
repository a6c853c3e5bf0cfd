"""Do trained narrow networks compute logic gates in superposition with smaller errors than random neurons?

Networks have one hidden layer. Two inputs are on at once, so every network is evaluated on all possible vectors. At the
first width, networks are trained with all exponents p of the loss and all weights of the cases. At the other widths, p
is 2 or 4 and the four cases weigh equally, or zeros and ones do. Case 00 means that both inputs of a pair are off, case
11 that both are on. Losses are compared with a lower bound for every network of the same width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jsonargparse.typing import PositiveInt

from zoo.errors import ZooError
from zoo.estimates import UNKNOWN, Estimate, mean
from zoo.report import Chart, Report, Section, Series, Style, Table, Verdict
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work
from zoo.wording import listed

GATES = ("and", "xor")
AFFINE = {"and": 0.25, "xor": 0.5}  # |error| of the best affine readoff of the inputs, in each of the four cases
METHODS = {
    "affine": "affine readoff of the inputs",
    "explicit": "random layer, explicit readoff",
    "least squares": "random layer, best linear readoff",
    "frozen": "random layer, trained readoff",
    "trained": "both layers trained",
}
COMPUTED = ("affine", "explicit", "signs", "least squares", "discriminant")
CLOSED = ("least squares", "discriminant")  # optimal readoffs of a random layer
BALANCED = "balanced"  # the optimal readoff if zeros and ones weigh equally
UNTRAINED = ("affine", "explicit", "signs")  # methods that have no loss
POWERS = (2, 3, 4, 6)  # exponents of the loss that are tried at the first width
WEIGHTS = {"natural": "as cases occur", "ones": "ones as much as all zeros", "four": "four cases equally"}
AGAINST_BOUND = {
    "trained": "both layers trained",
    "best": "random layer, best linear readoff",
    "frozen": "random layer, trained readoff",
    "signs": "weights of 1 and -1, written readoff",
    "explicit": "Gaussian weights, written readoff",
}
COLORS = ("first", "second", "third", "fourth")
INPUTS = [f"inputs {case}" for case in ("00", "01", "10", "11")]
RIGHT = 0.5  # error below which an output rounds to the right value
LOSSES = {  # that are compared with their lower bound: gate and weights
    ("and", "zero_one"): "AND, zeros and ones weighing equally",
    ("and", "four"): "AND, the four cases weighing equally",
    ("xor", "four"): "XOR, the four cases weighing equally",
}
WORDS = {"better": "better", "worse": "worse", "undecided": "not clearly better or worse"}


class Arm(NamedTuple):
    """One way to compute a gate.

    Args:
        gate: "and" or "xor".
        d_mlp: Number of neurons.
        method: A key of `METHODS`, "discriminant", "balanced", or "signs" for a first layer of random signs and its
            readoff.
        weights: Weights of the cases in the training loss. "natural": as they occur. "ones": as they occur, but ones
            together weigh as much as all zeros. "zero_one": zeros and ones weigh equally. "four": the four cases weigh
            equally.
        p: Exponent of the loss.
    """

    gate: str
    d_mlp: int
    method: str
    weights: str = "four"
    p: int = 2


@dataclass(frozen=True)
class ComputeReadoff(Task):
    """Compute a readoff without training, from the random first layers that training starts with or from the inputs."""

    gate: str
    d_mlp: int
    method: str  # one of COMPUTED, or BALANCED
    n_features: int
    n_seeds: int

    def do(self, work: Work) -> Result:
        """Return the errors by seed and case, over all vectors with two inputs on."""
        from zoo.analysis.gate_simulations import computed_readoff, errors_on_all_vectors

        net = _module(Arm(self.gate, self.d_mlp, self.method), self.n_features, self.n_seeds).net
        outputs = computed_readoff(self.method, self.gate, net, self.n_features)
        return errors_on_all_vectors(outputs, self.gate, self.n_features, self.n_seeds)

    def seconds(self) -> float:
        """Return an estimate of the time for least squares of every pair, and for errors of all vectors and pairs."""
        solved = 1e-10 * self.n_features**2 * self.d_mlp**3 if self.method in (*CLOSED, BALANCED) else 0.0
        return 0.05 + self.n_seeds * (solved + 1.5e-8 * self.n_features**4)


@dataclass(frozen=True)
class TrainGates(Task):
    """Train the networks of all seeds in one way, side by side in one module."""

    gate: str
    d_mlp: int
    method: str  # "trained" or "frozen"
    weights: str
    p: int
    n_features: int
    steps: int
    n_seeds: int

    def do(self, work: Work) -> Result:
        """Return the errors by seed and case, over all vectors with two inputs on."""
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
        """Return an estimate of the time for products of matrices, forward and backward, which is most of the time."""
        step = 0.001 + 7.7e-9 * self.n_features**2 * self.d_mlp
        return 0.1 + self.n_seeds * (self.steps * step + 1.2e-8 * self.n_features**4)


def _module(arm: Arm, n_features: int, n_seeds: int) -> Any:
    """Return the networks before training; their first layers are the same for all methods."""
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
        weight_on_ones=n_features * (n_features - 1) / 2 - 1 if ones else 1.0,  # number of zeros per 1 of AND
        optimizer=AdamLinear(0.01, warmup_steps=0, decay_fraction=0.5),
    )


@dataclass(frozen=True)
class UniversalGates(Study):
    """Networks with one hidden layer are trained to compute AND and XOR of all pairs of sparse inputs.

    Args:
        n_features: Number of inputs m.
        widths: Numbers of neurons d.
        steps: Number of optimizer steps of every training.
        seeds: Number of networks for each way of training.
    """

    n_features: PositiveInt = 100
    widths: tuple[PositiveInt, ...] = (100, 200, 400)
    steps: PositiveInt = 1500
    seeds: AtLeastTwo = 3

    def check(self) -> None:
        """Refuse fewer than 4 inputs, with which no pair is off when two inputs are on."""
        if self.n_features < 4:
            raise ZooError(f"n_features is {self.n_features}; it must be at least 4")

    def arms(self) -> list[Arm]:
        """Return all ways to compute a gate."""
        first, *others = self.widths
        found = [Arm(gate, first, method) for gate in GATES for method in COMPUTED]
        weightings = [("and", w, p) for w in WEIGHTS for p in POWERS] + [("xor", "four", p) for p in POWERS]
        weightings.append(("xor", "zero_one", 2))
        found += [Arm(gate, first, m, w, p) for gate, w, p in weightings for m in ("frozen", "trained")]
        for d in others:
            for gate in GATES:
                found += [Arm(gate, d, method) for method in COMPUTED]
                found += [Arm(gate, d, method, "four", p) for method in ("frozen", "trained") for p in (2, 4)]
        return found + [Arm("and", d, m, "zero_one") for d in self.widths for m in (BALANCED, "frozen", "trained")]

    def tasks(self) -> Sequence[Task]:
        """Return one task for every arm."""
        return [self.task(arm) for arm in self.arms()]

    def task(self, arm: Arm) -> Task:
        """Return the task that computes the errors of an arm."""
        if arm.method in (*COMPUTED, BALANCED):
            return ComputeReadoff(arm.gate, arm.d_mlp, arm.method, self.n_features, self.seeds)
        return TrainGates(*arm, self.n_features, self.steps, self.seeds)

    def report(self, results: Results) -> Report:
        """Return a report that compares trained networks with random neurons and with readoffs of the inputs."""
        runs = {arm: results[self.task(arm)] for arm in self.arms()}
        compared = comparisons(runs)
        scope = (
            "More than two inputs on, a varying number of inputs on, other widths, and training other than "
            f"{self.steps:,} steps of Adam at one learning rate are not tested. {self.seeds} seeds are few."
        )
        bounded = against_bounds(runs, self.n_features)
        sections = [
            _cases(runs, self.n_features, scope),
            _random_layers(runs, compared, scope),
            _bounds(bounded, self.n_features, scope),
            _affine(runs),
            _losses(runs, scope),
        ]
        evidence = [
            [
                f"Is training better than random neurons: {one['gate'].upper()}, d = {one['d']:,}?",
                f"mean error {one['trained']} against {one['best']}, difference {one['against_best']}; difference of "
                f"rms errors {one['against_best_rms']}",
                one["answer"],
            ]
            for one in compared
        ]
        evidence += [
            [
                f"How close do networks come to the smallest loss that d neurons can have: {LOSSES[gate, weights]}?",
                "loss / bound " + "; ".join(f"{_told(one)} at d = {d:,}" for d, one in found.items()),
                f"trained {_span(found, 'trained')}, random layers {_span(found, 'best')} times the bound",
            ]
            for (gate, weights), found in bounded.items()
        ]
        certainty = (
            f"Brackets are 95 % Student t intervals over {self.seeds} networks for each way of training. Training "
            "counts as better or worse only if both the mean error and the root mean square error are. 'Worse' is a "
            "result about this training and not about what networks can compute: a network with a larger error than a "
            "readoff that it can represent has not converged. Intervals are not corrected for their number."
        )
        table = Table(["question", "measured", "answer"], evidence).markdown()
        numbers = {"evidence": evidence, "comparisons": compared, "bounds": _numbers(bounded), "seeds": self.seeds}
        subject = (
            f"Gates of all pairs of {self.n_features:,} inputs, from {listed([f'{d:,}' for d in self.widths])} neurons"
        )
        return Report(subject, Verdict(f"{_answer(compared)}.", certainty, table, numbers), sections)


Runs = Mapping[Arm, Result]


def widths(runs: Runs) -> list[int]:
    """Return the numbers of neurons d, ascending."""
    return sorted({arm.d_mlp for arm in runs})


def errors(runs: Runs, *arm: Any, name: str = "mean") -> np.ndarray:
    """Return the errors of one arm by seed and case, (seeds, 4).

    Args:
        runs: Results by arm.
        arm: Arguments of `Arm`.
        name: Kind of error: "mean", "rms", "max" or "bias".
    """
    return np.array(runs[Arm(*arm)][name])


def overall(runs: Runs, *arm: Any, name: str = "mean") -> np.ndarray:
    """Return the errors of one arm over the four cases, (seeds,): the mean of "mean", the root mean square of "rms"."""
    found = errors(runs, *arm, name=name)
    return np.sqrt((found**2).mean(1)) if name == "rms" else found.mean(1)


def comparisons(runs: Runs) -> list[dict[str, Any]]:
    """Compare trained networks with random neurons, at every gate and width.

    Differences are paired by seed, because all methods start from the same first layers. The best readoff of a random
    layer is the better one of least squares and discriminant. `against_best` is the mean |error| of trained networks
    minus that of the best readoff. `against_best_rms` is the same difference of root mean square errors, which training
    with p = 2 minimises. `against_readoff` is the difference from a trained readoff of the random layer. `answer` is
    `better` or `worse` if both differences from the best readoff have this sign, and otherwise `undecided`.
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


Bounded = dict[tuple[str, str], dict[int, dict[str, Any]]]


def against_bounds(runs: Runs, m: int) -> Bounded:
    """Compare losses with the smallest loss of any outputs that are linear in d neurons and a bias.

    Returns:
        For every gate and weights of `LOSSES` and every number of neurons: `bound`, the bound, and the losses of every
        key of `AGAINST_BOUND`, (seeds,). A loss is the sum over cases of weight times mean squared error. Weights sum
        to 1.
    """
    from zoo.analysis.gate_simulations import balanced_weights
    from zoo.models.toy.gate_bounds import least_gate_loss

    found: Bounded = {}
    for gate, weights in LOSSES:
        of_cases = [0.25] * 4 if weights == "four" else balanced_weights(gate, m)
        best = "least squares" if weights == "four" else BALANCED
        arms = {"trained": ("trained", weights), "best": (best, weights), "frozen": ("frozen", weights)}
        arms |= {"signs": ("signs", "four"), "explicit": ("explicit", "four")}
        found[gate, weights] = {
            d: {"bound": least_gate_loss(gate, m, d + 1, of_cases)}  # an output bias counts as a neuron
            | {name: errors(runs, gate, d, *arm, name="rms") ** 2 @ of_cases for name, arm in arms.items()}
            for d in widths(runs)
        }
    return found


def over_bound(one: Mapping[str, Any], name: str) -> Estimate:
    """Return the ratio of a loss to its bound; unknown if there are so many neurons that the bound is 0."""
    return mean(one[name] / one["bound"]) if one["bound"] else UNKNOWN


def places(compared: list[dict[str, Any]], answer: str) -> str:
    """Return the gates and widths at which `comparisons` has this answer, in words; "" if there are none."""
    found = []
    for gate in GATES:
        at = [f"{one['d']:,}" for one in compared if (one["gate"], one["answer"]) == (gate, answer)]
        if at:
            found.append(f"{gate.upper()} at d = {listed(at)}")
    return listed(found)


def _answer(compared: list[dict[str, Any]]) -> str:
    better, worse = places(compared, "better"), places(compared, "worse")
    subject, rival = "Training both layers", "the best readoff of random neurons"
    if {one["answer"] for one in compared} == {"better"}:
        return f"{subject} gives smaller errors than {rival} at every width"
    if {one["answer"] for one in compared} == {"worse"}:
        return f"{subject}, as it was done here, gives larger errors than {rival} at every width"
    if not better and not worse:
        return f"{subject} does not give clearly smaller or larger errors than {rival}"
    if not worse:
        return f"{subject} gives smaller errors than {rival} for {better}, and clearly larger errors nowhere"
    if not better:
        return f"{subject}, as it was done here, gives larger errors than {rival} for {worse}, and smaller ones nowhere"
    return f"{subject} gives smaller errors than {rival} for {better} and, as it was done here, larger ones for {worse}"


def _chosen(runs: Runs, wanted: Callable[[Arm], bool]) -> tuple[Table, list[dict[str, Any]]]:
    """Return a table of the errors of some arms, and all their numbers."""
    rows: list[list[Any]] = []
    shown = {arm: r for arm, r in runs.items() if wanted(arm)}
    for arm, r in shown.items():
        average, most = np.array(r["mean"]), np.array(r["max"])  # (seeds, 4)
        columns = [average[:, 0], average[:, 1:3].mean(1), average[:, 3], average.mean(1), most[:, 0], most[:, 3]]
        trained = (None, None) if arm.method in UNTRAINED else (arm.weights, arm.p)
        rows.append([arm.gate, arm.d_mlp, arm.method, *trained, *map(mean, columns)])
    columns = ["gate", "d", "method", "weights", "p", "mean |error| of 00", "of 01 and 10", "of 11", "of all four"]
    return Table([*columns, "largest |error| of 00", "of 11"], rows), [arm._asdict() | r for arm, r in shown.items()]


def _bars(name: str, values: np.ndarray, **options: Any) -> Series:
    """Return bars of errors (seeds, 4) by case."""
    return Series.of(name, INPUTS, [*map(mean, values.T)], "bars", **options)


def _cases(runs: Runs, m: int, scope: str) -> Section:
    d = next(iter(runs)).d_mlp
    told, learned, right = [], [], []
    for gate in GATES:
        average, most = (errors(runs, gate, d, "trained", name=name) for name in ("mean", "max"))
        columns = (average[:, 0], average[:, 1:3].mean(1), average[:, 3], average.mean(1), most.max(1))
        none, one, both, all_four, worst = map(mean, columns)
        told.append(
            f"The mean |error| of {gate.upper()} is {none} at 00, {one} at 01 and 10, and {both} at 11; over the four "
            f"cases it is {all_four}. The largest error is {worst:.2f}."
        )
        learned += [gate.upper()] if all_four.high < AFFINE[gate] else []
        right += [gate.upper()] if worst.high < RIGHT else []
    blind = errors(runs, "xor", d, "trained", "zero_one")
    seen, unseen = mean(blind[:, :3].max(1)), mean(blind[:, 3])
    trap = "is wrong if both inputs are on" if unseen.low > RIGHT else "is not clearly wrong if both inputs are on"
    finding = (
        f"Networks of d = {d:,} neurons, trained on all {m * (m - 1) // 2:,} pairs of {m} inputs, compute "
        f"{listed(learned) or 'neither gate'} with a smaller mean error than any affine readoff of the inputs. "
        f"{' '.join(told)} Rounded to 0 or 1, the outputs of "
        f"{listed(right) or 'neither'} are right for every pair and input. XOR trained with zeros and ones weighing "
        f"equally {trap}: the mean |error| is {unseen} at 11, and at most {seen} in any other case."
    )
    caption = "The four cases weigh equally in training, and p = 2. Whiskers: 95 % intervals over seeds."
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
    caption = "Both layers trained, p = 2. XOR is 0 in cases 00 and 11; if inputs are sparse, few of the zeros are 11."
    judged = [
        _bars("four cases weigh equally", errors(runs, "xor", d, "trained"), color=COLORS[2]),
        _bars("zeros and ones weigh equally", blind, color=COLORS[3]),
    ]
    title = "XOR: errors by case for two weightings of the training loss"
    charts.append(Chart("cases-judged", title, judged, "", "mean |error|", caption=caption))
    table, shown = _chosen(runs, lambda arm: arm.d_mlp == d and arm.p == 2 and arm.weights in ("four", "zero_one"))
    return Section(
        "cases",
        "Do narrow networks learn AND and XOR of all pairs of inputs?",
        finding,
        tables=[table],
        charts=charts,
        null_models=(
            "The affine readoff of the inputs, which uses no neurons; random first layers with the explicit readoff "
            "(explicit), with the best linear readoff (least squares) and with a trained readoff (frozen). Every "
            "network is evaluated on all vectors with two inputs on."
        ),
        not_shown=f"{scope} The distribution of errors is not stored, only its mean, rms, maximum and bias.",
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
        f"Random layers {'have' if beat else 'do not always have'} smaller errors than the affine readoff without "
        f"neurons. Mean |error| of networks with both layers trained, against the best readoff of their random first "
        f"layers: {'; '.join(told)}. By mean and root mean square error, training is {listed(by_answer)}. Compared "
        "with a trained readoff of the same random layer, training the first layer too makes the mean error smaller in "
        f"{helped} of {len(compared)} comparisons."
    )
    names = {d: f"{d:,}" for d in widths(runs)}
    charts = []
    for gate in GATES:
        lines = []
        for method, name in METHODS.items():
            style: Style = "line" if method in ("trained", "frozen") else "dashed"
            spans = [mean(overall(runs, gate, d, method)) for d in names]
            lines.append(Series.of(name, [*names.values()], spans, style))
        caption = "Bands: 95 % intervals over seeds. Solid: trained; dashed: computed without training."
        title, labels = f"{gate.upper()}: error against width", ("neurons d", "mean |error| of the four cases")
        charts.append(Chart(f"random-layers-{gate}", title, lines, *labels, log_y=True, caption=caption))
    lines = []
    for gate, color in zip(GATES, COLORS, strict=False):
        spans = [one["against_best"] for one in compared if one["gate"] == gate]
        lines.append(Series.of(gate.upper(), [*names.values()], spans, "points", color=color))
    title, labels = "Error of trained networks minus best readoff", ("neurons d", "difference of mean |error|")
    caption = "Below 0, trained networks are better. Whiskers: 95 % intervals over seeds, paired by first layer."
    charts.append(Chart("random-layers-difference", title, lines, *labels, caption=caption))
    keys = ("trained", "best", "against_best", "against_best_rms", "against_readoff")
    columns = ["gate", "d", "mean |error|: both layers trained", "best random readoff", "difference", "rms difference"]
    columns += ["difference from a trained readoff", "training is"]
    rows = [[one["gate"], one["d"], *(one[key] for key in keys), one["answer"]] for one in compared]
    table, shown = _chosen(runs, lambda arm: (arm.weights, arm.p) == ("four", 2))
    return Section(
        "random-layers",
        "Do trained networks compute gates with smaller errors than random neurons?",
        finding,
        tables=[Table(columns, rows), table],
        charts=charts,
        null_models=(
            "The random first layer is the one with which training starts. Its best linear readoff is computed: least "
            "squares, which is the optimum for p = 2, or least squares rescaled to be right on average (discriminant), "
            "whichever has the smaller error. A trained readoff of the same layer shows the error due to the optimizer."
        ),
        not_shown=(
            f"{scope} It does not show what networks can compute at best: if a trained network is worse than a readoff "
            "that it can represent, its training has not converged, and other training may be better."
        ),
        numbers={"comparisons": compared, "runs": shown},
    )


def _told(one: Mapping[str, Any]) -> str:
    return f"trained {over_bound(one, 'trained'):.2f}, random layer {over_bound(one, 'best'):.2f}"


def _span(found: Mapping[int, Mapping[str, Any]], name: str) -> str:
    ratios = [over_bound(one, name).mean for one in found.values() if one["bound"]]
    return f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "an unknown number of"


def _numbers(bounded: Bounded) -> list[dict[str, Any]]:
    return [
        {"gate": gate, "weights": weights, "d": d, "bound": one["bound"]}
        | {name: {"loss": mean(one[name]), "over_bound": over_bound(one, name)} for name in AGAINST_BOUND}
        for (gate, weights), found in bounded.items()
        for d, one in found.items()
    ]


def _bounds(bounded: Bounded, m: int, scope: str) -> Section:
    from zoo.analysis.gate_simulations import balanced_weights
    from zoo.models.toy.gate_bounds import least_gate_loss

    told: list[str] = []
    charts: list[Chart] = []
    rows: list[list[Any]] = []
    for (gate, weights), found in bounded.items():
        name, widths = LOSSES[gate, weights], [f"{d:,}" for d in found]
        ratios = {way: listed([f"{over_bound(one, way):.2f}" for one in found.values()]) for way in ("trained", "best")}
        told.append(
            f"{name}, d = {listed(widths)}: networks with both layers trained have {ratios['trained']} times the "
            f"smallest possible loss, random layers with the best linear readoff {ratios['best']} times. Written "
            f"readoffs have {_span(found, 'signs')} times that loss with weights 1 and -1, and "
            f"{_span(found, 'explicit')} times with Gaussian weights."
        )
        lines = [
            Series.of(text, widths, [mean(one[way]) for one in found.values()]) for way, text in AGAINST_BOUND.items()
        ]
        bound = [one["bound"] or None for one in found.values()]
        lines.append(Series("smallest possible: bound", widths, bound, "dotted"))
        caption = "Dotted: no network with d neurons has a smaller loss. Bands: 95 % intervals over seeds."
        charts.append(
            Chart(
                f"bounds-{gate}-{weights.replace('_', '-')}",
                name,
                lines,
                "neurons d",
                "loss",
                log_y=True,
                caption=caption,
            )
        )
        for d, one in found.items():
            losses = [f"{mean(one[way]):.4g}" for way in ("trained", "best")]
            rows.append(
                [gate, weights, d, f"{one['bound']:.4g}", *losses, *(over_bound(one, w) for w in AGAINST_BOUND)]
            )
    least = least_gate_loss("xor", m, next(iter(bounded["xor", "four"])) + 1, balanced_weights("xor", m))
    columns = ["gate", "weights", "d", "bound", "loss, both layers trained", "loss, random layer, best readoff"]
    columns += [f"loss / bound: {text}" for text in AGAINST_BOUND.values()]
    return Section(
        "bounds",
        "How close do networks come to the smallest loss that d neurons can have?",
        " ".join(told),
        tables=[
            Table(
                columns,
                rows,
                note=(
                    "A loss is the sum over cases of weight times mean squared error, p = 2; weights sum to 1. With "
                    "zero_one, outputs of 0 have the loss 1/2, and with four 1/4 for AND. Written readoffs are not "
                    "scaled to make these losses small."
                ),
            )
        ],
        charts=charts,
        null_models=(
            "The bound for all outputs that are linear in d numbers and a bias, whatever the numbers are "
            "(zoo.models.toy.gate_bounds); random first layers with the best linear readoff for this loss, with a "
            "trained readoff and with written readoffs."
        ),
        not_shown=(
            f"{scope} If the four cases weigh equally, it is not known whether one hidden layer can reach the bound. "
            "XOR with zeros and ones weighing equally is left out: x_i + x_j is wrong only at 11, which is rare, so "
            f"that the bound of {least:.2g} says nothing about XOR."
        ),
        numbers={"bounds": _numbers(bounded)},
    )


def _affine(runs: Runs) -> Section:
    d, names = next(iter(runs)).d_mlp, [gate.upper() for gate in GATES]
    off = max(float(np.abs(errors(runs, gate, d, "affine") - AFFINE[gate]).max()) for gate in GATES)
    compared = []
    for gate in GATES:
        explicit = overall(runs, gate, d, "explicit")
        side = mean(explicit - AFFINE[gate]).sign
        word = {"above": "a larger", "below": "a smaller", "undecided": "not a clearly different"}[side]
        compared.append(f"{word} error for {gate.upper()} ({mean(explicit)})")
    finding = (
        f"The best affine readoff of AND is (x_i + x_j) / 2 - 1/4, with an error of 1/4 in each case. That of XOR is "
        "the constant 1/2, with an error of 1/2. "
        f"{'Measured errors agree' if off < 1e-6 else f'Measured errors differ from this by up to {off:.2g}'}. The "
        f"explicit readoff of {d:,} random neurons has {' and '.join(compared)}."
    )
    bars = [
        Series.of(name, names, [mean(overall(runs, gate, d, method)) for gate in GATES], "bars")
        for method, name in METHODS.items()
    ]
    title, label = f"Errors without neurons, and with d = {d:,}", "mean |error| of the four cases"
    table, _ = _chosen(runs, lambda arm: arm.d_mlp == d and arm.method in ("affine", "explicit"))
    _, shown = _chosen(runs, lambda arm: arm.d_mlp == d and arm.method == "affine")
    return Section(
        "affine",
        "Which gates can an affine readoff of the inputs compute, without neurons?",
        finding,
        tables=[table],
        charts=[Chart("affine", title, bars, "", label)],
        null_models="The affine readoff is itself the null model of all other readoffs.",
        not_shown="Affine readoffs for unequal weights of the cases are not shown: if nearly all cases are 00, the "
        "constant 0 has a smaller error.",
        numbers={"off_closed_form": off, "runs": shown},
    )


def _losses(runs: Runs, scope: str) -> Section:
    d, low, high = next(iter(runs)).d_mlp, POWERS[0], POWERS[-1]

    def of(weights: str, p: int, name: str = "mean") -> np.ndarray:
        return errors(runs, "and", d, "trained", weights, p, name=name)

    zero = mean(of("natural", low)[:, 3])
    wins = "training ends at the zero map" if zero.low > 0.9 else "training does not quite end at the zero map"
    ones, alike = (mean(of(w, low)[:, 1:3].mean(1)) for w in ("ones", "four"))
    both = mean(of("ones", low)[:, 3])
    mended = (
        "makes the error small at 11 and large at 01 and 10"
        if both.high < 0.25 < ones.low
        else "does not clearly make the error large at 01 and 10"
    )
    change = mean(of("four", low).mean(1) - of("four", high).mean(1))
    most = mean(of("four", low, "max").max(1) - of("four", high, "max").max(1))
    verbs = {"below": "smaller than", "above": "larger than", "undecided": "not clearly different from"}
    largest = {"below": "smaller", "above": "larger", "undecided": "not clearly different"}
    errors_by_p = ", ".join(f"{of('four', p).mean():.3f} (p = {p})" for p in POWERS)
    finding = (
        f"For AND, if cases weigh as they occur, {wins}: with p = {low} the mean |error| at 11 is {zero}. Weighing "
        f"ones as much as all zeros {mended}: {both} at 11 and {ones} at 01 and 10, against {alike} at 01 and 10 if "
        f"the four cases weigh equally. If they do, the mean |error| with p = {low} is {verbs[change.sign]} that with "
        f"p = {high}: {errors_by_p}, difference {change}. Its largest error is {largest[most.sign]} (difference "
        f"{most:.2f})."
    )
    x_label = "exponent p of the loss"

    def chart(name: str, title: str, label: str, column: slice, measure: str = "mean") -> Chart:
        lines = []
        for (weights, text), color in zip(WEIGHTS.items(), COLORS, strict=False):
            found = [of(weights, p, measure)[:, column] for p in POWERS]
            spans = [mean(values.max(1) if measure == "max" else values.mean(1)) for values in found]
            lines.append(Series.of(text, POWERS, spans, "line", color=color))
        return Chart(
            f"losses-{name}", title, lines, x_label, label, caption="Both layers trained. Bands: 95 % intervals."
        )

    styles: dict[str, Style] = {"and": "line", "xor": "dashed"}
    methods = [
        Series.of(METHODS[method], POWERS, [mean(overall(runs, gate, d, method, "four", p)) for p in POWERS], style)
        for gate, style in styles.items()
        for method in ("frozen", "trained")
    ]
    charts = [
        chart("all", "AND: error over all four cases", "mean |error| of the four cases", slice(0, 4)),
        chart("ones", "AND: error if both inputs are on", "mean |error| at 11", slice(3, 4)),
        chart("one-on", "AND: error if one input is on", "mean |error| at 01 and 10", slice(1, 3)),
        chart("largest", "AND: largest error", "largest |error|", slice(0, 4), "max"),
        Chart(
            "losses-methods",
            "Errors with the readoff trained and with both layers trained",
            methods,
            x_label,
            "mean |error| of the four cases",
            caption="Solid: AND; dashed: XOR. The four cases weigh equally. Bands: 95 % intervals.",
        ),
    ]
    table, shown = _chosen(runs, lambda arm: arm.d_mlp == d and arm.method in ("trained", "frozen"))
    of_xor = ", ".join(f"{overall(runs, 'xor', d, 'trained', 'four', p).mean():.3f} ({p})" for p in POWERS)
    return Section(
        "losses",
        "With which loss and which weights of the four cases do networks learn a gate?",
        finding,
        tables=[table],
        charts=charts,
        null_models=(
            "For AND, the constant 0 has an error of 1 at 11 and of 0 elsewhere, and the affine readoff has an error "
            "of 1/4 in every case. Weights of cases: as they occur (natural); as they occur, but ones as much as all "
            "zeros (ones); zeros and ones equally (zero_one); the four cases equally (four). Mean |error| of XOR with "
            f"the four cases weighing equally, with p in parentheses: {of_xor}."
        ),
        not_shown=f"{scope} Training with p above 2 may not have converged at this learning rate; other learning rates "
        "are not tested.",
        numbers={"runs": shown},
    )
