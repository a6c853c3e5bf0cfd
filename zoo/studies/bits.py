"""Do sampled probability, volume exponent and local learning coefficient order functions in the same way?

The three are measured for the same functions on the same small networks, whose parameters are Gaussian. Probability is
counted in bits: -log2 of the share of parameters with a loss of at most t. The volume exponent is the slope of the
logarithm of this share against ln t. The local learning coefficient is sampled at minima that are found by descent from
such parameters. Losses are real-valued with minimum 0. First, the samplers are compared with exact values. Last, exact
examples show where the three measures have to disagree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jsonargparse.typing import PositiveFloat, PositiveInt, restricted_number_type

from zoo import estimates
from zoo.errors import ZooError
from zoo.estimates import Estimate
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work
from zoo.wording import listed

if TYPE_CHECKING:
    AtLeastTwenty = int
    from torch import Tensor

    from zoo.analysis.rank_agreement import RankAgreement
    from zoo.analysis.small_networks import SmallNetwork
else:
    AtLeastTwenty = restricted_number_type("AtLeastTwenty", int, (">=", 20))

Family = Literal["linear", "tanh", "boolean"]
FAMILIES: dict[Family, str] = {
    "linear": "matrices by linear networks",
    "tanh": "functions of random tanh networks",
    "boolean": "Boolean functions by tanh networks",
}
SIZES = {"linear": (4, 3, 4), "tanh": (4, 3), "boolean": (3, 4)}  # arguments of the networks
SINGULAR_VALUES = (0.5, 1.0, 2.0)
DRAWS = 3  # functions of random networks for every number of units
ZERO = 1e-20  # loss in nats below which a minimum counts as found
FEW = 100  # draws below t that plain sampling needs for a comparison
LOCALIZATION = 1.0
SAMPLERS = ("HMC", "SGLD")


def functions(family: Family) -> list[str]:
    """Return the names of the functions of a family."""
    if family == "linear":
        pairs = [(rank, value) for rank in (1, 2, 3) for value in SINGULAR_VALUES]
        return ["rank 0", *(f"rank {rank}, {value:g}" for rank, value in pairs)]
    if family == "tanh":
        counts = [(units, draw) for units in range(SIZES["tanh"][1] + 1) for draw in range(DRAWS)]
        return [f"{units} {'unit' if units == 1 else 'units'}, draw {draw + 1}" for units, draw in counts]
    from zoo.analysis.boolean_classes import boolean_classes

    return [f"{same[0]:08b}" for same in boolean_classes(SIZES["boolean"][0])]


def network_and_target(family: Family, index: int) -> "tuple[SmallNetwork, Tensor]":
    """Return the networks of a family, and the wanted outputs of its function of this index."""
    import torch

    from zoo.analysis.boolean_classes import boolean_classes
    from zoo.analysis.small_networks import LinearNetwork, TanhNetwork, boolean_target

    if family == "linear":
        network = LinearNetwork(*SIZES[family])
        rank, value = (0, 0.0) if index == 0 else (1 + (index - 1) // 3, SINGULAR_VALUES[(index - 1) % 3])
        return network, network.target([value] * rank)
    tanh = TanhNetwork(*SIZES[family])
    if family == "boolean":
        return tanh, boolean_target(boolean_classes(tanh.n_bits)[index][0], tanh.n_bits)
    small = TanhNetwork(tanh.n_bits, index // DRAWS)
    w = torch.randn(small.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(index))
    return tanh, small.outputs(w[None])[0] if small.width else w[-1].expand(small.points).clone()


@dataclass(frozen=True)
class CheckSampler(Task):
    """Sample one potential whose value is known exactly."""

    case: int  # index in CASES
    sampler: str  # one of SAMPLERS
    steps: int
    seed: int = 0

    @property
    def n_beta(self) -> float:
        """Inverse temperature, relative to the localization, at which the sampler still reaches all of the density."""
        from zoo.analysis.known_minima import CASES

        case = CASES[self.case]
        relative = 100.0 if case.kind == "monomial" else 10_000.0 if self.sampler == "HMC" else 1000.0
        return relative * case.localization

    def do(self, work: Work) -> Result:
        """Return the estimate over chains, the bias of the step size, and the failed diagnostics."""
        import zoo
        from zoo.analysis.known_minima import CASES
        from zoo.analysis.small_networks import Parameters
        from zoo.local_learning import HMC, SGLD

        case, is_hmc = CASES[self.case], self.sampler == "HMC"
        step_size = 5e-4 if case.kind == "monomial" else None  # at w* = 0 there is no curvature to choose it from
        sgld = SGLD(steps=30 * self.steps, burn_in=10 * self.steps, share=0.02, step_size=step_size)
        found = zoo.local_learning_coefficient(
            Parameters(case.center()).eval(),
            lambda model, _: case.potential(model()[None])[0],
            sampler=HMC(steps=2 * self.steps, burn_in=2 * self.steps) if is_hmc else sgld,
            chains=64,
            n_beta=self.n_beta,
            localization=case.localization,
            start="center" if is_hmc else "gaussian",
            seed=self.seed,
        )
        bias = 0.0 if is_hmc else found.diagnostics.step_size_bias
        return _ends(found.unchecked) | {"bias": bias, "problems": found.problems}

    def seconds(self) -> float:
        """Return the time that was measured for such a task."""
        return 0.025 * self.steps


@dataclass(frozen=True)
class MeasureVolume(Task):
    """Estimate the volumes and exponents of one function by plain sampling and by splitting."""

    family: Family
    index: int
    thresholds: tuple[float, ...]
    samples: int
    particles: int
    seeds: int

    def do(self, work: Work) -> Result:
        """Return estimates by threshold, and `w` (seeds, d): parameters of low loss, one vector of each repeat."""
        from zoo.analysis.small_networks import loss
        from zoo.analysis.volumes import volumes_by_sampling, volumes_by_splitting

        network, target = network_and_target(self.family, self.index)
        where = (lambda w: loss(network, target, w)), network.n_parameters, self.thresholds
        plain = volumes_by_sampling(*where, self.samples, seed=self.index)
        split, w = volumes_by_splitting(*where, self.particles, self.seeds, seed=self.index)
        found: Result = {"w": w[:, 0].numpy()}
        for name, volumes in (("plain", plain), ("split", split)):
            found[name] = [{"bits": _ends(v.bits), "exponent": _ends(v.exponent)} for v in volumes]
        return found

    def seconds(self) -> float:
        """Return the time that was measured for such a task."""
        return 1.5e-6 * self.samples + 0.003 * self.particles * self.seeds


@dataclass(frozen=True)
class FindCoefficients(Task):
    """Descend to minima from parameters of low loss, and sample the local learning coefficient at each by HMC."""

    volume: MeasureVolume
    n_beta: float
    chains: int
    steps: int

    def needs(self) -> Sequence[Task]:
        """Return the task that finds the parameters of low loss."""
        return [self.volume]

    def do(self, work: Work) -> Result:
        """Return one value per minimum: estimates, losses, failed diagnostics, and values of the second-order loss."""
        import torch

        import zoo
        from zoo.analysis.small_networks import Parameters, loss, minimum_near, quadratic_coefficient
        from zoo.local_learning import HMC

        network, target = network_and_target(self.volume.family, self.volume.index)
        w, K = minimum_near(network, target, torch.from_numpy(work[self.volume]["w"]))
        values, problems = [], []
        for seed, one in enumerate(w):
            found = zoo.local_learning_coefficient(
                Parameters(one).eval(),
                lambda model, _: loss(network, target, model()[None])[0],
                sampler=HMC(steps=self.steps, burn_in=self.steps),
                chains=self.chains,
                n_beta=self.n_beta,
                localization=LOCALIZATION,
                seed=seed,
            )
            values.append(found.unchecked.mean)
            problems.append("; ".join(found.problems))
        half_rank = quadratic_coefficient(network, target, w, math.inf, LOCALIZATION)
        quadratic = quadratic_coefficient(network, target, w, self.n_beta, LOCALIZATION)
        told = {"K": K, "half_rank": half_rank, "quadratic": quadratic}
        return {"values": values, "problems": problems} | {name: x.tolist() for name, x in told.items()}

    def seconds(self) -> float:
        """Return the time that was measured for such a task."""
        return 0.02 * self.steps * self.volume.seeds


@dataclass(frozen=True)
class CountFunctions(Task):
    """Count which Boolean functions the signs of random networks compute."""

    samples: int

    def do(self, work: Work) -> Result:
        """Return counts and sizes of the classes of functions, and counts of the functions of perceptrons."""
        import torch

        from zoo.analysis.boolean_classes import boolean_classes
        from zoo.analysis.small_networks import TanhNetwork

        network = TanhNetwork(*SIZES["boolean"])
        generator = torch.Generator().manual_seed(0)
        counts = torch.zeros(2**network.points, dtype=torch.long)
        corners = torch.zeros(8, dtype=torch.long)
        x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        for start in range(0, self.samples, 65536):
            n = min(65536, self.samples - start)
            w = torch.randn(n, network.n_parameters, generator=generator)
            bits = 2 ** torch.arange(network.points)
            counts += ((network.outputs(w) > 0).long() @ bits).bincount(minlength=len(counts))
            perceptrons = torch.randn(n, 2, generator=generator) @ x.T > 0
            corners += (perceptrons.long() @ bits[:3]).bincount(minlength=8)
        classes = boolean_classes(network.n_bits)
        return {
            "counts": [int(counts[same].sum()) for same in classes],
            "sizes": [len(same) for same in classes],
            "perceptron": corners.tolist(),
        }

    def seconds(self) -> float:
        """Return the time that was measured for such a task."""
        return 3e-6 * self.samples


@dataclass(frozen=True)
class Bits(Study):
    """Sampled probability, volume exponent and local learning coefficient of functions are compared.

    Args:
        families: Kinds of functions and networks: "linear" (matrices of rank 0 to 3), "tanh" (functions of random
            networks with 0 to 3 hidden units), "boolean" (all Boolean functions of 3 inputs, one of each class).
        thresholds: Losses t at which volumes are estimated, in nats.
        n_beta: Inverse temperature of the local learning coefficient.
        samples: Draws from the prior for plain sampling, for every function.
        particles: Particles of every repeat of splitting, at least 20.
        seeds: Repeats of splitting, and minima at which the local learning coefficient is sampled, for every function.
        chains: Chains at every minimum.
        steps: HMC trajectories of every chain, after as many of burn-in.
    """

    families: tuple[Family, ...] = get_args(Family)
    thresholds: tuple[PositiveFloat, ...] = (0.1, 0.01, 0.001)
    n_beta: PositiveFloat = 4000.0
    samples: PositiveInt = 300_000
    particles: AtLeastTwenty = 300
    seeds: AtLeastTwo = 4
    chains: AtLeastTwo = 16
    steps: PositiveInt = 100

    def check(self) -> None:
        """Refuse thresholds that do not descend, and trajectories that are too few for the diagnostics."""
        if len(set(self.thresholds)) < 2 or list(self.thresholds) != sorted(self.thresholds, reverse=True):
            raise ZooError(f"thresholds are {list(self.thresholds)}; at least two are needed, from large to small")
        if self.steps < 20:
            raise ZooError(f"steps is {self.steps}; it must be at least 20")
        if unknown := set(self.families) - set(FAMILIES):
            raise ZooError(f"families has {min(unknown)!r}; it may have {listed(list(FAMILIES))}")

    def tasks(self) -> Sequence[Task]:
        """Return checks of the samplers, counts of functions, and volumes and coefficients of every function."""
        found: list[Task] = [*self._checks(), CountFunctions(self.samples)]
        for family in self.families:
            found += self._coefficients(family)
        return found

    def _checks(self) -> list[CheckSampler]:
        from zoo.analysis.known_minima import CASES

        return [CheckSampler(case, sampler, self.steps) for case in range(len(CASES)) for sampler in SAMPLERS]

    def _coefficients(self, family: Family) -> list[FindCoefficients]:
        sizes = self.thresholds, self.samples, self.particles, self.seeds
        volumes = [MeasureVolume(family, index, *sizes) for index in range(len(functions(family)))]
        return [FindCoefficients(volume, self.n_beta, self.chains, self.steps) for volume in volumes]

    def report(self, results: Results) -> Report:
        """Return a report on the samplers, the orders of functions, and exact disagreements."""
        counted = results[CountFunctions(self.samples)]
        measured: dict[Family, list[Function]] = {}
        for family in self.families:
            tasks = self._coefficients(family)
            measured[family] = [Function.of(family, i, results[t.volume], results[t]) for i, t in enumerate(tasks)]
        if "boolean" in measured:
            for one, count, size in zip(measured["boolean"], counted["counts"], counted["sizes"], strict=True):
                share = estimates.rate(count, self.samples)
                one.thresholded = _bits(Estimate(share.mean / size, share.low / size, share.high / size, share.n))
        agreements = {family: agreements_of(told) for family, told in measured.items()}
        checks = [Check.of(task, results[task]) for task in self._checks()]
        sections = [
            samplers_section(checks),
            volumes_section(measured, self.thresholds),
            orders_section(measured, agreements, self),
            disagreements_section(counted["perceptron"], self.samples),
        ]
        told_of = answers(agreements)
        evidence = [evidence_row(family, agreements[family][MAIN], told_of[family]) for family in self.families]
        numbers = {"evidence": evidence, "agreements": agreements}
        table = Table(["question", "measured", "answer"], evidence).markdown()
        certainty = (
            "Brackets of rank correlations are 95 % intervals over functions (Bonett and Wright 2000), and p-values "
            "are those of shuffled pairings of functions. 'Yes' means that the interval is above 0, and that p is at "
            "most 0.05 after Holm's correction for the number of families. Intervals of single functions are "
            f"Student's over {self.seeds} repeats of splitting or over {self.seeds} minima. One prior, one loss and "
            "three kinds of small networks were tested, and the answer is about these functions only: linear and tanh "
            "functions come in four groups of the same rank or number of units, and within a group they are not "
            "independent examples, so that p-values and intervals would be too small for a claim about other functions."
        )
        subject = f"{sum(map(len, measured.values()))} functions on networks with 21 to 24 parameters"
        return Report(subject, Verdict(headline(agreements), certainty, table, numbers), sections)


@dataclass
class Function:
    """What was measured for one function.

    Args:
        name: Name of the function.
        bits: Bits at every threshold, by splitting.
        exponents: Volume exponents at every threshold, by splitting.
        plain: Bits at every threshold, by plain sampling.
        repeats: Local learning coefficients of the minima that count, (at most seeds,).
        coefficient: Their mean.
        half_rank: Mean of half the rank of the Jacobian at these minima.
        quadratic: Mean of the value of the second-order loss at these minima.
        left_out: Number of minima that do not count, because their loss is not 0 or a diagnostic failed.
        thresholded: Bits of the signs of the outputs, for Boolean functions.
    """

    name: str
    bits: list[Estimate]
    exponents: list[Estimate]
    plain: list[Estimate]
    repeats: list[float]
    coefficient: Estimate
    half_rank: float
    quadratic: float
    left_out: int
    thresholded: Estimate | None = None

    @classmethod
    def of(cls, family: Family, index: int, volume: Result, found: Result) -> "Function":
        """Return the measurements of a function, from the results of its two tasks."""
        bits, exponents = ([_estimate(v[key]) for v in volume["split"]] for key in ("bits", "exponent"))
        good = [i for i, K in enumerate(found["K"]) if K <= ZERO and not found["problems"][i]]
        values, half_rank, quadratic = ([found[key][i] for i in good] for key in ("values", "half_rank", "quadratic"))
        return cls(
            functions(family)[index],
            bits,
            exponents,
            [_estimate(v["bits"]) for v in volume["plain"]],
            values,
            estimates.mean(values),
            float(np.mean(half_rank)) if good else math.nan,
            float(np.mean(quadratic)) if good else math.nan,
            len(found["K"]) - len(good),
        )


def _ends(one: Estimate) -> Result:
    """Return an estimate as a result; ends that are not finite are texts, because JSON has no such numbers."""
    ends = {"mean": one.mean, "low": one.low, "high": one.high}
    return {name: end if math.isfinite(end) else str(end) for name, end in ends.items()} | {"n": one.n}


def _estimate(told: Result) -> Estimate:
    mean, low, high = (float(told[end]) for end in ("mean", "low", "high"))
    return Estimate(mean, low, high, told["n"])


def _bits(share: Estimate) -> Estimate:
    mean, low, high = (-math.log2(p) if p > 0 else math.inf for p in (share.mean, share.high, share.low))
    return Estimate(mean, low, high, share.n)


def pairs_of(told: Sequence[Function]) -> dict[str, tuple[list[float], list[float]]]:
    """Return the pairs of quantities whose orders are compared, for functions that have an LLC."""
    coefficient = [one.coefficient.mean for one in told]
    first, last = ([one.bits[k].mean for one in told] for k in (0, -1))
    exponent = [one.exponents[-1].mean for one in told]
    pairs = {
        "LLC and bits at the smallest t": (coefficient, last),
        "LLC and bits at the largest t": (coefficient, first),
        "LLC and volume exponent at the smallest t": (coefficient, exponent),
        "volume exponent and bits at the smallest t": (exponent, last),
        "half the rank of the Jacobian and bits at the smallest t": ([one.half_rank for one in told], last),
    }
    signs = [one.thresholded.mean for one in told if one.thresholded is not None]
    if len(signs) == len(told) and all(map(math.isfinite, signs)):
        pairs["LLC and bits of the signs of outputs"] = (coefficient, signs)
        pairs["bits at the smallest t and bits of the signs of outputs"] = (last, signs)
    halves = [(np.mean(one.repeats[::2]), np.mean(one.repeats[1::2])) for one in told if len(one.repeats) > 1]
    if len(halves) == len(told):
        pairs["LLC at one half of the minima and at the other half"] = (
            [float(a) for a, _ in halves],
            [float(b) for _, b in halves],
        )
    return pairs


def agreements_of(told: Sequence[Function]) -> "dict[str, RankAgreement]":
    """Return the rank agreement of every pair of quantities; unknown with fewer than 5 functions that have an LLC."""
    from zoo.analysis.rank_agreement import RankAgreement, rank_agreement

    known = [one for one in told if math.isfinite(one.coefficient.mean)]
    unknown = RankAgreement(estimates.UNKNOWN, math.nan, math.nan)
    return {name: rank_agreement(x, y) if len(known) >= 5 else unknown for name, (x, y) in pairs_of(known).items()}


MAIN = "LLC and bits at the smallest t"


def answers(agreements: "dict[Family, dict[str, RankAgreement]]") -> dict[Family, str]:
    """Return for every family whether the coefficient orders functions as their probability does.

    "yes" and "opposite" need an interval of Spearman's correlation on one side of 0, and an adjusted p-value of at most
    0.05; otherwise the answer is "undecided".
    """
    from zoo.analysis.multiple_tests import holm

    adjusted = holm([told[MAIN].p_value for told in agreements.values()])
    found: dict[Family, str] = {}
    for (family, told), p in zip(agreements.items(), adjusted, strict=True):
        sign = told[MAIN].spearman.sign if p <= 0.05 else "undecided"
        found[family] = {"above": "yes", "below": "opposite", "undecided": "undecided"}[sign]
    return found


def headline(agreements: "dict[Family, dict[str, RankAgreement]]") -> str:
    """Return the answer in one sentence."""
    told = answers(agreements)
    parts = []
    for word, text in (
        ("yes", "as their sampled probability does for"),
        ("opposite", "in the opposite way for"),
        ("undecided", "in no clear relation to it for"),
    ):
        among = [
            f"{FAMILIES[family]} (Spearman {agreements[family][MAIN].spearman:.2f})"
            for family, answer in told.items()
            if answer == word
        ]
        if among:
            parts.append(f"{text} {listed(among)}")
    return f"The local learning coefficient orders functions {listed(parts)}."


def evidence_row(family: Family, one: "RankAgreement", answer: str) -> list[str]:
    """Return one row of the evidence: question, measured, answer."""
    question = f"Does the LLC order {FAMILIES[family]} as their probability does?"
    return [question, f"Spearman {one.spearman:.2f}, Kendall {one.kendall:.2f}, p = {one.p_value:.2g}", answer]


@dataclass(frozen=True)
class Check:
    """A sampler's estimate of a known value.

    Args:
        name: Name of the potential.
        sampler: "HMC" or "SGLD".
        n_beta: Inverse temperature.
        localization: Localization.
        limit: Exact learning coefficient, the limit for infinite nβ.
        expected: Expected value at this nβ.
        found: The estimate, also if a diagnostic failed.
        bias: What the step size is expected to add to the estimate.
        problems: Failed diagnostics.
    """

    name: str
    sampler: str
    n_beta: float
    localization: float
    limit: float
    expected: float
    found: Estimate
    bias: float
    problems: list[str]

    @classmethod
    def of(cls, task: CheckSampler, found: Result) -> "Check":
        """Return the check of a task's result."""
        from zoo.analysis.known_minima import CASES

        case = CASES[task.case]
        exact = case.limit().value, case.expected(task.n_beta)
        return cls(
            *(case.name, task.sampler, task.n_beta, case.localization, *exact),
            *(_estimate(found), found["bias"], found["problems"]),
        )

    @property
    def ratio(self) -> Estimate:
        """The estimate divided by the expected value."""
        mean, low, high = (end / self.expected for end in (self.found.mean, self.found.low, self.found.high))
        return Estimate(mean, low, high, self.found.n)


def samplers_section(checks: Sequence[Check]) -> Section:
    """Return the section that compares the samplers with exact values."""
    accepted = [one for one in checks if not one.problems]
    parts = []
    for name in SAMPLERS:
        mine = [one for one in accepted if one.sampler == name]
        near = sum(abs(one.ratio.mean - 1) <= 0.1 for one in mine)
        total = sum(one.sampler == name for one in checks)
        parts.append(
            f"{name}: of {total} estimates, the diagnostics accept {len(mine)}, of which {near} are within 10 % of the "
            f"expected value and {sum(1.0 in one.ratio for one in mine)} contain it in their 95 % interval."
        )
    refused = [abs(one.ratio.mean - 1) for one in checks if one.problems]
    if refused:
        wrong = sum(error > 0.1 for error in refused)
        parts.append(f"Of the {len(refused)} refused estimates, {wrong} are wrong by more than 10 %.")
    rows: list[list[Any]] = [
        [
            *(one.name, one.sampler, f"{one.n_beta:g}", f"{one.localization:g}", one.limit, one.expected, one.found),
            *(one.ratio.mean, one.bias, "no" if one.problems else "yes"),
        ]
        for one in checks
    ]
    columns = ["case", "sampler", "nβ", "γ", "limit λ", "expected", "estimate", "ratio", "bias of the step"]
    note = (
        "λ is the exact learning coefficient. Expected, for monomials: the exact expectation of nβK at this nβ, by "
        "quadrature. For linear networks: λ - (m - 1) / ln nβ with the multiplicity m. The bias of the step size is "
        "what SGLD's diagnostics expect it to add; the estimate contains it. Generic points need strong localization: "
        "with γ = 1, chains leave them for the more singular point, which has a smaller value. "
        "An estimate is not accepted if a diagnostic fails; report.json has the reasons."
    )
    names = list(dict.fromkeys(one.name for one in checks))
    short = [name.replace("linear ", "").replace(" point", "").replace("most singular", "singular") for name in names]
    series = [Series("expected value", short, [1.0] * len(names), "points")]
    for name in SAMPLERS:
        mine = [one for one in accepted if one.sampler == name]
        at = [short[names.index(one.name)] for one in mine]
        series.append(Series.of(name, at, [one.ratio for one in mine], "points"))
    caption = "Estimates that the diagnostics accept."
    return Section(
        "samplers",
        "Do the samplers find exact values?",
        " ".join(parts),
        tables=[Table([*columns, "accepted"], rows, note=note)],
        charts=[Chart("samplers", "Estimate / expected value", series, "", "ratio", caption=caption)],
        null_models="None: the values are known.",
        not_shown="Step sizes, temperatures and localizations other than those in the table are not tested.",
        numbers={"checks": [vars(one) for one in checks]},
    )


def volumes_section(measured: dict[Family, list[Function]], thresholds: Sequence[float]) -> Section:
    """Return the section that compares splitting with plain sampling, where plain sampling reaches."""
    rows: list[list[Any]] = []
    for family, told in measured.items():
        for one in told:
            for t, plain, split in zip(thresholds, one.plain, one.bits, strict=True):
                if math.isfinite(plain.mean) and plain.n * 2**-plain.mean >= FEW:
                    rows.append([family, one.name, t, plain, split, split.mean - plain.mean])
    if not rows:
        why = f"No function has {FEW} plain draws below any t, so that there is nothing to compare splitting with."
        return Section("volumes", "Does splitting find the volumes that plain sampling finds?", why, tested=False)
    differences = np.array([row[-1] for row in rows])
    inside = sum(row[3].mean in row[4] for row in rows)
    finding = (
        f"At {len(rows)} pairs of function and t with at least {FEW} plain draws below t, bits by splitting minus bits "
        f"by plain sampling are {differences.mean():.2f} on average and {abs(differences).max():.2f} at most. "
        f"Splitting's 95 % interval contains the plain estimate in {inside} of {len(rows)}."
    )
    diagonal = [min(row[3].mean for row in rows), max(row[3].mean for row in rows)]
    series = [Series("equal", diagonal, diagonal, "dashed")]
    for family in dict.fromkeys(row[0] for row in rows):
        mine = [row for row in rows if row[0] == family]
        labels = [f"{row[1]}, t = {row[2]:g}" for row in mine]
        bits = [row[3].mean for row in mine]
        series.append(Series.of(FAMILIES[family], bits, [row[4] for row in mine], "points", labels=labels))
    return Section(
        "volumes",
        "Does splitting find the volumes that plain sampling finds?",
        finding,
        tables=[Table(["family", "function", "t", "bits, plain", "bits, splitting", "difference"], rows, digits=2)],
        charts=[Chart("volumes", "Bits by two methods", series, "bits by plain sampling", "bits by splitting")],
        null_models="None. Plain sampling, with which splitting is compared, has no bias.",
        not_shown="Volumes that are too small for plain sampling have no such check.",
        numbers={"rows": rows},
    )


def orders_section(
    measured: dict[Family, list[Function]], agreements: "dict[Family, dict[str, RankAgreement]]", study: Bits
) -> Section:
    """Return the section that compares the orders of functions by the three measures."""
    tables: list[Table | str] = []
    for family, told in measured.items():
        ends = study.thresholds[0], study.thresholds[-1]
        columns = ["function", *(f"bits at {t:g}" for t in ends), "exponent", "LLC", "half rank", "second order"]
        rows: list[list[Any]] = [
            [one.name, one.bits[0], one.bits[-1], one.exponents[-1], one.coefficient, one.half_rank, one.quadratic]
            for one in told
        ]
        columns.append("left out")
        rows = [[*row, one.left_out] for row, one in zip(rows, told, strict=True)]
        if family == "boolean":
            columns.append("bits of signs")
            rows = [[*row, one.thresholded] for row, one in zip(rows, told, strict=True)]
        note = (
            f"Bits are at t in nats, exponents at t = {ends[1]:g}. LLC: mean over {study.seeds} minima, at nβ = "
            f"{study.n_beta:g}. Half rank: half the rank of the Jacobian at the minima. Second order: what the LLC "
            "would be if the loss were quadratic around them. Left out: minima whose loss is not 0, or at which a "
            "diagnostic failed. A matrix is named by its rank and its singular values, and a Boolean function by its "
            "values for all inputs, from the last input to the first."
        )
        tables += [f"**{_capital(FAMILIES[family])}**", Table(columns, rows, 2, note)]
    compared: list[list[Any]] = []
    for family, pairs in agreements.items():
        compared += [[family, name, one.spearman, one.kendall, one.p_value] for name, one in pairs.items()]
    tables.insert(0, Table(["family", "compared", "Spearman", "Kendall", "p, shuffled pairings"], compared, 3))
    t = f"{study.thresholds[-1]:g}"
    bits, exponents = [], []
    for family, told in measured.items():
        known = [one for one in told if math.isfinite(one.coefficient.mean)]
        labels = [one.name for one in known]
        llc = [one.coefficient for one in known]
        bits.append(Series.of(FAMILIES[family], [one.bits[-1].mean for one in known], llc, "points", labels=labels))
        exponents.append(
            Series.of(FAMILIES[family], [one.exponents[-1].mean for one in known], llc, "points", labels=labels)
        )
    equal = [0.0, max(one.exponents[-1].mean for told in measured.values() for one in told)]
    charts = [
        Chart("bits", "Bits and local learning coefficient", bits, f"bits at t = {t} nats", "LLC"),
        Chart(
            "exponents",
            "Volume exponent and local learning coefficient",
            [Series("equal", equal, equal, "dashed"), *exponents],
            f"volume exponent at t = {t} nats",
            "LLC",
        ),
    ]
    finding = " ".join(_of_family(family, told, agreements[family]) for family, told in measured.items())
    left_out = sum(one.left_out for told in measured.values() for one in told)
    return Section(
        "orders",
        "Do the three measures order functions in the same way?",
        finding,
        tables=tables,
        charts=charts,
        null_models="Shuffled pairings of the functions of a family.",
        not_shown=(
            "Other priors, losses, depths and larger networks are not tested, nor minima that stochastic gradient "
            f"descent finds from random parameters. {left_out} minima are left out, because their loss is not 0 or a "
            "diagnostic failed. Intervals of an LLC are over minima near the parameters that splitting found, and do "
            "not cover other minima."
        ),
        numbers={
            "functions": {family: [vars(one) for one in told] for family, told in measured.items()},
            "agreements": agreements,
        },
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _of_family(family: Family, told: Sequence[Function], agreements: "dict[str, RankAgreement]") -> str:
    """Return the finding on one family."""
    values = [one.coefficient.mean for one in told if math.isfinite(one.coefficient.mean)]
    bits = [one.bits[-1].mean for one in told]
    exponent = agreements["LLC and volume exponent at the smallest t"].spearman
    half_rank = agreements["half the rank of the Jacobian and bits at the smallest t"].spearman
    if not values:
        return f"{_capital(FAMILIES[family])}: no minimum has an LLC that the diagnostics accept."
    return (
        f"{_capital(FAMILIES[family])}: LLCs from {min(values):.2f} to {max(values):.2f} and bits from {min(bits):.1f} "
        f"to {max(bits):.1f} have a Spearman correlation of {agreements[MAIN].spearman:.2f}; LLC and volume exponent "
        f"have one of {exponent:.2f}. Half the rank of the Jacobian at the minima has "
        f"one of {half_rank:.2f} with bits."
    )


def disagreements_section(perceptron: Sequence[int], samples: int) -> Section:
    """Return the section with exact examples in which the measures have to disagree."""
    from zoo.analysis.singular_models import (
        cross_exponent,
        cross_volume,
        expected_monomial,
        line_volume,
        squares_exponent,
        squares_volume,
    )

    t, area = 1e-6, 0.01
    line_t = cross_volume(t) ** 2
    sampled = {f: estimates.rate(perceptron[f], samples) for f in (0b111, 0b101)}
    rows: list[list[Any]] = [
        ["perceptron, + + + on (1,0), (0,1), (1,1)", "2", "0", "0", f"sampled {sampled[0b111]:.4f}"],
        ["perceptron, + - + on the same inputs", "3", "0", "0", f"sampled {sampled[0b101]:.4f}"],
    ]
    for squares in (1, 100):
        volume, slope = squares_volume(area, squares, t), squares_exponent(area, squares, t)
        inside = -math.log2(area)
        within = (
            f"t = {t:g}: {-math.log2(volume):.2f} bits, exponent {slope:.3f}; one alone: "
            f"{inside + math.log2(squares):.2f} bits"
        )
        name = "one square" if squares == 1 else f"{squares} small squares"
        rows.append([f"{name}, area {area}", f"{inside:.2f}", "0", "0", within])
    for name, V, slope, at in (
        ("line w1² <= t", line_volume(t), 0.5, f"t = {t:g}"),
        ("cross (w1 w2)² <= t", cross_volume(t), cross_exponent(t), f"t = {t:g}"),
        ("line of the same volume as the cross", line_volume(line_t), 0.5, f"t = {line_t:.3g}"),
    ):
        rows.append([name, f"{-math.log2(V):.2f}", f"{slope:.3f}", "1/2", at])
    finite = expected_monomial([1, 1], 1 / t)
    finding = (
        "The measures have to disagree in four kinds of cases. Thresholded outputs: the parameters that compute a "
        "function are an open set, so that the exponent and the coefficient are 0, while bits are 2 or 3. Sets of "
        "equal volume, in one piece or in a hundred: the limits of all three are equal, but a chain that starts in one "
        f"of a hundred separate pieces reaches only 1/100 of the volume, {math.log2(100):.2f} bits more. The line w1 = "
        "0, and the cross of the lines w1 = 0 and w2 = 0: the coefficient is 1/2 for both, and the cross has "
        f"{math.log2(cross_volume(t) / line_volume(t)):.2f} bits less "
        f"at t = {t:g}. At finite t: the exponent of the cross is {cross_exponent(t):.3f} at t = {t:g}, and the "
        f"expectation of nβK is {finite:.4f} at nβ = {1 / t:g} (prior exp(-|w|²/2)), while the limit of both is 1/2."
    )
    powers = np.arange(-12, 0, 0.25)
    series = [
        Series("cross: exact slope", [10.0**p for p in powers], [cross_exponent(10.0**p) for p in powers]),
        Series("line, and limit of both", [10.0**p for p in powers], [0.5 for _ in powers], "dashed"),
        Series("one square", [10.0**p for p in powers], [_squares(1, 10.0**p) for p in powers], "dotted"),
        Series("100 squares", [10.0**p for p in powers], [_squares(100, 10.0**p) for p in powers], "dotted"),
    ]
    note = (
        "Bits, exponent and coefficient are exact. The perceptron has no bias, and its weights are N(0, 1). "
        "Squares, line and cross are in the unit square."
    )
    columns = ["set of parameters", "bits", "volume exponent", "λ (limit)", "further"]
    return Section(
        "disagreements",
        "Where do the three measures have to disagree?",
        finding,
        tables=[Table(columns, rows, note=note)],
        charts=[Chart("slopes", "Slope of ln V against ln t", series, "t", "volume exponent", log_x=True)],
        null_models="None: the values are exact.",
        not_shown="The examples do not show that such cases occur in trained networks.",
        numbers={"rows": rows, "expected_at_finite_n_beta": finite},
    )


def _squares(squares: int, t: float) -> float:
    """Return the exponent of squares of area 0.01, or NaN where their neighbourhoods would meet."""
    from zoo.analysis.singular_models import squares_exponent

    gap = 1 / math.sqrt(squares) - math.sqrt(0.01 / squares)  # on a grid over the unit square
    return squares_exponent(0.01, squares, t) if 2 * math.sqrt(t) < gap else math.nan
