"""How simple are the Boolean functions that random networks compute, compared with other maps from parameters?

A map draws its parameters at random and computes a Boolean function of n inputs. Its prior is the probability of every
function. In theory, the probability of a function of complexity C is at most 2^-(a C + b) in every simple map, so that
complex functions are improbable (Dingle, Camargo & Louis 2018; Valle-Perez, Camargo & Louis 2019). The study tests this
bound, and counts how many simple functions a map leaves improbable. The complexity C depends on the order of the inputs
and on the coding of functions as tables.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from zoo import estimates
from zoo.errors import ZooError
from zoo.estimates import Estimate
from zoo.report import Chart, Report, Section, Series, Style, Table, Verdict
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work
from zoo.wording import listed

MEASURES = {"lempel-ziv": "Lempel-Ziv complexity, bits", "entropy": "entropy of the share of ones, bits"}
MEASURES |= {"circuit": "gates of the smallest circuit"}
SIMPLE_BY_DEFAULT = {"entropy": 0.7, "circuit": 4.0}  # c; of Lempel-Ziv, 4 n
AVERAGE = 2.0**-16  # probability of a function of 4 inputs if all are equally probable
MOST_INPUTS = 7
LEAST_MET = 10  # expected number of samples with a function whose probability is tau
BLOCK, BLOCKS = 8192, 32  # samples of a block, and blocks of a task
CHECKED_ORDERS = 2000  # functions whose complexity is computed in other orders of the inputs
ROUNDED = 8192  # functions that are computed in float32 and in bfloat16
SHOWN, PER_COMPLEXITY = 400, 10  # functions in a chart
LISTED = 40  # functions in a table
LEAVES = ("the network leaves", "without nearly constant functions")
CHANCE = 0.025  # share of 95 % intervals that lie above the bound by chance, if all probabilities are on it
TAUS = 2.0 ** -np.arange(2, 25)


@dataclass(frozen=True)
class SampleFunctions(Task):
    """Sample some blocks of one seed of one map."""

    map: str
    n_inputs: int
    coding: str
    n_samples: int
    seed: int
    first: int
    last: int  # the first block that is not sampled
    at_zero: int
    on_gpu = True

    def do(self, work: Work) -> Result:
        """Return the keys of the functions that were met, how often, and the number of outputs that are exactly 0."""
        from zoo.functions.named_maps import named_map
        from zoo.functions.sampling import sample_counts

        found = sample_counts(
            named_map(self.map, self.n_inputs, self.coding),
            self.n_samples,
            self.seed,
            range(self.first, self.last),
            BLOCK,
            at_zero=self.at_zero,
            device=work.device,
        )
        return {"keys": found.keys, "counts": found.counts, "n_samples": found.n_samples, "ties": found.ties}


@dataclass(frozen=True)
class MergeCounts(Task):
    """Merge all samples of one map, and compute the complexity of every function that was met."""

    samples: tuple[SampleFunctions, ...]
    measure: str

    def needs(self) -> Sequence[Task]:
        """The samples."""
        return self.samples

    def do(self, work: Work) -> Result:
        """Return keys (m, words), complexities (m,), counts (seeds, m), and samples and ties of every seed."""
        from zoo.functions.complexity import MEASURES as functions
        from zoo.functions.corner import counts_of
        from zoo.functions.sampling import Counts, merge

        of_seed: dict[int, list[Counts]] = {}
        for task in self.samples:
            found = work[task]
            part = Counts(found["keys"], found["counts"], int(found["n_samples"]), int(found["ties"]))
            of_seed.setdefault(task.seed, []).append(part)
        seeds = [merge(parts) for parts in of_seed.values()]
        keys = merge(seeds).keys
        return {
            "keys": keys,
            "complexities": functions[self.measure](keys, self.samples[0].n_inputs),
            "counts": np.stack([counts_of(keys, seed.keys, seed.counts) for seed in seeds]),
            "n_samples": [seed.n_samples for seed in seeds],
            "ties": [seed.ties for seed in seeds],
        }


@dataclass(frozen=True)
class MeasurePrior(Task):
    """Compare the probabilities of one map's functions with the bound, and count improbable simple functions."""

    merged: MergeCounts
    c: float
    tau: float

    def needs(self) -> Sequence[Task]:
        """The merged samples."""
        return [self.merged]

    def do(self, work: Work) -> Result:
        """Return the functions of the chart, the envelope, what lies above the bound, and the corner."""
        from zoo.functions.bound import bound
        from zoo.functions.named_maps import named_map
        from zoo.functions.names import well_known
        from zoo.functions.prior import halves, simple_functions, simple_keys

        first, found = self.merged.samples[0], work[self.merged]
        n, measure, sizes = first.n_inputs, self.merged.measure, found["n_samples"]
        of = named_map(first.map, n, first.coding)
        keys, C, counts = found["keys"], found["complexities"], found["counts"]
        limit, met = bound(n, measure), halves(keys, C, counts, sizes)
        over, (_, top) = met.excess(limit), met.envelope()
        shown = met.shown(PER_COMPLEXITY, SHOWN)
        wanted = simple_keys(n, measure, self.c)
        simple = simple_functions(of, wanted, keys, counts.sum(0), sum(sizes), first.at_zero)
        known = np.concatenate([*well_known(n).values()])
        of_known = simple_functions(of, known, keys, counts.sum(0), sum(sizes), first.at_zero)
        by_seed = [simple_functions(of, wanted, keys, *one, first.at_zero) for one in zip(counts, sizes, strict=True)]
        return {
            "name": of.name,
            "n_parameters": of.n_parameters,
            "n_samples": sum(sizes),
            "functions": len(keys),
            "ties": sum(found["ties"]),
            "bound": asdict(limit),
            "mean_complexity": [float(one @ C / size) for one, size in zip(counts, sizes, strict=True)],
            "tested": len(met.keys),
            "above": asdict(over) | {"told": told(met.keys[[over.worst]], n)[0]},
            "shown": _drawn(met, shown, n),
            "envelope": _drawn(met, top, n),
            "corner": asdict(simple.corner(self.tau)),
            "shares": [float((one.probabilities > self.tau).mean()) for one in by_seed],
            "corners": [asdict(simple.corner(tau)) for tau in TAUS],
            "simple": np.stack([simple.probabilities, simple.low, simple.high]),
            "known": _spans(of_known.probabilities, of_known.low, of_known.high),
        }


def told(keys: np.ndarray, n: int) -> list[str]:
    """Return the tables of functions as texts of 0 and 1, followed by a name where a function has one."""
    from zoo.functions.keys import tables_from_keys, texts_from_tables
    from zoo.functions.names import names_of

    texts = texts_from_tables(tables_from_keys(keys, n))
    return [f"{text} {name}".strip() for text, name in zip(texts, names_of(keys, n), strict=True)]


def _spans(probabilities: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    return {"mean": probabilities.tolist(), "low": low.tolist(), "high": high.tolist()}


def _drawn(met: Any, chosen: np.ndarray, n: int) -> dict[str, Any]:
    """Return complexities, probabilities and texts of some functions that were met."""
    spans = _spans(*(values[chosen] for values in met.probabilities()))
    return {"C": met.complexities[chosen].tolist(), "told": told(met.keys[chosen], n)} | spans


@dataclass(frozen=True)
class ReorderInputs(Task):
    """Compute the Lempel-Ziv complexity of the functions that one map met most often, with inputs in other orders."""

    merged: MergeCounts

    def needs(self) -> Sequence[Task]:
        """The merged samples."""
        return [self.merged]

    def do(self, work: Work) -> Result:
        """Return complexities in the usual order, and means and standard deviations over orders, (functions,) each."""
        from zoo.functions.complexity import lempel_ziv, over_orders

        found, n = work[self.merged], self.merged.samples[0].n_inputs
        keys = found["keys"][np.argsort(-found["counts"].sum(0), kind="stable")[:CHECKED_ORDERS]]
        others = over_orders(keys, n)
        return {"C": lempel_ziv(keys, n), "mean": others.mean(1), "deviation": others.std(1), "orders": others.shape[1]}


@dataclass(frozen=True)
class Round(Task):
    """Compute functions of the same parameters in float32 and in bfloat16."""

    map: str
    n_inputs: int
    coding: str
    at_zero: int

    def do(self, work: Work) -> Result:
        """Return the numbers of functions and values that differ, and of outputs that are exactly 0 in bfloat16."""
        import torch

        from zoo.functions.named_maps import named_map
        from zoo.functions.sampling import Flips, bf16_flips

        of = named_map(self.map, self.n_inputs, self.coding)
        if of.sample(1, torch.Generator().manual_seed(0)).dtype == torch.bool:
            return asdict(Flips(ROUNDED, 0, 0, 0))  # there is nothing to round
        return asdict(bf16_flips(of, ROUNDED, block_size=ROUNDED // 8, at_zero=self.at_zero))


@dataclass(frozen=True)
class FunctionPriors(Study):
    """Functions are sampled from maps, and their probabilities are compared with their complexities.

    Args:
        maps: Maps as NAME or NAME:setting=value,setting=value. The names are MLP, Polynomial, LinearThreshold,
            RandomFourier, BooleanMachine and RandomTable; your own classes are named module.Class. The first map is the
            main one. By default an MLP n-40-40-1, and maps with about the same numbers of parameters as it, as all
            monomials, and as monomials of up to n / 2 inputs.
        n_inputs: Number n of Boolean inputs, 1 to 7.
        coding: How inputs are coded: bits for 0 and 1, signs for -1 and 1. The prior depends on it.
        n_samples: Number N of samples of each map, over all seeds together.
        seeds: Number of independent seeds. Functions are chosen by one half of them, and their probabilities are
            estimated by the other half.
        measure: Complexity of functions: lempel-ziv, entropy (of the share of ones), or circuit (for up to 3 inputs).
        c: Functions with a complexity below c are simple. By default 4 n for lempel-ziv, 0.7 for entropy, 4 for
            circuit.
        tau: Probability below which a function is improbable; at least 10 / N. By default the larger one of 2^-16 and
            10 / N.
        depths: Numbers of hidden layers of 40 neurons, for networks that differ in depth.
        widths: Numbers of neurons in two hidden layers, for networks that differ in width.
        scales: Standard deviations of weights times the square root of the fan-in, for networks that differ in scale.
            Biases have the standard deviation 1.
        activations: Activations of the networks that differ in depth, width and scale: relu, tanh, sigmoid, sine, sign.
        at_zero: Value of a function where the output is exactly 0: 0 or 1.
        sweep: Whether networks that differ in depth, width and scale are sampled.
    """

    maps: tuple[str, ...] | None = None
    n_inputs: PositiveInt = 7
    coding: str = "bits"
    n_samples: PositiveInt = 1_000_000
    seeds: AtLeastTwo = 2
    measure: str = "lempel-ziv"
    c: PositiveFloat | None = None
    tau: PositiveFloat | None = None
    depths: tuple[PositiveInt, ...] = (1, 2, 4)
    widths: tuple[PositiveInt, ...] = (5, 10, 20, 40, 80)
    scales: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    activations: tuple[str, ...] = ("relu", "tanh")
    at_zero: NonNegativeInt = 0
    sweep: bool = True
    title = "How simple are the functions that random networks compute?"

    def check(self) -> None:
        """Refuse settings that are out of range, unknown or contradictory."""
        if self.n_inputs > MOST_INPUTS:
            raise ZooError(f"n_inputs is {self.n_inputs}; it must be 1 to {MOST_INPUTS}")
        for name, value, known in (
            ("measure", self.measure, [*MEASURES]),
            ("coding", self.coding, ["bits", "signs"]),
            ("at_zero", self.at_zero, [0, 1]),
        ):
            if value not in known:
                raise ZooError(f"{name} is {value!r}; expected one of {', '.join(map(str, known))}")
        if self.measure != "lempel-ziv" and self.n_inputs > (most := 3 if self.measure == "circuit" else 4):
            raise ZooError(f"measure is {self.measure} with {self.n_inputs} inputs; it works for at most {most} inputs")
        if self.measure == "circuit" and self.n_inputs == 1:
            raise ZooError("measure is circuit with 1 input; all functions of 1 input need no gates, so use 2 or 3")
        smallest = self.n_inputs if self.measure == "lempel-ziv" else 0
        if self._c <= smallest:
            raise ZooError(f"c is {self._c:g}; it must be above {smallest}, the complexity of the simplest functions")
        if self.n_samples < self.seeds:
            raise ZooError(f"n_samples is {self.n_samples}; {self.seeds} seeds need at least {self.seeds}")
        if self._tau > 1 or self._tau * self.n_samples < LEAST_MET * (1 - 1e-9):
            need = f"at least {LEAST_MET} / n_samples = {LEAST_MET / self.n_samples:.3g}, and at most 1"
            raise ZooError(f"tau is {self._tau:g}; it must be {need}")
        if len(set(self._specs)) < len(self._specs):
            raise ZooError("maps has a value twice")
        _ = self._made, self._sweeps

    @property
    def _c(self) -> float:
        return self.c if self.c is not None else SIMPLE_BY_DEFAULT.get(self.measure, 4.0 * self.n_inputs)

    @property
    def _tau(self) -> float:
        return self.tau if self.tau is not None else max(AVERAGE, LEAST_MET / self.n_samples)

    @cached_property
    def _specs(self) -> tuple[str, ...]:
        from zoo.functions.named_maps import default_maps

        return self.maps if self.maps is not None else default_maps(self.n_inputs)

    @cached_property
    def _made(self) -> dict[str, Any]:
        """The maps that are compared, by how they were named."""
        return {spec: self._map(spec) for spec in self._specs}

    def _map(self, spec: str) -> Any:
        from zoo.functions.named_maps import named_map

        return named_map(spec, self.n_inputs, self.coding)

    @cached_property
    def _sweeps(self) -> dict[tuple[str, str], dict[float, str]]:
        """The networks that differ in one setting, by setting and activation, and by the setting's value."""
        found: dict[tuple[str, str], dict[float, str]] = {}
        for activation in self.activations if self.sweep else ():
            found["hidden layers", activation] = {d: _network([40] * d, activation) for d in self.depths}
            found["width", activation] = {w: _network([w] * 2, activation) for w in self.widths}
            found["weight scale", activation] = {s: _network([40] * 2, activation, s) for s in self.scales}
            for specs in found.values():
                for spec in specs.values():
                    self._map(spec)
        return found

    def _merged(self, spec: str) -> MergeCounts:
        samples = []
        for seed in range(self.seeds):
            size = self.n_samples // self.seeds + (seed < self.n_samples % self.seeds)
            n_blocks = -(-size // BLOCK)
            for first in range(0, n_blocks, BLOCKS):
                last = min(first + BLOCKS, n_blocks)
                where = (self.n_inputs, self.coding, size, seed, first, last, self.at_zero)
                samples.append(SampleFunctions(spec, *where))
        return MergeCounts(tuple(samples), self.measure)

    def _task(self, spec: str) -> MeasurePrior:
        return MeasurePrior(self._merged(spec), self._c, self._tau)

    def _rounds(self) -> dict[str, Round]:
        return {spec: Round(spec, self.n_inputs, self.coding, self.at_zero) for spec in self._specs}

    @cached_property
    def _reorder(self) -> ReorderInputs | None:
        return ReorderInputs(self._merged(self._specs[0])) if self.measure == "lempel-ziv" else None

    def tasks(self) -> Sequence[Task]:
        """Return the tasks of all maps, of the networks that differ in one setting, and of the checks."""
        swept = [spec for specs in self._sweeps.values() for spec in specs.values()]
        found: list[Task] = [self._task(spec) for spec in dict.fromkeys((*self._specs, *swept))]
        found += [*self._rounds().values(), *([self._reorder] if self._reorder else [])]
        return found

    def report(self, results: Results) -> Report:
        """Return a report on the bound, on improbable simple functions, and on depth, width and scale."""
        found = {spec: results[self._task(spec)] for spec in self._specs}
        found = {spec: one | {"name": self._short(one["name"])} for spec, one in found.items()}
        swept = {
            key: {value: results[self._task(spec)] for value, spec in specs.items()}
            for key, specs in self._sweeps.items()
        }
        compared = self._compared(found)
        sections = [self._bound(found), self._corner(found, compared), self._disliked(found)]
        if swept:
            sections.append(self._sweep(swept))
        sections.append(self._checks(found, results))
        claims = self._claims(found, compared, swept)
        evidence = Table(["claim", "found, and how sure"], [[claim, f"{what}; {sure}"] for claim, what, sure in claims])
        obey = [one["name"] for one in found.values() if _obeys(one)]
        headline = f"The bound 2^-(a C + b) on probabilities of functions holds for {len(obey)} of {len(found)} maps."
        if compared:
            headline += (
                "\n\nDo networks leave fewer simple functions improbable than other maps of about the same size? "
                f"{_counted(compared)}."
            )
        certainty = (
            f"{self.n_samples:,} samples of each map in {self.seeds} independent seeds; brackets are 95 % intervals. "
            f"C is the complexity of a function. The bound's a and b were fixed before sampling. All "
            f"{self._n_simple(found):,} simple functions (C < {self._c:g}) were listed, and not only those that were "
            f"sampled; improbable means P < {self._tau:.3g}. Not tested: trained networks, other "
            f"numbers of inputs than {self.n_inputs}, other laws of weights than the Gaussian, and maps other than "
            "those listed."
        )
        numbers = {
            "bound": next(iter(found.values()))["bound"],
            "claims": [dict(zip(("claim", "found", "certainty"), claim, strict=True)) for claim in claims],
        }
        subject = f"{len(found)} maps to Boolean functions of {self.n_inputs} inputs, coded as {self.coding}"
        return Report(subject, Verdict(headline, certainty, evidence.markdown(), numbers), sections)

    def _short(self, name: str) -> str:
        """A map's name without what all maps have in common, or have by default."""
        for part in (f", {self.n_inputs} inputs", f", {self.coding}", ", sigma_w 1, sigma_b 1"):
            name = name.replace(part, "")
        return name.replace(" 1 layers", " 1 layer")

    def _n_simple(self, found: dict[str, Result]) -> int:
        return sum(next(iter(found.values()))["corner"].values())

    def _bound(self, found: dict[str, Result]) -> Section:
        first = next(iter(found.values()))
        a, b, smallest, largest = (first["bound"][name] for name in ("a", "b", "smallest", "largest"))
        rows: list[list[Any]] = []
        for one in found.values():
            over = one["above"]
            rows.append(
                [
                    one["name"],
                    one["n_parameters"],
                    one["functions"],
                    estimates.mean(one["mean_complexity"]),
                    one["tested"],
                    over["functions"],
                    f"{over['mass']:.2%}",
                    f"{over['bits']:.1f}" if np.isfinite(over["bits"]) else "-",
                    "yes" if _obeys(one) else "no",
                ]
            )
        columns = ["map", "parameters", "functions met", "mean C of samples", "functions tested", "above the bound"]
        columns += ["their share of samples", "largest excess, bits", "obeys"]
        note = (
            "A function is tested if the first half of the seeds met it; its probability is estimated by the other "
            "half. It is above the bound if its whole 95 % interval is. The largest excess is log2 of the ratio of an "
            f"interval's lower end to the bound. A map obeys it if at most {CHANCE:.1%} of the tested functions, "
            "which is what chance allows, and at most the same share of samples are above it."
        )
        broken = [one for one in found.values() if not _obeys(one)]
        finding = (
            f"P <= 2^-({a:.3f} C {b:+.2f}) was fixed before sampling. {len(found) - len(broken)} of {len(found)} maps "
            "obey it."
        )
        if broken:
            parts = [f"{one['name']} (by up to {one['above']['bits']:.1f} bits)" for one in broken]
            finding += f" It is exceeded by {listed(parts)}."
        charts = [self._chart(i, spec, one) for i, (spec, one) in enumerate(found.items())]
        return Section(
            "bound",
            "Do all maps keep complex functions improbable?",
            finding,
            tables=[Table(columns, rows, note=note), self._rule(smallest, largest)],
            charts=[self._envelopes(found), *charts],
            null_models=(
                "Random tables make all functions equally probable. Random Fourier features with many waves have no "
                "preference for constants."
            ),
            not_shown=(
                "A function that was met once or twice has a wide interval. Nothing is shown about functions that were "
                "not met, except that each has a probability below "
                f"{3 / self.n_samples:.2g} (one-sided 95 % bound)."
            ),
            numbers={
                spec: {k: v for k, v in one.items() if k not in ("simple", "shown")} for spec, one in found.items()
            },
        )

    def _rule(self, smallest: float, largest: float) -> str:
        how = "exactly, from all functions" if self.n_inputs <= 4 else "as the largest of 100,000 random tables"
        return (
            f"The rule: C is scaled so that it extends from 0 for the simplest function to log2 of the number of "
            f"functions, 2^n = {2**self.n_inputs}, for the most complex one; then P <= 2^-(scaled C). The smallest "
            f"C is {smallest:g}; the largest is {largest:g}, found {how}. (Dingle, Camargo & Louis 2018; Valle-Perez, "
            "Camargo & Louis 2019.) The number of functions is that of all Boolean functions, also for maps that can "
            "compute only some of them."
        )

    def _line(self, found: dict[str, Any]) -> Series:
        ends = [found["smallest"], min(found["largest"], found["smallest"] + 26 / found["a"])]
        return Series("bound", ends, [2.0 ** -(found["a"] * C + found["b"]) for C in ends], "dotted")

    def _chart(self, i: int, spec: str, one: Result) -> Chart:
        shown, top = one["shown"], _met(one["envelope"])
        series = [
            Series("functions", shown["C"], shown["mean"], "points", shown["low"], shown["high"], shown["told"]),
            Series("most probable function of each C", top["C"], top["mean"], labels=top["told"]),
            self._line(one["bound"]),
        ]
        caption = (
            f"{one['functions']:,} functions were met in {one['n_samples']:,} samples. Drawn: the {PER_COMPLEXITY} "
            f"most frequent ones of each complexity and random others, {len(shown['C'])} in all, which both halves of "
            "the seeds met. The mouse shows the table f(0), f(1), ... and the 95 % interval."
        )
        title, labels = f"{one['name']} ({one['n_parameters']:,} parameters)", (MEASURES[self.measure], "probability")
        return Chart(f"prior-{i}", title, series, *labels, log_y=True, caption=caption)

    def _style(self, spec: str) -> Style:
        from zoo.functions.maps import MLP

        return "line" if isinstance(self._made[spec], MLP) else "dashed"

    def _envelopes(self, found: dict[str, Result]) -> Chart:
        lines = []
        for spec, one in found.items():
            top = _met(one["envelope"])
            style = self._style(spec)
            lines.append(Series(one["name"], top["C"], top["mean"], style, top["low"], top["high"], top["told"]))
        lines.append(self._line(next(iter(found.values()))["bound"]))
        caption = (
            "The function of each complexity that the first half of the seeds met most often, with its probability in "
            "the other half. Solid: networks. Dashed: other maps. Bands: 95 % intervals."
        )
        labels = (MEASURES[self.measure], "probability")
        return Chart(
            "envelopes", "Most probable function of each complexity", lines, *labels, log_y=True, caption=caption
        )

    def _compared(self, found: dict[str, Result]) -> list[dict[str, Any]]:
        """Every network with every other map that has about as many parameters."""
        from zoo.functions.maps import MLP
        from zoo.functions.named_maps import same_size

        compared = []
        for spec, net in self._made.items():
            for other, rival in self._made.items():
                if isinstance(net, MLP) and not isinstance(rival, MLP) and same_size(net, rival):
                    one, two = found[spec], found[other]
                    answer = _answer(one["corner"], two["corner"])
                    rest = _answer(*(self._rest(each) for each in (one, two)))
                    compared.append({"network": spec, "other": other, "answer": answer, "rest": rest})
        return compared

    @cached_property
    def _nearly_constant(self) -> np.ndarray:
        """Which simple functions have at most one value that differs from all others, (m,)."""
        from zoo.functions.keys import tables_from_keys
        from zoo.functions.prior import simple_keys

        keys = simple_keys(self.n_inputs, self.measure, self._c)
        ones = tables_from_keys(keys, self.n_inputs).sum(1)
        return np.minimum(ones, 2**self.n_inputs - ones) <= 1

    def _rest(self, one: Result) -> dict[str, int]:
        """The corner without constants and functions that differ from one at a single input."""
        from zoo.functions.corner import corner

        _, low, high = np.asarray(one["simple"])[:, ~self._nearly_constant]
        return asdict(corner(low, high, self._tau))

    def _corner(self, found: dict[str, Result], compared: list[dict[str, Any]]) -> Section:
        rows: list[list[Any]] = []
        for one in found.values():
            corner, total = one["corner"], sum(one["corner"].values())
            share = Estimate(corner["above"] / total, corner["above"] / total, 1 - corner["below"] / total)
            above, undecided, below = (corner[name] for name in ("above", "undecided", "below"))
            seeds, rest = estimates.mean(one["shares"], 0, 1), self._rest(one)["above"]
            rows.append([one["name"], one["n_parameters"], above, undecided, below, share, seeds, rest])
        if self.n_inputs <= 4:
            rows.append(self._row_of_prior())
        columns = ["map", "parameters", "above tau", "interval contains tau", "below tau", "share above tau"]
        columns += ["mean of the seeds' shares", "above tau and not nearly constant"]
        note = (
            f"tau = {self._tau:.3g}. The bracket of a share extends over the functions whose interval contains tau. "
            "The column of seeds counts estimates above tau without regard to their intervals; its bracket is a "
            f"Student t interval over {self.seeds} seeds. Nearly constant functions have at most one "
            f"value that differs from all others: {int(self._nearly_constant.sum()):,} of the simple functions."
        )
        names = {spec: one["name"] for spec, one in found.items()}
        pairs = [
            [
                names[p["network"]],
                names[p["other"]],
                *(found[p[k]]["corner"]["below"] for k in ("network", "other")),
                p["answer"],
                p["rest"],
            ]
            for p in compared
        ]
        of_pairs = Table(["network", "other map", "below tau: network", "other map", *LEAVES], pairs)
        finding = (
            f"{self._n_simple(found):,} functions have C < {self._c:g}. "
            f"{names[self._specs[0]]} gives {_corner_told(found[self._specs[0]])} of them a probability above "
            f"{self._tau:.3g}. "
            "Do networks leave fewer simple functions improbable than maps of about as many parameters? "
            f"{_counted(compared)}."
        )
        lines = []
        for spec, one in found.items():
            total = self._n_simple(found)
            low = [c["above"] / total for c in one["corners"]]
            high = [1 - c["below"] / total for c in one["corners"]]
            middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
            seen = TAUS * self.n_samples >= LEAST_MET / 2
            cut = [np.asarray(values)[seen].tolist() for values in (TAUS, middle, low, high)]
            lines.append(Series(one["name"], cut[0], cut[1], self._style(spec), cut[2], cut[3]))
        chart = Chart(
            "corner",
            f"Share of the simple functions (C < {self._c:g}) with a probability above tau",
            lines,
            "tau",
            "share of simple functions",
            log_x=True,
            caption="Solid: networks. Dashed: other maps. Bands: functions whose interval contains tau.",
        )
        return Section(
            "corner",
            "How many simple functions does a map leave improbable?",
            finding,
            tables=[Table(columns, rows, note=note), *([of_pairs] if pairs else []), self._known(found)],
            charts=[chart],
            null_models="Random tables, whose probabilities are exact: 2^-(2^n) for every function.",
            not_shown=(
                "The simple functions are those with short Lempel-Ziv descriptions of their tables; other measures of "
                "complexity, or another order of the inputs, choose other functions. Maps are compared at about the "
                "same number of parameters and not at the same number of bits or operations."
            ),
            numbers={"compared": compared, "c": self._c, "tau": self._tau},
        )

    def _row_of_prior(self) -> list[Any]:
        from zoo.functions.complexity import MEASURES as functions
        from zoo.functions.corner import corner
        from zoo.functions.exact import complexity_prior
        from zoo.functions.names import all_keys

        C = functions[self.measure](all_keys(self.n_inputs), self.n_inputs)
        prior = complexity_prior(C)[self._c > C]
        others = prior[~self._nearly_constant]
        rest = corner(others, others, self._tau).above
        of = corner(prior, prior, self._tau)
        share = Estimate(of.above / of.total, of.above / of.total, 1 - of.below / of.total)
        return ["the prior 2^-C, normalised, exact", None, of.above, of.undecided, of.below, share, None, rest]

    def _known(self, found: dict[str, Result]) -> Table:
        from zoo.functions.names import well_known

        names = [*well_known(self.n_inputs)]
        rows = [
            [name, *(_chance(*(one["known"][end][i] for end in ("mean", "low", "high"))) for one in found.values())]
            for i, name in enumerate(names)
        ]
        return Table(["probability of", *(one["name"] for one in found.values())], rows)

    def _disliked(self, found: dict[str, Result]) -> Section:
        from zoo.functions.complexity import MEASURES as functions
        from zoo.functions.keys import tables_from_keys, texts_from_tables
        from zoo.functions.maps import MLP
        from zoo.functions.names import names_of
        from zoo.functions.prior import simple_keys

        n = self.n_inputs
        keys = simple_keys(n, self.measure, self._c)
        C, names = functions[self.measure](keys, n), names_of(keys, n)
        texts = texts_from_tables(tables_from_keys(keys, n))
        of = {spec: np.asarray(one["simple"]) for spec, one in found.items()}  # (3, m): probability, low, high
        nets = [spec for spec, made in self._made.items() if isinstance(made, MLP)]
        others = [spec for spec in self._specs if spec not in nets]
        main = self._specs[0]
        disliked = np.all([of[spec][2] < self._tau for spec in nets or [main]], 0)
        liked = np.zeros(len(keys), bool)
        for spec in others:
            liked |= of[spec][1] > self._tau
        order = np.lexsort((of[main][0], np.array([not name for name in names]), C, ~liked))
        chosen = [i for i in order if disliked[i]][:LISTED]
        best = [max(others, key=lambda s: of[s][0][i]) if others else None for i in chosen]
        rows = [
            [
                " ".join(texts[i][k : k + 32] for k in range(0, len(texts[i]), 32)),
                names[i] or "-",
                f"{C[i]:g}",
                _chance(*of[main][:, i]),
                "-" if spec is None or of[spec][0][i] == 0 else f"{_chance(*of[spec][:, i])}: {found[spec]['name']}",
            ]
            for i, spec in zip(chosen, best, strict=True)
        ]
        columns = ["table f(0) f(1) ...", "name", "C", f"probability: {found[main]['name']}", "largest in another map"]
        who = f"all {len(nets)} networks leave" if len(nets) > 1 else f"{found[main]['name']} leaves"
        named = [names[i] for i in chosen if names[i]][:4]
        finding = (
            f"Of {len(keys):,} simple functions, {who} {int(disliked.sum()):,} improbable "
            f"({int((disliked & liked).sum()):,} of these are probable in some other map)."
            + (f" Among the simplest are: {'; '.join(named)}." if named else "")
        )
        note = f"First those that another map makes probable, then by complexity; at most {LISTED} functions."
        return Section(
            "disliked",
            "Which simple functions do networks leave improbable?",
            finding,
            tables=[Table(columns, rows, note=note)],
            null_models="The other maps of the study.",
            not_shown="A function that random networks leave improbable may still be learned by training.",
            numbers={"functions": [texts[i] for i in np.flatnonzero(disliked)[:2000]]},
        )

    def _sweep(self, swept: dict[tuple[str, str], dict[float, Result]]) -> Section:
        charts, rows, parts = [], [], []
        names = dict.fromkeys(name for name, _ in swept)
        for name in names:
            shares, complexities = [], []
            for (setting, activation), of in swept.items():
                if setting != name:
                    continue
                spans = [_share(one) for one in of.values()]
                means = [estimates.mean(one["mean_complexity"]) for one in of.values()]
                values = [str(value) for value in of]
                shares.append(Series.of(activation, values, spans))
                complexities.append(Series.of(activation, values, means))
                for value, one, span, mean in zip(values, of.values(), spans, means, strict=True):
                    over = one["above"]
                    rows.append([name, activation, value, one["n_parameters"], span, mean, f"{over['mass']:.2%}"])
                parts.append(f"with {name} {listed(values)} ({activation}): {listed([f'{s.mean:.3f}' for s in spans])}")
            caption = "Networks with two hidden layers of 40 neurons otherwise. Bands: 95 % intervals."
            slug = name.replace(" ", "-")
            label = f"share above tau = {self._tau:.2g}"
            charts.append(Chart(f"{slug}-share", f"Simple functions by {name}", shares, name, label, caption=caption))
            title = f"Mean complexity of samples by {name}"
            charts.append(Chart(f"{slug}-mean", title, complexities, name, MEASURES[self.measure], caption=caption))
        columns = ["setting", "activation", "value", "parameters", "share of simple functions above tau"]
        columns += ["mean C of samples", "share of samples above the bound"]
        return Section(
            "sweep",
            "How does the prior change with depth, width and the scale of weights?",
            f"Share of the simple functions with a probability above tau, {'; '.join(parts)}.",
            tables=[Table(columns, rows)],
            charts=charts,
            null_models="None. Settings that are not changed are those of two hidden layers of 40 neurons, scale 1.",
            not_shown="Each setting is changed alone. The scale of biases is 1 throughout.",
        )

    def _checks(self, found: dict[str, Result], results: Results) -> Section:
        rows: list[list[Any]] = []
        for spec, task in self._rounds().items():
            of, one = results[task], found[spec]
            values = one["n_samples"] * 2**self.n_inputs
            changed = estimates.rate(int(of["functions"]), int(of["n_samples"]))
            entries = of["entries"] / (of["n_samples"] * 2**self.n_inputs)
            tied = of["ties"] / (of["n_samples"] * 2**self.n_inputs)
            rows.append([one["name"], f"{one['ties'] / values:.3%}", f"{changed:.2%}", f"{entries:.3%}", f"{tied:.3%}"])
        columns = ["map", "outputs exactly 0", "functions that bfloat16 changes", "values that it changes"]
        columns.append("outputs exactly 0 in bfloat16")
        sign = ">" if self.at_zero == 0 else ">="
        tables: list[Table | str] = [
            Table(columns, rows, note=f"f(x) = [output {sign} 0]. bfloat16: {ROUNDED:,} draws of the same parameters."),
        ]
        finding = (
            f"Where an output is exactly 0, the function is {self.at_zero}. If {rows[0][0]} is computed in bfloat16 "
            f"instead of float32, {rows[0][2]} of the sampled functions change."
        )
        if self._reorder is not None:
            finding += f" {self._orders(results[self._reorder])}"
        return Section(
            "checks",
            "Do ties, precision and the order of the inputs matter?",
            finding,
            tables=tables,
            null_models="The same parameters in float32; the same functions with their inputs in the usual order.",
            not_shown="Orders of the 2^n values of a table other than those that come from orders of the n inputs.",
        )

    def _orders(self, found: Result) -> str:
        from scipy import stats

        C, mean, deviation = (np.asarray(found[name]) for name in ("C", "mean", "deviation"))
        told = (
            f"Lempel-Ziv complexity depends on the order of the inputs. For the {len(C):,} functions that the first "
            f"map met most often, in {found['orders']} orders: the standard deviation over orders is "
            f"{deviation.mean():.1f} bits on average"
        )
        if len(set(C)) > 1 and len(set(mean)) > 1:
            told += f", and the rank correlation of C with its mean over orders is {stats.spearmanr(C, mean)[0]:.3f}"
        return f"{told}."

    def _claims(
        self,
        found: dict[str, Result],
        compared: list[dict[str, Any]],
        swept: dict[tuple[str, str], dict[float, Result]],
    ) -> list[list[str]]:
        from zoo.functions.maps import MLP

        nets = [spec for spec in found if isinstance(self._made[spec], MLP)]
        sure = f"{self.n_samples:,} samples; functions are chosen and estimated by different seeds"

        def held(specs: list[str]) -> str:
            obey = sum(_obeys(found[spec]) for spec in specs)
            if not specs:
                return "none was sampled"
            worst = max((found[spec] for spec in specs), key=lambda one: one["above"]["bits"])
            return f"{obey} of {len(specs)} do; largest excess {worst['above']['bits']:.1f} bits ({worst['name']})"

        others = [spec for spec in found if spec not in nets]
        claims = [["1. Networks obey the bound", held(nets), sure], ["2. Other maps obey it too", held(others), sure]]
        claims.append(
            [
                "3. Networks leave fewer simple functions improbable than other maps of the same size",
                _counted(compared),
                "all simple functions are counted; a comparison is decided only if intervals that contain tau could "
                "not change it",
            ]
        )
        main = found[self._specs[0]]
        claims.append(
            [
                "4. There are simple functions that networks leave improbable",
                f"{main['corner']['below']:,} of {self._n_simple(found):,} for {main['name']}",
                "upper ends of 95 % intervals are below tau",
            ]
        )
        for name in dict.fromkeys(name for name, _ in swept):
            ends = [
                f"{activation}: {_share(next(iter(of.values())))} to {_share(list(of.values())[-1])}"
                for (setting, activation), of in swept.items()
                if setting == name
            ]
            claims.append([f"5. Share of probable simple functions, smallest to largest {name}", "; ".join(ends), sure])
        return claims


def _network(widths: Sequence[int], activation: str, scale: float = 1.0) -> str:
    """Return a network as it is named on the command line, with the settings that are not the default ones."""
    settings = [f"widths={'-'.join(map(str, widths))}"]
    settings += [f"activation={activation}"] if activation != "relu" else []
    return f"MLP:{','.join([*settings, *([f'sigma_w={scale:g}'] if scale != 1 else [])])}"


def _answer(net: dict[str, int], other: dict[str, int]) -> str:
    """Return whether a network leaves fewer simple functions improbable, more, or whether intervals do not decide."""
    if net["below"] + net["undecided"] < other["below"]:
        return "fewer"
    return "more" if net["below"] > other["below"] + other["undecided"] else "undecided"


def _counted(compared: Sequence[dict[str, Any]]) -> str:
    """Return in words how many comparisons say that networks leave fewer simple functions improbable."""
    told = []
    for key, where in (("answer", ""), ("rest", "; without nearly constant functions, ")):
        fewer, more = (sum(p[key] == answer for p in compared) for answer in ("fewer", "more"))
        told.append(f"{where}{fewer} of {len(compared)} comparisons say so, and {more} say the opposite")
    return "".join(told) if compared else "no network was compared with another map of its size"


def _obeys(one: Result) -> bool:
    """Return whether no more functions, and no larger share of samples, lie above the bound than chance allows."""
    over = one["above"]
    return bool(over["functions"] <= CHANCE * one["tested"] and over["mass"] <= CHANCE)


def _met(drawn: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the drawn functions that were met, with the mean, low, high, C and texts of each."""
    kept = [i for i, value in enumerate(drawn["mean"]) if value > 0]
    return {name: [values[i] for i in kept] for name, values in drawn.items()}


def _share(one: Result) -> Estimate:
    """Return the share of simple functions above tau; the interval extends over those that are undecided."""
    corner, total = one["corner"], sum(one["corner"].values())
    low, high = corner["above"] / total, 1 - corner["below"] / total
    return Estimate(float(np.mean([*one["shares"]])), low, high)


def _chance(mean: float, low: float, high: float) -> str:
    """Return a small probability with its interval as text, or only its upper bound if the function was not met."""
    if low == high:
        return f"{mean:.2g}"
    return f"below {high:.1g}" if mean == 0 else f"{mean:.2g} [{low:.2g}, {high:.2g}]"


def _corner_told(one: Result) -> str:
    corner = one["corner"]
    more = f" ({corner['undecided']:,} more are undecided)" if corner["undecided"] else ""
    return f"{corner['above']:,}{more}"
