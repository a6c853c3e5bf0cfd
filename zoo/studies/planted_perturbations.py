"""Does a study of perturbations find features where they are known, and nothing where there is no error correction?

The networks compute the ANDs of all pairs of superposed features, and their outputs are independent Bernoulli
variables. With a second layer that removes errors of the ANDs, an error along a feature should cost more than one of
the same length along no feature, the response should grow faster than a quadratic form toward features, and gradient
ascent should end at features. Without this layer, and with a linear read-out, none of this should be found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt

from zoo import estimates
from zoo.errors import ZooError
from zoo.estimates import Estimate
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work
from zoo.wording import listed

LINEAR = "linear read-out"
NETWORKS: Mapping[str, tuple[str, bool]] = {  # how the ANDs are computed, and whether their errors are removed
    "trained, thresholded": ("trained", True),
    "trained, no threshold": ("trained", False),
    "random neurons, thresholded": ("random", True),
    "random neurons, no threshold": ("random", False),
    LINEAR: ("", False),
}
SIGNS = {"errors": 0.5, "exponent": 0.5, "ascent": 0.1}  # by how much they must exceed those of the linear read-out
RADIUS = "radius, share of |x - mean|"
SMALLEST = 0.1  # smaller ratios are drawn at this height
BANDS = "Bands: 95 % intervals over networks."
RATIOS = f"Empty where a divergence is 0 in some network. Smaller values are drawn at {SMALLEST:g}. {BANDS}"


@dataclass(frozen=True)
class Atoms(Task):
    """The directions of the features."""

    n_features: int
    d_in: int
    seed: int

    def do(self, work: Work) -> Result:
        """Return random unit vectors that are moved apart."""
        import torch

        from zoo.analysis.planted_perturbations import spread_atoms

        return {"atoms": spread_atoms(self.n_features, self.d_in, torch.Generator().manual_seed(self.seed)).numpy()}


@dataclass(frozen=True)
class Gates(Task):
    """The layer that computes the ANDs of superposed features."""

    atoms: Atoms
    layer: str
    d_mlp: int
    noise: float
    steps: int

    def needs(self) -> Sequence[Task]:
        """Return the task of the atoms."""
        return [self.atoms]

    def do(self, work: Work) -> Result:
        """Train the layer, or fit the readoff of random neurons."""
        import torch

        from zoo.analysis.planted_perturbations import random_gates, train_gates

        atoms = torch.from_numpy(work[self.atoms]["atoms"])
        generator = torch.Generator().manual_seed(1000 + self.atoms.seed)
        if self.layer == "trained":
            layer = train_gates(atoms, self.d_mlp, self.noise, self.steps, generator)
        else:
            layer = random_gates(atoms, self.d_mlp, self.noise, generator)
        return {name: value.numpy() for name, value in layer.state_dict().items()}

    def seconds(self) -> float:
        """Return the expected duration."""
        return 0.01 * self.steps if self.layer == "trained" else 3.0


@dataclass(frozen=True)
class Perturb(Task):
    """All measurements of one network."""

    atoms: Atoms
    gates: Gates | None
    thresholded: bool
    slope: float
    radii: tuple[float, ...]
    inputs: int
    directions: int
    starts: int
    pairs: int
    version: ClassVar[int] = 2  # since 2, with re-encoding and exchanges

    def needs(self) -> Sequence[Task]:
        """Return the tasks of the atoms and of the layer."""
        return [self.atoms, *([self.gates] if self.gates else [])]

    def do(self, work: Work) -> Result:
        """Change the inputs, and measure how the outputs diverge."""
        import torch

        from zoo.analysis import planted_perturbations as planted
        from zoo.models.toy.gates import GateLayer

        atoms = torch.from_numpy(work[self.atoms]["atoms"]).double()
        layer = None
        if self.gates:
            weights = {name: torch.from_numpy(value) for name, value in work[self.gates].items()}
            layer = GateLayer(self.atoms.d_in, self.gates.d_mlp, weights["b_out"].shape[1])
            layer.load_state_dict(weights)
            layer.double().requires_grad_(False)
        net = planted.PlantedNetwork(atoms, layer, self.thresholded, self.slope)
        f = planted.inputs(self.atoms.n_features, self.inputs, np.random.default_rng(self.atoms.seed))
        generator = torch.Generator().manual_seed(2000 + self.atoms.seed)
        points = planted.planted(net, f, self.radii, generator)
        wrong = planted.gate_errors(net, f)
        return {
            "atoms_cosine": float((atoms @ atoms.T).fill_diagonal_(0).abs().max()),
            "gate_error": float(wrong.mean()),
            "gates_wrong": float((wrong >= 0.5).double().mean()),
            **_named("errors", planted.errors(net, points, generator)),
            **_named("codes", planted.changes_of_codes(net, points, generator)),
            **_named("reencoded", planted.re_encoded(net, points, generator)),
            **_named("exchange", planted.exchanges(net, f, generator)),
            **_named("exponent", planted.exponents(net, points, self.pairs, generator)),
            **_named("sphere", planted.sphere(net, points, self.directions, self.starts, generator)),
        }

    def seconds(self) -> float:
        """Return the expected duration."""
        return self.inputs * len(self.radii) * (1e-4 * self.directions + 5e-3 * self.starts)


def _named(what: str, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{what}/{name}": values for name, values in found.items()}


@dataclass(frozen=True)
class PlantedPerturbations(Study):
    """Inputs of networks whose features are known are changed along features and otherwise.

    Five kinds of networks are compared: ANDs computed by a trained layer or by random neurons, each with and without a
    second layer that removes errors below 1/4, and the best affine readoff of the input (`linear read-out`), which is
    the null model.

    Args:
        d_in: Dimension of the input, in which the features are superposed.
        n_features: Number of features, above d_in. Two of them are on at once.
        d_mlp: Number of neurons of the layer that computes the ANDs.
        noise: Largest length of the noise on the inputs on which the layer is trained; an atom has length 1.
        steps: Training steps of the layer.
        slope: Logits are this number times (y - 1/2), for an AND y that should be 0 or 1.
        radii: Lengths of the changes, as shares of |x - mean|, ascending.
        at: The radius on which the verdict rests, one of `radii`.
        inputs: Number of inputs of every network that are changed.
        directions: Number of random directions of every sphere.
        starts: Number of starts of gradient ascent of every sphere.
        pairs: Number of pairs of inactive features of every input, for the exponent.
        seeds: Number of networks of each kind.
    """

    d_in: AtLeastTwo = 24
    n_features: PositiveInt = 32
    d_mlp: PositiveInt = 256
    noise: NonNegativeFloat = 1.0
    steps: PositiveInt = 1500
    slope: PositiveFloat = 4.0
    radii: tuple[PositiveFloat, ...] = (0.001, 0.05, 0.1, 0.25, 0.5, 1.0)
    at: PositiveFloat = 0.5
    inputs: AtLeastTwo = 8
    directions: PositiveInt = 2000
    starts: PositiveInt = 32
    pairs: PositiveInt = 6
    seeds: AtLeastTwo = 5
    title = "Do perturbations find features that are known?"

    def check(self) -> None:
        """Refuse sizes that do not fit together."""
        if self.n_features <= self.d_in:
            raise ZooError(f"n_features is {self.n_features}; features are in superposition above d_in, {self.d_in}")
        if list(self.radii) != sorted(set(self.radii)):
            raise ZooError("radii must be ascending, without repeated values")
        if self.at not in self.radii:
            raise ZooError(f"at is {self.at:g}; it must be one of radii, {', '.join(f'{r:g}' for r in self.radii)}")
        most = self.n_features * (self.n_features - 1) // 2
        if self.inputs > most:
            raise ZooError(f"inputs is {self.inputs}; {self.n_features} features have {most} pairs")
        if 2 * self.pairs > self.n_features - 2:
            raise ZooError(f"pairs is {self.pairs}; {self.n_features - 2} inactive features have half as many pairs")
        if self.starts > self.directions:
            raise ZooError(f"starts is {self.starts}; it must be at most directions, {self.directions}")

    def _task(self, network: str, seed: int) -> Perturb:
        layer, thresholded = NETWORKS[network]
        atoms = Atoms(self.n_features, self.d_in, seed)
        gates = Gates(atoms, layer, self.d_mlp, self.noise, self.steps if layer == "trained" else 0) if layer else None
        sizes = (self.inputs, self.directions, self.starts, self.pairs)
        return Perturb(atoms, gates, thresholded, self.slope, self.radii, *sizes)

    def tasks(self) -> Sequence[Task]:
        """Return the measurements of all networks."""
        return [self._task(network, seed) for network in NETWORKS for seed in range(self.seeds)]

    def report(self, results: Results) -> Report:
        """Return a report on errors along features, on changes of codes, and on spheres."""
        from zoo.analysis.error_correction import MARGINS, decision, sides

        found = {name: _Measured(self, [results[self._task(name, s)] for s in range(self.seeds)]) for name in NETWORKS}
        linear = found[LINEAR]
        above = {
            name: {sign: estimates.mean(one.sign(sign) - linear.sign(sign)) for sign in SIGNS}
            for name, one in found.items()
            if name != LINEAR
        }
        told = {name: [sign for sign, least in SIGNS.items() if above[name][sign].low > least] for name in above}
        headline = " ".join(
            f"{name.capitalize()}: {_signs_told(signs)} ({found[name].told()})." for name, signs in told.items()
        )
        headline += f" {LINEAR.capitalize()}, the null: {linear.told()}."
        signs = {name: one.signs() for name, one in found.items()}
        decisions = {name: decision(each) for name, each in sides(signs).items()}
        by_rule = "; ".join(f"{name}: {each}" for name, each in decisions.items())
        n = f"{self.seeds} networks of each kind"
        rows: list[list[Any]] = []
        for name, one in found.items():
            rows.append([name, *(estimates.mean(one.sign(sign)) for sign in SIGNS)])
            rows[-1].append(", ".join(told[name]) if told.get(name) else "the null" if name == LINEAR else "nothing")
            rows[-1] += [*(each.estimate for each in signs[name].values()), decisions[name]]
        columns = ["network", "ratio of errors", "exponent p", "ends at atoms - permuted", "found by"]
        columns += ["rule: errors", "rule: exponent", "rule: excess", "error correction"]
        certainty = (
            "A sign counts as found if the whole 95 % interval of its difference from the linear read-out of the same "
            f"features, paired over {n} ({self.inputs} inputs each), is above a margin, at radius {self.at:g}. The "
            "signs are: the cost of errors along features over that of covariance-matched errors (margin "
            f"{SIGNS['errors']:g}); the exponent between inactive features ({SIGNS['exponent']:g}); and the share of "
            "ends of gradient ascent at atoms, minus that at rows of the permuted dictionary "
            f"({SIGNS['ascent']:g}). The columns *rule* have the three signs by which the study "
            f"`perturbations` decides whether there is error correction, with margins {MARGINS['errors']:g}, "
            f"{MARGINS['exponent']:g} and {MARGINS['excess']:g} and Holm's correction. The decisions of this rule are: "
            f"{by_rule}. The other intervals are not corrected for 12 comparisons. Language "
            "models and autoencoders that were trained are not tested here: the dictionary is the true one."
        )
        numbers = {name: {s: estimates.mean(one.sign(s)) for s in SIGNS} for name, one in found.items()}
        told_numbers = {"signs": numbers, "above_linear": above, "rule": signs, "error_correction": decisions}
        sections = [self._errors(found), self._codes(found), self._exponents(found), self._sphere(found)]
        return Report(
            f"{self.n_features} features in {self.d_in} dimensions, {self.d_mlp} neurons, slope {self.slope:g}",
            Verdict(
                headline,
                certainty,
                Table(columns, rows).markdown(),
                told_numbers,
            ),
            sections,
        )

    @property
    def _at(self) -> int:
        return self.radii.index(self.at)

    @property
    def _counts(self) -> str:
        return f"{self.seeds} networks with {self.inputs} inputs each"

    def _errors(self, found: Mapping[str, "_Measured"]) -> Section:
        from zoo.analysis.planted_perturbations import ALONG, CONTROLS

        toward, away = ALONG
        rows: list[list[Any]] = []
        networks: list[list[Any]] = []
        ratios, excess = [], []
        for name, one in found.items():
            networks.append([name, *(estimates.mean(one.scalars(key), 0.0) for key in ("gate_error", "gates_wrong"))])
            networks[-1] += [one.flat(), one.smallest()]
            for kind in (*CONTROLS, away):
                rows.append([name, kind, *one.compared("errors", toward, kind, self._at)])
            ratios.append(Series.of(name, self.radii, _drawn(one.ratios("errors", toward, CONTROLS[1]))))
            excess.append(Series.of(name, self.radii, _drawn(one.excesses("errors", toward))))
        at_covariance = [
            f"{name}: {estimates.mean(one.ratio('errors', toward, CONTROLS[1])[:, self._at])}"
            for name, one in found.items()
        ]
        note = (
            f"Mean divergence of changes of one feature toward its other value, over that of another kind of change, "
            f"at radius {self.at:g}. *Quadratic form*: the same ratio if the Fisher matrix determined the divergence. "
            f"Intervals are over {self.seeds} networks (Student's), and by a bootstrap over all "
            f"{self.seeds * self.inputs} inputs."
        )
        columns = ["network", "compared with", f"ratio, {self.seeds} networks"]
        columns += [f"ratio, {self.seeds * self.inputs} inputs", "of the quadratic form"]
        charts = [
            Chart(
                "errors-ratio",
                "Errors along features over matched ones",
                ratios,
                RADIUS,
                "ratio",
                True,
                True,
                caption=RATIOS,
            ),
            Chart(
                "errors-excess",
                "Errors along features over the quadratic form",
                excess,
                *(RADIUS, "divergence / quadratic form", True, True),
                caption=f"A Fisher matrix would give 1. Empty where it is 0 in some network. {BANDS}",
            ),
        ]
        return Section(
            self.name,
            "Does an error along a feature cost more than one of the same length along no feature?",
            f"Ratio to covariance-matched errors at radius {self.at:g}: {'; '.join(at_covariance)}.",
            tables=[
                Table(columns, rows, note=note),
                Table(
                    [
                        *("network", "mean |y - AND|", "share of wrong ANDs", "inputs with Fisher matrix 0"),
                        f"divergence / quadratic form at radius {self.radii[0]:g}",
                    ],
                    networks,
                    4,
                    f"Of {self.seeds * self.inputs} inputs. Errors of ANDs are those before the threshold. If the "
                    "Fisher matrix is 0 for all of them, small changes have no effect, and the last column is empty.",
                ),
            ],
            charts=charts,
            null_models=(
                "Random errors of the same length: isotropic, with the mean and covariance of the errors along "
                "features, with the covariance of inputs (mixture), and along rows of the permuted dictionary. The "
                "linear read-out has no threshold at all."
            ),
            not_shown=(
                "A ratio above 1 is not evidence of error correction: the linear read-out has one as well, because the "
                "Fisher matrix is not isotropic, and the divergence is not quadratic at a finite radius. "
                "Errors that change several features at once are not tested here."
            ),
            numbers={name: one.numbers("errors") for name, one in found.items()},
        )

    def _codes(self, found: Mapping[str, "_Measured"]) -> Section:
        from zoo.analysis.planted_perturbations import CODES, INACTIVE

        kept, *controls = CODES
        rows: list[list[Any]] = []
        charts = []
        for name, one in found.items():
            for kind in (*controls, INACTIVE):
                rows.append([name, kind, *one.compared("codes", kept, kind, self._at)])
        for kind in (controls[0], INACTIVE):
            lines = [
                Series.of(name, self.radii, _drawn(one.ratios("codes", kept, kind))) for name, one in found.items()
            ]
            title = f"L0-preserving changes over {kind}"
            slug = f"codes-{kind.replace(' ', '-')}"
            charts.append(Chart(slug, title, lines, RADIUS, "ratio", True, True, caption=RATIOS))
        of_inactive = [
            f"{name}: {estimates.mean(one.ratio('codes', kept, INACTIVE)[:, self._at])}" for name, one in found.items()
        ]
        columns = ["network", "compared with", f"ratio, {self.seeds} networks"]
        columns += [f"ratio, {self.seeds * self.inputs} inputs", "of the quadratic form"]
        return Section(
            "codes",
            "What do changes of codes cost that keep the active features?",
            f"The same changes on inactive atoms are the denominator, at radius {self.at:g}: {'; '.join(of_inactive)}.",
            tables=[
                Table(columns, rows, note=f"As above, for {self._counts}."),
                f"**Encoded again**, at radius {self.at:g}: the share of L0-preserving changes after which the two "
                "atoms with the largest inner products are still the active ones, and the cost of these changes alone. "
                "**Exchanged**: features that are on have values between 1/2 and 3/2. *Wrong codes* replace these "
                "values by other values, and *wrong directions* replace the atoms by other atoms, with the same norm "
                "of the change.",
                Table(
                    [
                        *(
                            "network",
                            "share with the same support",
                            "these / isotropic",
                            "these / span of active atoms",
                        ),
                        *("wrong directions / wrong codes", "wrong codes / isotropic"),
                    ],
                    [[name, *one.re_encoded(), *one.exchanged()] for name, one in found.items()],
                    note=f"Intervals over {self.seeds} networks. -: no change keeps the support in some network.",
                ),
            ],
            charts=charts,
            null_models="Changes of the same length: isotropic, with the mean and covariance of the changes, within "
            "the span of the active atoms, through a permuted decoder, and on inactive atoms.",
            not_shown=(
                "The encoder knows the true atoms and how many features are on. Networks are trained on features with "
                "the values 0 and 1, and values between 1/2 and 3/2 are new to them."
            ),
            numbers={name: one.numbers("codes") for name, one in found.items()},
        )

    def _exponents(self, found: Mapping[str, "_Measured"]) -> Section:
        from zoo.analysis.planted_perturbations import PAIRS

        rows: list[list[Any]] = []
        charts = []
        for name, one in found.items():
            rows += [[name, kind, one.fitted(kind)[self._at], *one.exponents(kind)] for kind in PAIRS]
        for kind, slug in ((PAIRS[0], "exponent"), (PAIRS[2], "exponent-permuted")):
            lines = [Series.of(name, self.radii, one.exponents(kind)) for name, one in found.items()]
            caption = f"Medians over pairs. {BANDS}"
            charts.append(Chart(slug, f"Exponent of {kind}", lines, RADIUS, "exponent p", True, caption=caption))
        of_pairs = [
            f"{name}: {one.exponents(PAIRS[0])[self._at]}, and {one.exponents(PAIRS[2])[self._at]} for rows of the "
            "permuted dictionary"
            for name, one in found.items()
        ]
        note = (
            "Medians over the pairs of a network, with intervals over networks; -: some network had no response. "
            f"*Fitted* is the number of pairs with a response at radius {self.at:g}, in all networks."
        )
        columns = ["network", "pairs", "fitted", *(f"radius {radius:g}" for radius in self.radii)]
        return Section(
            "exponent",
            "With which power of the components along features does the response grow?",
            f"Exponents p at radius {self.at:g}: {'; '.join(of_pairs)}.",
            tables=[Table(columns, rows, 2, note)],
            charts=charts,
            null_models="Pairs of rows of the permuted dictionary; the linear read-out; p = 2 of every quadratic form.",
            not_shown=(
                "At a finite radius, the divergence of Bernoulli variables is itself not a quadratic form, so that p "
                "differs from 2 slightly in the linear read-out. The response is the mean of those in opposite "
                "directions: adding a feature that is off matters, and subtracting it does not."
            ),
            numbers={name: one.numbers("exponent") for name, one in found.items()},
        )

    def _sphere(self, found: Mapping[str, "_Measured"]) -> Section:
        from zoo.analysis.planted_perturbations import CONTROLS, NEAR

        shares: list[list[Any]] = []
        ends: list[list[Any]] = []
        for name, one in found.items():
            for control in CONTROLS[:2]:
                row = [one.by_radius(f"sphere/{atoms} {control}") for atoms in ("planted", "permuted")]
                shares.append([name, control, *(each[self._at] for each in row)])
            cosines = [one.by_radius(f"sphere/{atoms}")[self._at] for atoms in ("planted", "permuted")]
            near = [_over(one.near(atoms), 0.0, 1.0)[self._at] for atoms in ("planted", "permuted")]
            flat = estimates.mean((one.stacked("sphere/height") == 0).mean((1, 3))[:, self._at], 0.0, 1.0)
            ends.append(
                [name, *cosines, *near, flat, one.idle()[self._at], estimates.mean(one.atoms_found()[:, self._at])]
            )
        lines = [Series.of(name, self.radii, _over(one.near("planted"), 0.0, 1.0)) for name, one in found.items()]
        lines += [
            Series.of(name, self.radii, _over(one.near("permuted"), 0.0, 1.0), "dotted", color=name)
            for name, one in found.items()
        ]
        places = [
            Series.of(name, self.radii, one.by_radius(f"sphere/planted {CONTROLS[1]}")) for name, one in found.items()
        ]
        told = [f"{name}: {row[3]}, permuted {row[4]}" for name, row in zip(found, ends, strict=True)]
        near_told = f"cosine above {NEAR:g} with an atom"
        return Section(
            "sphere",
            "Do features stand out on a sphere around an input, and does gradient ascent end at them?",
            f"Share of ends with {near_told}, at radius {self.at:g}: {'; '.join(told)}.",
            tables=[
                f"Place of atoms among {self.directions:,} random directions of every sphere ({self._counts}): the "
                "mean share of directions whose divergence is below the atom's. A direction that is drawn like "
                "the others has 0.5.",
                Table(["network", "random directions", "atoms", "permuted dictionary"], shares),
                f"Ends of gradient ascent from {self.starts} starts on every sphere. *Flat*: the share of ends "
                "without any divergence, where there is no slope to follow. *Inactive*: the share of the divergence of "
                "ends that is due to ANDs of two inactive features. *Found* is the number of the "
                f"{self.n_features} features at which some end of a network is.",
                Table(
                    [
                        "network",
                        "mean cosine with the nearest atom",
                        "permuted",
                        "share at atoms",
                        "permuted",
                        "flat",
                        "inactive",
                        "found",
                    ],
                    ends,
                ),
            ],
            charts=[
                Chart(
                    "ascent",
                    "Ends of gradient ascent at atoms",
                    lines,
                    *(RADIUS, f"share of ends with {near_told}", True),
                    caption=f"Dotted: rows of the permuted dictionary. {BANDS}",
                ),
                Chart(
                    "sphere",
                    "Atoms among matched random directions",
                    places,
                    RADIUS,
                    "share below",
                    True,
                    caption=BANDS,
                ),
            ],
            null_models="The permuted dictionary, whose rows have the same mean and covariance; the linear read-out.",
            not_shown=(
                "That atoms stand high among random directions is not evidence of error correction: they do so without "
                "a threshold as well. The exact maximum on the sphere is not known, and 60 steps of ascent may not "
                "reach it. Ends need not be atoms if atoms interfere: the steepest direction of a feature is then not "
                "its atom."
            ),
            numbers={name: one.numbers("sphere") for name, one in found.items()},
        )


def _signs_told(signs: Sequence[str]) -> str:
    missing = [sign for sign in SIGNS if sign not in signs]
    if not signs:
        return "no sign of features"
    return f"features are found by {listed(signs)}" + (f", and not by {listed(missing)}" if missing else "")


def _over(values: np.ndarray, least: float | None = None, most: float | None = None) -> list[Estimate]:
    """Estimates over networks of values (seeds, radii), for every radius."""
    return [estimates.mean(column, least, most) for column in values.T]


def _divided(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)


def _drawn(ratios: Sequence[Estimate]) -> list[Estimate]:
    """Ratios for a logarithmic axis, which ends at `SMALLEST`."""
    return [Estimate(max(e.mean, SMALLEST), max(e.low, SMALLEST), max(e.high, SMALLEST), e.n) for e in ratios]


class _Measured:
    """The results of all networks of a kind."""

    def __init__(self, study: PlantedPerturbations, results: Sequence[Result]) -> None:
        self.study, self.results = study, results

    def scalars(self, key: str) -> list[float]:
        """A number of every network."""
        return [r[key] for r in self.results]

    def stacked(self, key: str) -> np.ndarray:
        """An array of every network, (seeds, ...)."""
        return np.stack([r[key] for r in self.results])

    def ratio(self, what: str, kind: str, control: str, of: int = 0) -> np.ndarray:
        """Ratios of mean divergences (of = 0) or quadratic forms (of = 1), (seeds, radii); NaN for 0 / 0."""
        top, bottom = (self.stacked(f"{what}/{name}")[..., of].mean(1) for name in (kind, control))
        return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)

    def ratios(self, what: str, kind: str, control: str) -> list[Estimate]:
        """The same as estimates over networks, for every radius."""
        return _over(self.ratio(what, kind, control))

    def excesses(self, what: str, kind: str) -> list[Estimate]:
        """Mean divergence over mean quadratic form, for every radius."""
        values = self.stacked(f"{what}/{kind}").mean(1)  # (seeds, radii, 2)
        top, bottom = values[..., 0], values[..., 1]
        return _over(np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0))

    def flat(self) -> int:
        """Number of inputs at which the Fisher matrix is 0, along all errors along features."""
        from zoo.analysis.planted_perturbations import ALONG

        return int((self.stacked(f"errors/{ALONG[0]}")[:, :, 0, 1] == 0).sum())

    def smallest(self) -> Estimate:
        """Divergence over quadratic form at the smallest radius, pooled, with an interval over inputs."""
        from zoo.analysis.document_tests import ratio_of_means
        from zoo.analysis.planted_perturbations import ALONG

        values, form = self.stacked(f"errors/{ALONG[0]}")[:, :, 0].reshape(-1, 2).T
        return ratio_of_means(values, form, np.arange(len(values)))

    def compared(self, what: str, kind: str, control: str, at: int) -> list[Estimate]:
        """The ratio over networks and over inputs, and that of the quadratic forms."""
        from zoo.analysis.document_tests import ratio_of_means

        top, bottom = (self.stacked(f"{what}/{name}")[:, :, at, 0].ravel() for name in (kind, control))
        own, form = (_over(self.ratio(what, kind, control, of))[at] for of in (0, 1))
        return [own, ratio_of_means(top, bottom, np.arange(len(top))), form]

    def exponent(self, kind: str) -> np.ndarray:
        """Medians over pairs, (seeds, radii); NaN where no pair has a response."""
        values = self.stacked(f"exponent/{kind}")
        known = np.isfinite(values)
        found = np.full((len(values), values.shape[2]), np.nan)
        for seed, radius in zip(*known.any(1).nonzero(), strict=True):
            found[seed, radius] = np.median(values[seed, known[seed, :, radius], radius])
        return found

    def exponents(self, kind: str) -> list[Estimate]:
        """The same as estimates over networks."""
        return _over(self.exponent(kind))

    def fitted(self, kind: str) -> list[int]:
        """Number of pairs with a response, for every radius."""
        return [int(n) for n in np.isfinite(self.stacked(f"exponent/{kind}")).sum((0, 1))]

    def by_radius(self, key: str) -> list[Estimate]:
        """Means over everything but networks and radii."""
        values = self.stacked(key)  # (seeds, inputs, radii, ...)
        return _over(values.mean(axis=(1, *range(3, values.ndim))))

    def near(self, atoms: str) -> np.ndarray:
        """Share of ends of ascent that are near an atom, (seeds, radii)."""
        from zoo.analysis.planted_perturbations import NEAR

        return (self.stacked(f"sphere/{atoms}") > NEAR).mean((1, 3))

    def idle(self) -> list[Estimate]:
        """Share of the divergence of ends of ascent that is due to ANDs of two inactive features."""
        top, bottom = (self.stacked(f"sphere/{name}").sum((1, 3)) for name in ("idle", "height"))
        return _over(np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0), 0.0, 1.0)

    def atoms_found(self) -> np.ndarray:
        """Number of different atoms near ends of ascent, (seeds, radii)."""
        from zoo.analysis.planted_perturbations import NEAR

        near, nearest = self.stacked("sphere/planted") > NEAR, self.stacked("sphere/nearest")
        return np.array(
            [
                [len(set(which[:, r][on[:, r]])) for r in range(on.shape[1])]
                for on, which in zip(near, nearest, strict=True)
            ]
        )

    def sign(self, name: str) -> np.ndarray:
        """One of `SIGNS` of every network, at the radius of the verdict, (seeds,)."""
        from zoo.analysis.planted_perturbations import ALONG, CONTROLS, PAIRS

        if name == "errors":
            found = self.ratio("errors", ALONG[0], CONTROLS[1])
        elif name == "exponent":
            found = self.exponent(PAIRS[0])
        else:
            found = self.near("planted") - self.near("permuted")
        at: np.ndarray = found[:, self.study._at]
        return at

    def re_encoded(self) -> list[Estimate]:
        """The share of changes that keep the support, and their cost over that of two controls."""
        from zoo.analysis.planted_perturbations import CODES

        at = self.study._at
        share, own, *controls = (
            np.nanmean(self.stacked(f"reencoded/{name}")[:, :, at], 1)
            for name in ("share", CODES[0], CODES[1], CODES[3])
        )
        return [estimates.mean(share, 0.0, 1.0), *(estimates.mean(_divided(own, each)) for each in controls)]

    def exchanged(self) -> list[Estimate]:
        """The cost of wrong directions over that of wrong codes, and of wrong codes over that of isotropic changes."""
        from zoo.analysis.planted_perturbations import EXCHANGES

        codes, directions, isotropic = (self.stacked(f"exchange/{name}").mean(1) for name in EXCHANGES)
        return [estimates.mean(_divided(directions, codes)), estimates.mean(_divided(codes, isotropic))]

    def signs(self) -> dict[str, Any]:
        """The signs of `zoo.analysis.error_correction`, with networks as the independent units."""
        from zoo.analysis.error_correction import errors_sign, excess_sign, exponent_sign
        from zoo.analysis.planted_perturbations import ALONG, CONTROLS, PAIRS

        at, networks = self.study._at, np.arange(len(self.results))
        (kl, form), (matched, _), (permuted, permuted_form) = (
            self.stacked(f"errors/{kind}")[:, :, at].reshape(-1, 2).T for kind in (ALONG[0], CONTROLS[1], CONTROLS[3])
        )
        p, control = (self.stacked(f"exponent/{kind}")[:, :, at] for kind in (PAIRS[0], PAIRS[2]))
        each = np.repeat(networks, self.study.inputs)
        return {
            "errors": errors_sign(kl, matched, each),
            "exponent": exponent_sign(p.ravel(), control.ravel(), np.repeat(networks, p.shape[1])),
            "excess": excess_sign(kl, permuted, form, permuted_form, each),
        }

    def told(self) -> str:
        """The signs in words."""
        ratio, p, ends = (float(self.sign(sign).mean()) for sign in SIGNS)
        return f"cost ratio {ratio:.2f}, p = {p:.2f}, {ends:.0%} more ends at atoms than at permuted ones"

    def numbers(self, what: str) -> dict[str, Any]:
        """Means over the inputs of every network, for every radius."""
        keys = [key for key in self.results[0] if key.startswith(f"{what}/") and key != "sphere/nearest"]
        if what == "exponent":
            return {key.partition("/")[2]: self.exponents(key.partition("/")[2]) for key in keys}
        if what == "sphere":
            return {key.partition("/")[2]: self.by_radius(key) for key in keys}
        return {key.partition("/")[2]: _over(self.stacked(key)[..., 0].mean(1)) for key in keys}
