"""How simple are the Boolean functions that random networks compute, compared with other maps from parameters?

A map draws its parameters at random and computes a Boolean function of n inputs. Its prior is the probability of every
function. A bound of the form 2^-(a C + b) keeps complex functions improbable in every simple map (Dingle, Camargo &
Louis 2018; Valle-Perez, Camargo & Louis 2019). The study asks as well how many simple functions a map leaves
improbable. The complexity C depends on the order of the inputs and on the coding of functions as tables.
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
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work
from zoo.wording import listed

MEASURES = {"lempel-ziv": "Lempel-Ziv complexity, bits", "entropy": "entropy of the share of ones, bits"}
MEASURES |= {"circuit": "gates of the smallest circuit"}
SIMPLE_BY_DEFAULT = {"entropy": 0.7, "circuit": 4.0}  # c; of Lempel-Ziv, 4 n
AVERAGE = 2.0**-16  # probability of a function of 4 inputs if all are equally probable
LEAST_MET = 10  # expected number of samples with a function whose probability is tau
BLOCKS = 32  # of samples per task
CHECKED_ORDERS = 2000  # functions whose complexity is computed in other orders of the inputs
ROUNDED = 8192  # functions that are computed in float32 and in bfloat16
SHOWN, PER_COMPLEXITY = 400, 10  # functions in a chart
LISTED = 40  # functions in a table
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
        from zoo.functions.prior import halves, simple_functions

        first, found = self.merged.samples[0], work[self.merged]
        n, measure = first.n_inputs, self.merged.measure
        of = named_map(first.map, n, first.coding)
        keys, C, counts, n_samples = (found[name] for name in ("keys", "complexities", "counts", "n_samples"))
        limit, met = bound(n, measure), halves(keys, C, counts, n_samples)
        over, (levels, top) = met.excess(limit), met.envelope()
        shown, probabilities = met.shown(PER_COMPLEXITY, SHOWN), met.probabilities()
        wanted = _simple_keys(n, measure, self.c)
        simple = simple_functions(of, wanted, keys, counts.sum(0), sum(n_samples))
        by_seed = [
            simple_functions(of, wanted, keys, one, size) for one, size in zip(counts, n_samples, strict=True)
        ]
        corners = [simple.corner(tau) for tau in TAUS]
        known = _well_known(n)
        pooled = counts.sum(0)
        return {
            "name": of.name,
            "n_parameters": of.n_parameters,
            "n_samples": sum(n_samples),
            "functions": len(keys),
            "ties": sum(found["ties"]),
            "bound": asdict(limit),
            "mean_complexity": [float(one @ C / size) for one, size in zip(counts, n_samples, strict=True)],
            "tested": len(met.keys),
            "above": over.functions,
            "mass": over.mass,
            "bits": over.bits,
            "worst": _told(met.keys[[over.worst]], n)[0],
            "shown": {"C": C_of(met.complexities[shown]), "told": _told(met.keys[shown], n)}
            | _spans(*(values[shown] for values in probabilities)),
            "envelope": {"C": C_of(levels), "told": _told(met.keys[top], n)}
            | _spans(*(values[top] for values in probabilities)),
            "corner": asdict(simple.corner(self.tau)),
            "shares": [float((one.probabilities > self.tau).mean()) for one in by_seed],
            "corners": [asdict(one) for one in corners],
            "simple_low": simple.low,
            "simple_high": simple.high,
            "simple_counts": simple.counts,
            "known": _spans(*_probabilities_of(of, known, keys, pooled, sum(n_samples))),
            "orders": _orders(met, n, measure),
        }


def C_of(values: np.ndarray) -> list[float]:
    """Return complexities as plain numbers."""
    return [float(value) for value in values]
