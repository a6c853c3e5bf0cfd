"""Errors in the results of the study `universal_gates`, by gate, width and method."""

from typing import Any

import numpy as np

from zoo.metrics import CASES
from zoo.studies.embedding.numbers import mean_and_interval
from zoo.studies.toys.measured import listed, sign
from zoo.studies.universal_gates_report import METHODS, Results, chosen

GATES = ("and", "xor")
AFFINE = {"and": 0.25, "xor": 0.5}  # |error| of the best affine readoff of the inputs, in each of the four cases
NAMES = {method: name for method, (_, name) in METHODS.items()}
INPUTS = [f"inputs {case}" for case in CASES]
CLOSED = ("least squares", "discriminant")  # readoffs of a random layer


def widths(results: Results) -> list[int]:
    """Neurons d, ascending."""
    return sorted({r["d_mlp"] for r in results})


def errors(results: Results, name: str = "mean", **settings: Any) -> np.ndarray:
    """Errors of one run, by default of those whose four cases weigh alike with p = 2, (seeds, 4).

    Args:
        results: Of the study.
        name: `mean`, `rms`, `max` or `bias`.
        settings: Which run.
    """
    [run] = chosen(results, **{"weights": "four", "p": 2} | settings)
    return np.array(run[name])


def overall(results: Results, name: str = "mean", **settings: Any) -> np.ndarray:
    """The same over the four cases: the mean of `mean`, the root mean square of `rms`; (seeds,)."""
    found = errors(results, name, **settings)
    return np.sqrt((found**2).mean(1)) if name == "rms" else found.mean(1)


def comparisons(results: Results) -> list[dict[str, Any]]:
    """Trained networks against random neurons, at every gate and width.

    Seeds are paired, for all methods start from the same first layers. The best readoff of a random layer is the better
    of least squares and discriminant. `against_best` is the mean |error| of trained networks minus that of it, and
    `against_best_rms` the same of the root mean square, which training with p = 2 makes small; `against_readoff` is
    against a readoff of the random layer that is trained in the same way. `answer` is `better` or `worse` if the first
    two say so, and else `undecided`.
    """
    found = []
    for gate in GATES:
        for d in widths(results):
            one: dict[str, Any] = {"gate": gate, "d": d}
            for name, end in (("mean", ""), ("rms", "_rms")):
                trained, readoff, *closed = (
                    overall(results, name, gate=gate, d_mlp=d, method=method)
                    for method in ("trained", "frozen", *CLOSED)
                )
                best = min(closed, key=np.mean)
                one |= {
                    f"trained{end}": mean_and_interval(trained.tolist()),
                    f"best{end}": mean_and_interval(best.tolist()),
                    f"readoff{end}": mean_and_interval(readoff.tolist()),
                    f"against_best{end}": mean_and_interval((trained - best).tolist()),
                    f"against_readoff{end}": mean_and_interval((trained - readoff).tolist()),
                }
            signs = {sign(one["against_best"]), sign(one["against_best_rms"])}
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
