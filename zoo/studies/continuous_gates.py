"""How close do networks that compute with real numbers in superposition come to the best that is possible?

Four toys have reference losses that are known exactly: n functions ReLU(x_i) with fewer neurons, maps of small rank
under the loss |error|^q, products of all pairs of inputs, and circuits that share a deep network. Every loss is shown
beside the losses of the zero map and of dedicated neurons (one for each of d functions), and a lower bound for every
network of that width, where these are known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jsonargparse.typing import PositiveFloat, PositiveInt

from zoo.errors import ZooError
from zoo.estimates import Estimate, mean
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work

Settings = tuple[tuple[str, Any], ...]
NEAR = 0.05  # share of the bound within which a loss counts as reaching it
PAIRS_OF_POWERS = ((3, 2), (6, 3), (10, 5))  # features and dimensions with an equiangular frame
POWERS = (1.5, 2.0, 3.0, 4.0)
ZERO_WEIGHTS = (0.3, 0.5, 0.7, 1.0)
FRAME_SEEDS = 16
LABELS = {
    "clean labels": (),
    "mixed, +1": (("mixing", 1.0),),
    "mixed, -1": (("mixing", -1.0),),
    "residual stream": (("residual", True),),
}


@dataclass(frozen=True)
class TrainToy(Task):
    """Train the networks of all seeds of one toy side by side, or only measure them.

    Args:
        module: Class of the toy in `zoo.models`.
        settings: Settings of the class, apart from sizes that follow the data.
        active: Class of `zoo.active_inputs`, and its number of active inputs.
        data: Settings of `SparseFeaturesDataModule`.
        steps: Number of optimizer steps; 0 to measure without training.
        learning_rate: Learning rate of Adam.
        n_seeds: Number of networks.
    """

    module: str
    settings: Settings
    active: tuple[str, float]
    data: Settings
    steps: int
    learning_rate: float
    n_seeds: int

    def do(self, work: Work) -> Result:
        """Return the loss of every seed, the reference losses, and what else the toy measures."""
        import torch

        import zoo.active_inputs
        import zoo.models
        from zoo.datamodules import SparseFeaturesDataModule
        from zoo.models import AdamLinear
        from zoo.quiet_fit import fit, validate

        torch.manual_seed(0)
        kind, number = self.active
        active = getattr(zoo.active_inputs, kind)(int(number) if kind == "FixedActive" else number)
        data = SparseFeaturesDataModule(active=active, n_seeds=self.n_seeds, **dict(self.data))
        optimizer = AdamLinear(self.learning_rate, 0, 0.5)
        module = getattr(zoo.models, self.module)(
            data.n_features, n_seeds=self.n_seeds, optimizer=optimizer, **dict(self.settings) | self._width(data)
        )
        if self.steps:
            fit(module, data, self.steps)
        validate(module, data)
        found: Result = {"loss": module.seed_losses.numpy(), "lines": module.reference_losses()}
        for name in ("computed", "depth_errors"):
            if (value := getattr(module, name, None)) is not None:
                found[name] = value.numpy()
        if cases := getattr(module, "case_errors", None):
            found["rms"] = cases[0]["rms"].numpy()  # (seeds, 4)
        return found

    def _width(self, data: Any) -> dict[str, int]:
        return {"d_in": data.d_in} if self.module in ("UniversalProducts", "UniversalGates") else {}

    def seconds(self) -> float:
        """Return a guess."""
        return 1 + 2e-3 * self.steps * self.n_seeds


class _Product(NamedTuple):
    """One way to compute the products of all pairs."""

    neuron: str
    first_layer: str
    readoff: str
    s: int
    d: int
    values: str = "sign"
    q: float = 2.0
    superposed: int = 0
    bias: bool = True


@dataclass(frozen=True)
class ContinuousGates(Study):
    """Toys that compute with real numbers are trained, and compared with exact losses and bounds.

    Args:
        n_functions: Number n of functions ReLU(x_i).
        widths: Numbers of neurons for these functions.
        probability: Probability that an input of a function is not 0.
        n_inputs: Number m of inputs whose products are computed.
        product_widths: Numbers of neurons for products.
        active: Numbers of inputs that are on at once, for products.
        circuits: Number of circuits that share a deep network.
        depth: Number of layers of the deep network.
        steps: Number of optimizer steps of every training.
        seeds: Number of networks of every kind; maps of small rank have 16, of which the best counts.
    """

    n_functions: PositiveInt = 40
    widths: tuple[PositiveInt, ...] = (10, 20, 30)
    probability: PositiveFloat = 0.03
    n_inputs: PositiveInt = 12
    product_widths: tuple[PositiveInt, ...] = (12, 20, 40)
    active: tuple[PositiveInt, ...] = (2, 3, 4)
    circuits: PositiveInt = 100
    depth: PositiveInt = 4
    steps: PositiveInt = 3000
    seeds: AtLeastTwo = 4

    def check(self) -> None:
        """Refuse sizes that do not fit together."""
        if self.probability > 1:
            raise ZooError(f"probability is {self.probability}; it must be at most 1")
        if max(self.widths) >= self.n_functions:
            raise ZooError(f"widths are {self.widths}; all must be below n_functions, {self.n_functions}")
        if min(self.active) < 2 or 2 * max(self.active) > self.n_inputs:
            raise ZooError(f"active is {self.active}; numbers must be 2 to half of n_inputs, {self.n_inputs // 2}")
        if self.circuits < 4:
            raise ZooError(f"circuits is {self.circuits}; it must be at least 4")

    def compressed(self) -> dict[tuple[str, float, int], TrainToy]:
        """Return the tasks of functions ReLU(x_i), by labels, q and number of neurons."""
        found = {}
        n = self.n_functions
        middle = self.widths[len(self.widths) // 2]
        data = (("n_features", n), ("values", "signed"), ("batch_size", 1024), ("n_validation", 1 << 15))
        for label, settings in LABELS.items():
            for q in (2.0, 4.0) if label == "clean labels" else (2.0,):
                for d in self.widths if label == "clean labels" else (middle,):
                    own = (("d_mlp", d), ("q", q), ("d_embed", 10 * n), *settings)
                    active = ("BernoulliActive", self.probability * n)
                    task = TrainToy("CompressedComputation", own, active, data, self.steps, 3e-3, self.seeds)
                    found[label, q, d] = task
        return found

    def powers(self) -> dict[tuple[int, int, float, float], TrainToy]:
        """Return the tasks of maps of small rank, by n, d, q and the weight of zeros."""
        arms = [(n, d, q, 1.0) for n, d in PAIRS_OF_POWERS for q in POWERS]
        arms += [(6, 3, q, w) for q in (1.5, 2.0) for w in ZERO_WEIGHTS if w < 1]
        found = {}
        for n, d, q, w in arms:
            own = (("d_hidden", d), ("q", q), ("zero_weight", w))
            data = (("n_features", n), ("batch_size", n), ("n_validation", n))
            found[n, d, q, w] = TrainToy(
                "PowerSuperposition", own, ("FixedActive", 1), data, self.steps, 2e-2, FRAME_SEEDS
            )
        return found

    def products(self) -> dict[_Product, TrainToy]:
        """Return the tasks of products, by how they are computed."""
        d = self.product_widths[-1]
        arms = [_Product("relu", "trained", "trained", 2, each, "one") for each in self.product_widths]
        arms += [_Product("relu", "gaussian", "trained", 2, each, "one") for each in self.product_widths]
        for s in self.active:
            arms += [_Product("absolute", "trained", "trained", s, d), _Product("bilinear", "trained", "trained", s, d)]
            arms += [_Product("relu", "trained", "trained", s, d)]
            arms += [_Product(n, "signs", "written", s, d, bias=False) for n in ("square", "absolute", "relu")]
        arms += [_Product("absolute", "trained", "trained", 2, d, q=4.0)]
        arms += [_Product("absolute", "trained", "trained", 2, d, superposed=m) for m in self._superposed]
        arms += [_Product("relu", "trained", "trained", 2, 4 * d, "signed", bias=bias) for bias in (False, True)]
        return {arm: self._product(arm) for arm in arms}

    @property
    def _superposed(self) -> tuple[int, int]:
        return self.n_inputs * 2 // 3, self.n_inputs - 1

    def _product(self, arm: _Product) -> TrainToy:
        own: Settings = (("d_mlp", arm.d), ("neuron", arm.neuron), ("first_layer", arm.first_layer))
        own += (("readoff", arm.readoff), ("bias", arm.bias), ("q", arm.q))
        data: Settings = (("n_features", self.n_inputs), ("values", arm.values), ("n_validation", 1 << 13))
        data += (("d_superposed", arm.superposed),) if arm.superposed else ()
        steps = self.steps if arm.readoff == "trained" else 0
        return TrainToy("UniversalProducts", own, ("FixedActive", arm.s), data, steps, 1e-2, self.seeds)

    def deep(self) -> dict[tuple[str, str, int], TrainToy]:
        """Return the tasks of circuits, by kind, correction and number of active circuits."""
        found = {}
        for kind in ("rotation", "boolean"):
            for correction in ("none", "ideal", "learned"):
                for z in (1, 3) if kind == "rotation" else (3,):
                    own = (("depth", self.depth), ("kind", kind), ("correction", correction))
                    data = (("n_features", self.circuits), ("batch_size", 8), ("n_validation", 32))
                    steps = 300 if correction == "learned" else 0
                    active = ("FixedActive", z)
                    found[kind, correction, z] = TrainToy(
                        "CircuitsInDepth", own, active, data, steps, 5e-2, 4 * self.seeds
                    )
        return found

    def tasks(self) -> Sequence[Task]:
        """Return the tasks of all four toys."""
        return [
            task for part in (self.compressed(), self.powers(), self.products(), self.deep()) for task in part.values()
        ]

    def report(self, results: Results) -> Report:
        """Return a report with a section for every toy."""
        parts = [
            _compressed(self, {key: results[task] for key, task in self.compressed().items()}),
            _powers({key: results[task] for key, task in self.powers().items()}),
            _products(self, {key: results[task] for key, task in self.products().items()}),
            _deep(self, {key: results[task] for key, task in self.deep().items()}),
        ]
        evidence = [row for _, rows in parts for row in rows]
        first, *others = [section.finding.partition(". ")[0].rstrip(".") + "." for section, _ in parts]
        headline = f"{first}\n\n{' '.join(others)}"
        certainty = (
            f"Brackets are 95 % Student t intervals over {self.seeds} networks, for circuits over {4 * self.seeds}. "
            "Reference losses are exact and have no interval. A loss counts as reaching a bound if its whole interval "
            f"is within {NEAR:.0%} of it. Training uses {self.steps:,} steps of Adam at one learning rate, so a loss "
            "above a reference loss can mean that training has not converged. Other sizes, other learning rates, and "
            "noise are not tested."
        )
        table = Table(["question", "measured", "answer"], evidence).markdown()
        verdict = Verdict(headline, certainty, table, {"evidence": evidence})
        return Report(
            "Toys that compute with real numbers, and their exact reference losses", verdict, [one for one, _ in parts]
        )


Part = tuple[Section, list[list[Any]]]


def _line(result: Result, name: str) -> float | None:
    value = result["lines"].get(name)
    return None if value is None else float(value)


def _share(loss: Estimate, line: float) -> Estimate:
    return Estimate(loss.mean / line, loss.low / line, loss.high / line, loss.n)


def _compressed(study: ContinuousGates, runs: Mapping[tuple[str, float, int], Result]) -> Part:
    rows: list[list[Any]] = []
    p = study.probability
    for (label, q, d), r in runs.items():
        lines = [None if (v := _line(r, name)) is None else v / p for name in ("zero_map", "dedicated", "bound")]
        loss = mean(r["loss"] / p)
        rows.append([label, f"{q:g}", d, f"{loss:.4g}", *(v and f"{v:.4g}" for v in lines), mean(r["computed"])])
    clean = {d: runs["clean labels", 2.0, d] for d in study.widths}
    middle = study.widths[len(study.widths) // 2]
    quartic = runs["clean labels", 4.0, middle]
    gain = _share(mean(quartic["loss"]), _line(quartic, "dedicated") or np.nan)
    square = _share(mean(clean[middle]["loss"]), _line(clean[middle], "dedicated") or np.nan)
    mixed = mean(runs["mixed, -1", 2.0, middle]["computed"])
    series = [Series.of("trained", study.widths, [mean(r["loss"] / p) for r in clean.values()])]
    exact = {name: [(_line(r, name) or np.nan) / p for r in clean.values()] for name in ("dedicated", "bound")}
    series.append(Series("dedicated", study.widths, exact["dedicated"], "dashed"))
    series.append(Series("bound", study.widths, exact["bound"], "dotted"))
    finding = (
        f"With squared errors, {middle} neurons for {study.n_functions} functions have {square:.3f} times the loss of "
        f"dedicated neurons (one function each), and with |error|^4 {gain:.3f} times. With mixed labels (-1) the "
        f"networks compute {mixed:.1f} of {study.n_functions} functions, measured on clean labels, with {middle} "
        "neurons."
    )
    section = Section(
        "compressed",
        "Do few neurons compute more functions ReLU(x_i) than there are neurons?",
        finding,
        tables=[
            Table(
                ["labels", "q", "neurons", "loss / p", "zero map", "dedicated neurons", "bound", "functions computed"],
                rows,
                note=(
                    "*Functions computed* is the sum over outputs of the squared correlation with ReLU(x_i). Labels "
                    "are ReLU(x), with M x added if they are mixed, M = +-(W_E W_Eᵀ - I); those of a residual stream "
                    "correspond to -1."
                ),
            )
        ],
        charts=[
            Chart(
                "compressed",
                "Loss of n functions",
                series,
                "neurons",
                "loss / p",
                caption="Squared errors, clean labels.",
            )
        ],
        null_models="The zero map and dedicated neurons, both exact, and a bound for every network of that width.",
        not_shown="One probability of inputs, and one size of the embedding that mixes labels.",
        numbers={"computed": {f"{label}, q {q:g}, d {d}": mean(r["computed"]) for (label, q, d), r in runs.items()}},
    )
    asked = "With the loss |error|^{}, is superposition better than dedicated neurons?"
    ratios = (2, square), (4, gain)
    return section, [[asked.format(q), f"loss / dedicated: {one:.3f}", _below_one(one)] for q, one in ratios]


def _below_one(ratio: Estimate) -> str:
    return "yes" if ratio.high < 0.9 else "no" if ratio.low > 0.9 else "undecided"


def _powers(runs: Mapping[tuple[int, int, float, float], Result]) -> Part:
    from zoo.models.toy.power_loss import sharing_threshold

    rows: list[list[Any]] = []
    right = []
    for (n, d, q, w), r in runs.items():
        best = float(np.min(r["loss"]))
        dedicated, frame = _line(r, "dedicated"), _line(r, "equiangular")
        assert dedicated is not None
        assert frame is not None
        shared = best < dedicated * 0.999
        expected = w < sharing_threshold(q) * 0.999 if q <= 2 else True
        right.append(shared == expected)
        rows.append(
            [n, d, f"{q:g}", f"{w:g}", f"{best:.5f}", f"{dedicated:.5f}", f"{frame:.5f}", "yes" if shared else "no"]
        )
    finding = (
        f"In {sum(right)} of {len(right)} cases, the best of {FRAME_SEEDS} maps shares dimensions between features "
        "if and only if theory predicts it. Theory predicts it for q above 2, and for smaller q if the weight of "
        "outputs that should be 0 is below a known threshold."
    )
    series = []
    for n, d in PAIRS_OF_POWERS:
        ratios = [np.min(runs[n, d, q, 1.0]["loss"]) / (1 - d / n) for q in POWERS]
        series.append(Series(f"{n} features, {d} dimensions", POWERS, ratios))
    section = Section(
        "powers",
        "From which exponent of the error on does it pay to share dimensions?",
        finding,
        tables=[
            Table(
                ["features", "dimensions", "q", "weight of zeros", "best loss", "dedicated", "equiangular", "shares"],
                rows,
                note="*Shares*: the best loss is below that of dedicated dimensions by more than 0.1 %.",
            )
        ],
        charts=[Chart("powers", "Best loss over that of dedicated dimensions", series, "q", "loss / dedicated")],
        null_models="Dedicated dimensions, and equiangular frames, both exact.",
        not_shown="More than one feature on at once, and numbers of features without an equiangular frame.",
    )
    answer = "yes" if all(right) else "no"
    return section, [
        [
            "Do features share dimensions exactly where theory predicts it?",
            f"{sum(right)} of {len(right)} cases",
            answer,
        ]
    ]


def _products(study: ContinuousGates, runs: Mapping[_Product, Result]) -> Part:
    rows: list[list[Any]] = []
    reached = []
    for arm, r in runs.items():
        loss, bound = mean(r["loss"]), _line(r, "bound")
        scaled = np.asarray(r["rms"]) * arm.d**0.5
        if arm.first_layer == "trained" and bound and not arm.superposed and arm.values == "one":
            reached.append(_share(loss, bound))
        what = {"one": "AND", "sign": "signs", "signed": "uniform"}[arm.values]
        rows.append(
            [what, arm.s, arm.neuron + ("" if arm.bias else ", no bias"), arm.first_layer, arm.readoff, arm.d,
             f"{arm.q:g}", arm.superposed or "-", f"{loss:.4f}", bound and f"{bound:.4f}",
             mean(scaled[:, 0]), mean(scaled[:, 3]), mean(r["computed"])]
        )  # fmt: skip
    d = study.product_widths[-1]
    frozen = [(runs[_Product("relu", "gaussian", "trained", 2, each, "one")]) for each in study.product_widths]
    over = [_share(mean(r["loss"]), _line(r, "bound") or np.nan) for r in frozen]
    finding = (
        f"For the ANDs of all pairs of {study.n_inputs} inputs, two of which are on, the loss of trained ReLU networks "
        f"is {reached[0]:.3f} to {reached[-1]:.3f} times the lower bound, and that of random ReLU neurons with a "
        f"trained readoff is {over[0]:.2f} to {over[-1]:.2f} times."
    )
    series = [
        Series.of(name, study.product_widths, [mean(runs[_Product("relu", layer, "trained", 2, each, "one")]["loss"])
                  for each in study.product_widths])
        for name, layer in (("trained", "trained"), ("random first layer", "gaussian"))
    ]  # fmt: skip
    bounds = [_line(r, "bound") or np.nan for r in frozen]
    series.append(Series("bound", study.product_widths, bounds, "dotted"))
    section = Section(
        "products",
        "How close do networks come to the smallest possible error of all products?",
        finding,
        tables=[
            Table(
                [
                    "inputs",
                    "on",
                    "neurons",
                    "first layer",
                    "readoff",
                    "d",
                    "q",
                    "inputs superposed in",
                    "loss",
                    "bound",
                    "rms error x √d, pair off",
                    "pair on",
                    "products computed",
                ],
                rows,
                note=(
                    "The loss is balanced between pairs that are on and off. Written readoffs have no parameters that "
                    "are trained. Uniform inputs have no bound."
                ),
            )
        ],
        charts=[Chart("products", "Balanced loss of all ANDs", series, "neurons", "loss", log_y=True)],
        null_models="The zero map (loss 1), dedicated neurons (1 - d / pairs), and a bound for every network.",
        not_shown="More than one hidden layer, and more inputs.",
        numbers={"d": d},
    )
    near = all(one.high <= 1 + NEAR for one in reached)
    told = f"loss / bound {reached[0]:.3f} to {reached[-1]:.3f}"
    return section, [["Do trained networks reach the bound for ANDs?", told, "yes" if near else "no"]]


def _deep(study: ContinuousGates, runs: Mapping[tuple[str, str, int], Result]) -> Part:
    from zoo.models.toy.circuits import interference, interference_of_active

    depths = range(study.depth + 1)
    rows: list[list[Any]] = []
    series = []
    for (kind, correction, z), r in runs.items():
        errors = [mean(e) for e in np.asarray(r["depth_errors"])]
        exact: list[float | None] = [None for _ in depths]
        if correction == "none":
            exact = [interference(depth, 64, study.circuits, z) for depth in depths]
        elif correction == "ideal" and kind == "rotation":
            exact = [interference_of_active(depth, 64, z) for depth in depths]
        rows.append([kind, z, correction, *errors, exact[-1] and f"{exact[-1]:.3f}"])
        if (kind, z) == ("rotation", 3):
            series.append(Series.of(correction, list(depths), errors))
    at = {
        name: mean(np.asarray(runs["rotation", name, 3]["depth_errors"])[-1]) for name in ("none", "ideal", "learned")
    }
    finding = (
        f"With 3 of {study.circuits} circuits active, the squared error after {study.depth} layers is {at['none']:.2f} "
        f"without correction, {at['learned']:.2f} with a learned one, and {at['ideal']:.2f} with an ideal one, which "
        "sets all inactive circuits to 0."
    )
    section = Section(
        "circuits",
        "How do errors of circuits in superposition grow with depth?",
        finding,
        tables=[
            Table(
                ["maps", "active", "correction", *(f"error at depth {depth}" for depth in depths), "exact, last depth"],
                rows,
                note="Squared errors of active circuits, whose states have norm 1, stored in 64 dimensions.",
            )
        ],
        charts=[Chart("circuits", "Squared error by depth", series, "depth", "squared error", log_y=True)],
        null_models="No correction, and all inactive circuits set to 0; both have exact values for rotations.",
        not_shown="Corrections other than a gate on the norm of a state, and codes that are learned.",
    )
    helps = "yes" if at["learned"].high < at["none"].low else "undecided"
    return section, [
        [
            "Does a learned correction slow the growth of errors with depth?",
            f"{at['learned']:.2f} against {at['none']:.2f}",
            helps,
        ]
    ]
