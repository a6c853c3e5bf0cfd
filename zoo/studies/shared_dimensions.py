"""From which exponent of the error on do features share dimensions, and from which weight of the zeros?

One of n features is on, and a linear map of rank d < n should reproduce it. The loss is |error|^q, with a weight for
outputs that should be 0. Losses are compared with those of dedicated dimensions (d features have one each, the outputs
of the others are 0) and of the best known construction, both exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jsonargparse.typing import PositiveInt

from zoo.estimates import Estimate, mean
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.toys import Settings, TrainToy, line, spanned
from zoo.study import AtLeastTwo, Result, Results, Study, Task

SIZES = ((3, 2), (6, 3), (10, 5))  # features and dimensions
POWERS = (1.5, 2.0, 2.5, 3.0, 4.0)  # exponents at the weight 1
WEIGHTED = {  # weights of the zeros by exponent, two on each side of the threshold; for 6 features in 3 dimensions
    1.5: (0.46, 0.55, 0.61, 0.69),
    1.75: (0.58, 0.69, 0.77, 0.88),
    2.0: (0.8, 0.95, 1.05, 1.2),
}
TRIES = 16  # networks of which the best counts
SHARED = 0.999  # loss over that of dedicated dimensions below which dimensions count as shared
REACHED = 0.01  # share of the smallest loss within which a network counts as near the best


class Arm(NamedTuple):
    """One case.

    Args:
        n: Number of features.
        d: Number of dimensions.
        q: Exponent of the error.
        weight: Weight of outputs that should be 0.
    """

    n: int
    d: int
    q: float
    weight: float


Runs = Mapping[Arm, Result]


@dataclass(frozen=True)
class SharedDimensions(Study):
    """Linear maps of small rank are trained under the loss |error|^q.

    Args:
        steps: Number of optimizer steps of every training.
        seeds: Number of groups of 16 networks. The best network of a group counts.
    """

    steps: PositiveInt = 3000
    seeds: AtLeastTwo = 4

    def arms(self) -> list[Arm]:
        """Return all cases."""
        found = [Arm(n, d, q, 1.0) for n, d in SIZES for q in POWERS]
        return found + [Arm(6, 3, q, weight) for q, weights in WEIGHTED.items() for weight in weights]

    def task(self, arm: Arm) -> TrainToy:
        """Return the task that trains the networks of one case."""
        own: Settings = (("d_hidden", arm.d), ("q", arm.q), ("zero_weight", arm.weight))
        data: Settings = (("n_features", arm.n), ("batch_size", arm.n), ("n_validation", arm.n))
        return TrainToy("PowerSuperposition", own, ("FixedActive", 1), data, self.steps, 2e-2, TRIES * self.seeds, 1.5)

    def tasks(self) -> Sequence[Task]:
        """Return one task for every case."""
        return [self.task(arm) for arm in self.arms()]

    def report(self, results: Results) -> Report:
        """Return a report on exponents, and on weights of the zeros."""
        runs = {arm: results[self.task(arm)] for arm in self.arms()}
        sections = [_powers(self, runs), _weights(self, runs)]
        evidence = []
        for name, chosen in (("exponents", _at_weight_one(runs)), ("weights", _weighted(runs))):
            right = [_shares(_best(self, r), line(r, "dedicated")) == _expected(arm) for arm, r in chosen.items()]
            evidence.append(
                [
                    f"Do features share dimensions exactly at the {name} at which theory predicts it?",
                    f"{sum(right)} of {len(right)} cases",
                    "yes" if all(right) else "no",
                ]
            )
        certainty = (
            f"Brackets are 95 % Student t intervals over {self.seeds} groups of {TRIES} networks, of which the best "
            "counts, because single networks end in local minima. Reference losses are exact. Dimensions count as "
            f"shared if the whole interval is below {SHARED} times the loss of dedicated dimensions. The best known "
            "construction is not proven to be the best one, except for q = 2."
        )
        table = Table(["question", "measured", "answer"], evidence).markdown()
        headline = sections[0].finding.partition(". ")[0] + "."
        return Report(
            "Linear maps that reproduce one of n features in fewer dimensions",
            Verdict(headline, certainty, table, {"evidence": evidence}),
            sections,
        )


def _best(study: SharedDimensions, result: Result) -> Estimate:
    """Return the mean over groups of the loss of the best network."""
    return mean(np.asarray(result["loss"]).reshape(study.seeds, TRIES).min(1))


def _at_weight_one(runs: Runs) -> Runs:
    return {arm: r for arm, r in runs.items() if arm.weight == 1}


def _weighted(runs: Runs) -> Runs:
    return {arm: r for arm, r in runs.items() if arm.weight != 1}


def _shares(best: Estimate, dedicated: float) -> bool:
    return best.high < SHARED * dedicated


def _expected(arm: Arm) -> bool:
    """Return whether sharing costs less than dedicated dimensions in theory: for q > 2, or below the threshold."""
    from zoo.models.toy.power_loss import dedicated_loss, grouped_loss

    return grouped_loss(*arm) < SHARED * dedicated_loss(arm.n, arm.d)


def _rows(study: SharedDimensions, runs: Runs) -> list[list[Any]]:
    from zoo.models.toy.power_loss import grouped_loss

    rows: list[list[Any]] = []
    for arm, r in runs.items():
        best, dedicated, loss = _best(study, r), line(r, "dedicated"), np.asarray(r["loss"])
        near = float((loss < (1 + REACHED) * loss.min()).mean())
        told = "yes" if _shares(best, dedicated) else "no"
        sizes = [arm.n, arm.d, f"{arm.q:g}", f"{arm.weight:g}"]
        expected = "yes" if _expected(arm) else "no"
        rows.append([*sizes, best, dedicated, grouped_loss(*arm), f"{near:.0%}", told, expected])
    return rows


COLUMNS = ["features", "dimensions", "q", "weight of zeros", "best loss", "dedicated", "best construction"]
COLUMNS += ["networks near the best", "shares", "shares in theory"]
NOTE = (
    "Outputs of 0 have the loss 1. *Best loss*: of 16 networks. *Best construction*: dedicated dimensions, or equal "
    "groups of features, each with an equiangular frame. *Near the best*: share of all networks whose loss is within "
    "1 % of the smallest."
)


def _powers(study: SharedDimensions, runs: Runs) -> Section:
    from zoo.models.toy.power_loss import grouped_loss

    shown = _at_weight_one(runs)
    told, series, off = [], [], 0.0
    for n, d in SIZES:
        ratios = []
        for q in POWERS:
            best, dedicated = _best(study, shown[Arm(n, d, q, 1.0)]), line(shown[Arm(n, d, q, 1.0)], "dedicated")
            ratios.append(Estimate(best.mean / dedicated, best.low / dedicated, best.high / dedicated, best.n))
            off = max(off, abs(best.mean / grouped_loss(n, d, q) - 1))
        series.append(Series.of(f"{n} features, {d} dimensions", POWERS, ratios))
        told.append(ratios)
    beyond = all(_shares(_best(study, r), line(r, "dedicated")) == (arm.q > 2) for arm, r in shown.items())
    at = {q: [ratios[POWERS.index(q)].mean for ratios in told] for q in POWERS}
    finding = (
        f"With equal weights, features share dimensions {'exactly' if beyond else 'not exactly'} if the exponent q of "
        f"the error is above 2: the smallest loss is {spanned(at[2.0], '.4f')} times that of dedicated "
        f"dimensions at q = 2, {spanned(at[2.5], '.3f')} times at 2.5 and {spanned(at[4.0], '.3f')} "
        f"times at 4. The largest relative difference from the best known constructions is {off:.1g}."
    )
    caption = "Weight 1 of outputs that should be 0. At 1, sharing costs as much as dedicated dimensions."
    title, label = "Best loss by exponent of the error", "best loss / loss of dedicated dimensions"
    return Section(
        "powers",
        "From which exponent of the error on do features share dimensions?",
        finding,
        tables=[Table(COLUMNS, _rows(study, shown), 5, note=NOTE)],
        charts=[Chart("powers", title, series, "exponent q of the error", label, caption=caption)],
        null_models="Dedicated dimensions and the best known construction, both exact.",
        not_shown="More than one feature on at once, and sizes without an equiangular frame.",
        numbers={"ratios": told, "runs": [arm._asdict() | r for arm, r in shown.items()]},
    )


def _weights(study: SharedDimensions, runs: Runs) -> Section:
    from zoo.models.toy.power_loss import sharing_threshold

    shown = _weighted(runs)
    shares = {arm: _shares(_best(study, r), line(r, "dedicated")) for arm, r in shown.items()}
    brackets: list[list[Any]] = []
    for q in WEIGHTED:
        below = max((arm.weight for arm, yes in shares.items() if arm.q == q and yes), default=None)
        above = min((arm.weight for arm, yes in shares.items() if arm.q == q and not yes), default=None)
        brackets.append([f"{q:g}", sharing_threshold(q), below, above])
    inside = [low is not None and high is not None and low < t < high for _, t, low, high in brackets]
    told = ", ".join(f"{low} and {high} at q = {q} (theory {t:.3f})" for q, t, low, high in brackets)
    finding = (
        "For q up to 2, features share dimensions only if zeros weigh less than a threshold. Theory predicts it in "
        f"{sum(inside)} of {len(inside)} cases: the threshold is between {told}."
    )
    series = [Series("threshold in theory", list(WEIGHTED), [sharing_threshold(q) for q in WEIGHTED], "dashed")]
    for name, yes in (("features share dimensions", True), ("dedicated dimensions", False)):
        at = [arm for arm, found in shares.items() if found == yes]
        if at:
            series.append(Series(name, [arm.q for arm in at], [arm.weight for arm in at], "points"))
    return Section(
        "weights",
        "From which weight of the zeros on do features have dimensions of their own?",
        finding,
        tables=[
            Table(["q", "threshold in theory", "largest weight that shares", "smallest that does not"], brackets, 4),
            Table(COLUMNS, _rows(study, shown), 5, note=NOTE),
        ],
        charts=[
            Chart(
                "weights",
                "Six features in three dimensions",
                series,
                "exponent q of the error",
                "weight of outputs that should be 0",
                caption="Theory: (2^(1 / (q - 1)) - 1)^(1 - q), at which two features in one dimension cost 1/2.",
            )
        ],
        null_models="Dedicated dimensions and the best known construction, both exact.",
        not_shown="Weights closer to the threshold than 5 %, and other sizes.",
        numbers={"weights": [arm.weight for arm in shares], "runs": [arm._asdict() | r for arm, r in shown.items()]},
    )
