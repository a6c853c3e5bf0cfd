"""How do the errors of circuits in superposition grow with depth, and what does a correction change?

T circuits share one deep network: every layer stores all their states in N dimensions for each number of a state, along
random directions, so that they disturb each other (Bushnaq & Mendel 2024). z circuits are active, and the states of the
others are 0. Errors are squared errors of the states of active circuits, which have norm 1.

A network in blocks of neurons, which is written and not trained, runs N² circuits in N blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jsonargparse.typing import PositiveInt

from zoo.errors import ZooError
from zoo.estimates import Estimate, mean
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.toys import Settings, TrainToy
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work
from zoo.wording import listed

CORRECTIONS = ("none", "ideal", "learned")
TOLD = {"none": "no correction", "ideal": "ideal correction", "learned": "learned correction"}
COLORS = ("first", "second", "third", "fourth")
PER_SEED = 4  # networks for each seed, because the errors of single networks vary much
TOO_LARGE = 0.5  # squared error from which on a state counts as lost
BLOCKS, NEURONS = 8, 8  # blocks of neurons of the written network, and neurons of a circuit
SILENCED = ("silenced", "not_silenced")
SETS = 1000  # random sets of active circuits of each written network, if more than one is active
IN_BLOCKS = (1, 2, 3)  # numbers of active circuits in the written network


class Arm(NamedTuple):
    """One kind of network.

    Args:
        kind: Map of every circuit in every layer, "rotation" or "boolean".
        correction: One of `CORRECTIONS`.
        T: Number of circuits.
        z: Number of active circuits.
    """

    kind: str
    correction: str
    T: int
    z: int


Runs = Mapping[Arm, Result]


@dataclass(frozen=True)
class RunBlocks(Task):
    """Run the N² circuits of `block_network`, whose weights are random whole numbers."""

    n_blocks: int
    n_neurons: int
    depth: int
    active: tuple[int, ...]
    n_seeds: int

    def do(self, work: Work) -> Result:
        """Return squared errors over the squares of the states.

        `silenced` (numbers of active circuits, depth + 1, networks) are the errors of the network, and `not_silenced`
        those of the same network without its neurons that silence idle blocks.
        """
        errors = {name: [self._errors(name == "silenced", seed) for seed in range(self.n_seeds)] for name in SILENCED}
        return {name: np.array(of_seeds).transpose(1, 2, 0) for name, of_seeds in errors.items()}

    def _errors(self, silenced: bool, seed: int) -> list[list[float]]:
        import torch

        from zoo.models.toy.circuits import block_errors

        generator, N, d = torch.Generator().manual_seed(seed), self.n_blocks, self.n_neurons
        maps = torch.randint(-1, 2, (self.depth, N, N, d, d), generator=generator).double()
        found = []
        for number in self.active:  # each circuit alone, or random sets of circuits
            order = torch.eye(N**2) if number == 1 else torch.rand(SETS, N**2, generator=generator)
            active = torch.zeros(len(order), N**2).scatter(1, order.topk(number).indices, 1.0).double()
            states = torch.randint(1, 4, (len(order), N, N, d), generator=generator).double()
            found.append(block_errors(maps, states, active.unflatten(1, (N, N)), silenced).tolist())
        return found

    def seconds(self) -> float:
        """Return an estimate of the time for products of matrices."""
        return 1 + 4e-9 * SETS * self.n_seeds * len(self.active) * self.depth * (self.n_blocks * self.n_neurons) ** 2


@dataclass(frozen=True)
class CircuitsInDepth(Study):
    """Circuits that share a deep network are measured without correction, with an ideal one and with a learned one.

    Args:
        circuits: Numbers T of circuits.
        active: Numbers z of active circuits; the second is that of networks with the other numbers of circuits.
        slots: Number N of dimensions in which states are stored.
        depth: Number of layers.
        steps: Number of optimizer steps of every learned correction.
        seeds: A fourth of the number of networks of each kind.
    """

    circuits: tuple[PositiveInt, ...] = (100, 400)
    active: tuple[PositiveInt, ...] = (1, 3, 6)
    slots: PositiveInt = 64
    depth: PositiveInt = 4
    steps: PositiveInt = 300
    seeds: AtLeastTwo = 4

    def check(self) -> None:
        """Refuse more active circuits than there are circuits, and fewer than two layers or two numbers."""
        if max(self.active) > min(self.circuits):
            raise ZooError(
                f"active is {self.active}; all must be at most the smallest of circuits, {min(self.circuits)}"
            )
        if self.depth < 2:
            raise ZooError(f"depth is {self.depth}; it must be at least 2")
        if len(self.active) < 2:
            raise ZooError(f"active is {self.active}; at least two numbers are needed")

    @property
    def usual(self) -> tuple[int, int]:
        """The numbers of circuits and of active circuits of most networks."""
        return self.circuits[0], self.active[1]

    def arms(self) -> list[Arm]:
        """Return all kinds of networks."""
        T, z = self.usual
        sizes = [(T, each) for each in self.active] + [(more, z) for more in self.circuits[1:]]
        found = [Arm("rotation", correction, *size) for size in sizes for correction in CORRECTIONS]
        return found + [Arm("boolean", correction, T, z) for correction in CORRECTIONS]

    def task(self, arm: Arm) -> TrainToy:
        """Return the task that trains or measures the networks of one kind."""
        own: Settings = (("n_slots", self.slots), ("depth", self.depth), ("kind", arm.kind))
        own += (("correction", arm.correction),)
        data: Settings = (("n_features", arm.T), ("batch_size", 8), ("n_validation", 32))
        steps, n = self.steps if arm.correction == "learned" else 0, PER_SEED * self.seeds
        cost = 1.6e-4 * n * arm.T * self.depth
        return TrainToy("CircuitsInDepth", own, ("FixedActive", arm.z), data, steps, 5e-2, n, cost)

    def blocks(self) -> RunBlocks:
        """Return the task that runs circuits in blocks of neurons."""
        return RunBlocks(BLOCKS, NEURONS, self.depth, IN_BLOCKS, PER_SEED * self.seeds)

    def tasks(self) -> Sequence[Task]:
        """Return one task for every kind of network, and one for the network in blocks."""
        return [*(self.task(arm) for arm in self.arms()), self.blocks()]

    def report(self, results: Results) -> Report:
        """Return a report on the growth of errors."""
        runs = {arm: results[self.task(arm)] for arm in self.arms()}
        blocks = results[self.blocks()]
        section = _growth(self, runs, blocks)
        T, z = self.usual
        last = {name: _last(runs[Arm("rotation", name, T, z)]) for name in CORRECTIONS}
        slow = last["learned"].high < last["none"].low
        evidence = [
            [
                f"Does a learned correction slow the growth of errors, {z} of {T} circuits active?",
                f"error after {self.depth} layers {last['learned']} against {last['none']}",
                "yes" if slow else "no" if last["learned"].low > last["none"].high else "undecided",
            ],
            [
                f"Do {BLOCKS**2} circuits in {BLOCKS} blocks of neurons run without error if one is active?",
                f"largest error {_largest(blocks):g}; with two active, {_in_blocks(blocks)[1][-1]}",
                "no" if _largest(blocks) else "yes",
            ],
        ]
        certainty = (
            f"Brackets are 95 % Student t intervals over {PER_SEED * self.seeds} networks with their own random codes "
            f"and maps. A correction has three numbers for each layer, learned in {self.steps:,} steps of Adam at one "
            "learning rate."
        )
        table = Table(["question", "measured", "answer"], evidence).markdown()
        headline = section.finding.partition(". ")[0] + "."
        subject = f"{listed([str(n) for n in self.circuits])} circuits in {self.slots} dimensions"
        return Report(subject, Verdict(headline, certainty, table, {"evidence": evidence}), [section])


def _errors(result: Result) -> list[Estimate]:
    """Return the squared error at every depth."""
    return [mean(errors) for errors in np.asarray(result["depth_errors"])]


def _last(result: Result) -> Estimate:
    return _errors(result)[-1]


def _factor(result: Result) -> Estimate:
    """Return the factor by which the error grows in a layer: the geometric mean over all layers but the first."""
    errors = np.asarray(result["depth_errors"])  # (depth + 1, networks)
    return mean((errors[-1] / errors[1]) ** (1 / (len(errors) - 2)))


def _in_blocks(blocks: Result, silenced: str = "silenced") -> list[list[Estimate]]:
    """Return the errors of the network in blocks at every depth, for every number of active circuits."""
    return [[mean(errors) for errors in of_depths] for of_depths in np.asarray(blocks[silenced])]


def _largest(blocks: Result) -> float:
    """Return the largest error of the networks in blocks at any depth, with one active circuit."""
    return float(np.asarray(blocks["silenced"])[0].max()) + 0.0


def _exact(study: CircuitsInDepth, arm: Arm) -> list[float] | None:
    """Return the exact errors at every depth, or None if they are not known."""
    from zoo.models.toy.circuits import interference, interference_of_active

    depths, N = range(study.depth + 1), study.slots
    if arm.correction == "none":
        return [interference(depth, N, arm.T, arm.z) for depth in depths]
    if arm.correction == "ideal" and arm.kind == "rotation":
        return [interference_of_active(depth, N, arm.z) for depth in depths]
    return [(arm.z - 1) / N for _ in depths] if arm.correction == "ideal" else None


def _most_circuits(N: int, z: int, depth: int) -> int:
    """Return the largest number of circuits whose error without correction is below `TOO_LARGE`."""
    from zoo.models.toy.circuits import interference

    low, high = z, z + 1
    if interference(depth, N, z, z) >= TOO_LARGE:
        return 0
    while interference(depth, N, high, z) < TOO_LARGE:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if interference(depth, N, middle, z) < TOO_LARGE else (low, middle)
    return low


def _growth(study: CircuitsInDepth, runs: Runs, blocks: Result) -> Section:
    from zoo.models.toy.circuits import interference, interference_of_active

    rows: list[list[Any]] = []
    for arm, r in runs.items():
        exact = _exact(study, arm)
        known = exact is not None and exact[1] > 0
        factor = _factor(r) if arm.z > 1 else None
        growth = (exact[-1] / exact[1]) ** (1 / (study.depth - 1)) if exact is not None and known and factor else None
        last = None if exact is None else exact[-1]
        rows.append([arm.kind, arm.T, arm.z, arm.correction, *_errors(r), last, factor, growth])
    (T, z), N, L = study.usual, study.slots, study.depth
    ends = {name: _last(runs[Arm("rotation", name, T, z)]) for name in CORRECTIONS}
    factors = {name: _factor(runs[Arm("rotation", name, T, z)]) for name in CORRECTIONS}
    most = [[depth, _most_circuits(N, z, depth)] for depth in range(1, L + 1)]
    square = N**2
    lost, kept = interference(L, N, square, z), interference_of_active(L, N, z)
    alone = interference(1, N, square, 1)
    quiet, loud = _in_blocks(blocks), _in_blocks(blocks, "not_silenced")
    alone_in_blocks = f"{quiet[0][-1]:.2g}" if _largest(blocks) else "exactly 0"
    in_blocks: list[list[Any]] = [
        [number, told, *errors]
        for told, of_numbers in (("yes", quiet), ("no", loud))
        for number, errors in zip(IN_BLOCKS, of_numbers, strict=True)
    ]
    finding = (
        f"With {z} of {T} circuits active, the squared error after {L} layers is {ends['none']} without correction, "
        f"{ends['learned']} with a learned one, and {ends['ideal']} with an ideal one, which sets all inactive "
        f"circuits to 0. Per layer it grows by a factor of {factors['none']:.2f}, {factors['learned']:.2f} and "
        f"{factors['ideal']:.2f}. Along random directions, the number T of circuits may grow as (D / d)² = N², with d "
        f"neurons for each circuit and D in all, only if idle circuits are silenced. For N = {N} and T = N² = "
        f"{square:,}, the exact error is {alone:.4f} after one layer already if a single circuit is active, and 0 if "
        f"idle ones are set to 0. With {z} active, it is {lost:,.0f} and {kept:.3f} after {L} layers. Without "
        f"correction the error stays below {TOO_LARGE} for at most {most[-1][1]} circuits in {L} layers, and for "
        f"{most[0][1]} in one layer, {z} of them active. A network of {BLOCKS} blocks, which silences idle blocks, "
        f"runs {BLOCKS**2} circuits of {NEURONS} neurons in {BLOCKS * (NEURONS + 2)} neurons. After {L} layers, the "
        f"squared error over the square of the states is {alone_in_blocks} with one active circuit, "
        f"{quiet[1][-1]:.1f} with two, and {loud[0][-1]:.0f} with one if idle blocks are not silenced."
    )
    charts = []
    for name, title, arms in (
        ("active", f"{T} circuits: error by depth", [arm for arm in runs if arm.kind == "rotation" and arm.T == T]),
        ("circuits", f"{z} active circuits: error by depth", [a for a in runs if a.kind == "rotation" and a.z == z]),
    ):
        series = []
        for arm in arms:
            if arm.z > 1:
                number = f"{arm.z} active" if name == "active" else f"{arm.T} circuits"
                color = COLORS[(study.active.index(arm.z) if name == "active" else study.circuits.index(arm.T)) % 4]
                style = {"none": "dashed", "ideal": "dotted", "learned": "line"}[arm.correction]
                values, told = _errors(runs[arm]), TOLD[arm.correction]
                series.append(Series.of(f"{number}, {told}", list(range(L + 1)), values, style, color=color))  # type: ignore[arg-type]
        caption = "Bands: 95 % intervals over networks. Depth 0 is the first reading."
        charts.append(Chart(f"growth-{name}", title, series, "depth", "squared error", log_y=True, caption=caption))
    columns = ["maps", "circuits T", "active z", "correction", *(f"error at depth {depth}" for depth in range(L + 1))]
    columns += ["exact, last depth", "factor per layer", "exact factor"]
    return Section(
        "growth",
        "How do errors of circuits in superposition grow with depth?",
        finding,
        tables=[
            Table(
                columns,
                rows,
                note=(
                    f"Squared errors of active circuits, stored in N = {N} dimensions; states of 0 have the error 1. "
                    "*Factor per layer*: geometric mean from depth 1 on. A learned correction also scales states down, "
                    "so that its error can be smaller than the ideal one."
                ),
            ),
            Table(["layers", f"circuits with an error below {TOO_LARGE} without correction"], most),
            Table(
                ["active z", "idle blocks silenced", *(f"error at depth {depth}" for depth in range(L + 1))],
                in_blocks,
                note=(
                    f"A network that is written, not trained: {BLOCKS**2} circuits of {NEURONS} neurons in {BLOCKS} "
                    f"blocks, {BLOCKS * (NEURONS + 2)} neurons in all. Weights of the circuits are -1, 0 or 1 at "
                    f"random. Each circuit is active alone once; with more active circuits, {SETS:,} sets are random. "
                    "Errors of active circuits are divided by the squares of their states."
                ),
            ),
        ],
        charts=charts,
        null_models=(
            "No correction and, for z active circuits, all others set to 0; both have exact errors. The network in "
            "blocks is compared with the same network without its neurons that silence idle blocks."
        ),
        not_shown="Corrections other than a gate on the norm of a state, and codes that are learned.",
        numbers={
            "most": most,
            "lost": lost,
            "kept": kept,
            "alone": alone,
            "blocks": dict(blocks),
            "runs": [arm._asdict() | r for arm, r in runs.items()],
        },
    )
