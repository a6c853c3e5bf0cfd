"""The part of the report that trains: A5."""

from pathlib import Path
from typing import Any

import numpy as np

from zoo.report import Chart, Section, Series
from zoo.studies.embedding.numbers import Interval, mean_and_interval, spelled

RANDOM = ("frozen Gaussian", "frozen norm-matched")  # know nothing of a trained embedding but its lengths


def cheapest(results: Any) -> tuple[Interval | None, str | None]:
    """What the frozen random embedding that costs least costs, in nats, and which it is; None if not tested."""
    if isinstance(results, str):
        return None, None
    arms = [arm for arm in results["arms"] if arm["rows"] in RANDOM]
    best = min(arms, key=lambda arm: arm["gap"]["mean"])
    return best["gap"], best["rows"]


def training(question: str, out: Path, done: dict[str, Any], command: str) -> Section:
    """GPT-2 with learned and with frozen rows."""
    results = done["A5"]
    gap, arm = cheapest(results)
    assert gap is not None
    arms = {a["rows"]: a for a in results["arms"]}
    margin = done["settings"]["margin"]
    much = "more than" if gap["low"] > margin else "no more than" if gap["high"] <= margin else "not clearly more than"
    finding = (
        f"After {arms['learned']['steps']:,} steps the frozen random embedding that costs least ({arm}) costs "
        f"{spelled(gap)} nats, {much} {margin:g}."
    )
    if not results["same_shape"]:
        V, D = results["trained_shape"]
        finding += (
            f" These are networks of {V:,} tokens and width {D}, not that of the embedding: no part of the verdict."
        )
    if "frozen covariance-matched" in arms and "frozen copied" in arms:
        shared, copied = arms["frozen covariance-matched"], arms["frozen copied"]
        worth = mean_and_interval(np.array(shared["final_losses"]) - np.array(copied["final_losses"]))
        finding += (
            f" Frozen Gaussian rows with the covariance of learned ones cost {spelled(shared['gap'])}; learned rows of "
            f"another run, frozen, {spelled(copied['gap'])} (they were trained before): which row belongs to "
            f"which token, and what else the covariance does not hold, is worth {spelled(worth)} nats."
        )
    series = []
    for name, curves in results["curves"].items():
        stack = np.array(curves)  # (seeds, points, 2)
        spans = [mean_and_interval(values) for values in stack[:, :, 1].T]
        mean, low, high = ([span[key] for span in spans] for key in ("mean", "low", "high"))
        series.append(Series(name, stack[0, :, 0].tolist(), mean, "line", low, high))
    gaps = [a for a in results["arms"] if a["gap"]]
    bars = Series(
        "cost against a learned embedding",
        [a["rows"] for a in gaps],
        [a["gap"]["mean"] for a in gaps],
        "bars",
        [a["gap"]["low"] for a in gaps],
        [a["gap"]["high"] for a in gaps],
    )
    return Section(
        "A5",
        question,
        finding,
        tables=(out / "A5" / "table.md").read_text("utf-8"),
        charts=[
            Chart("a5-loss", "Validation loss", series, "optimizer step", "nats per token", caption="Bands: 95 %."),
            Chart(
                "a5-gap", "What frozen rows cost at the end", [bars], "", "nats, against learned rows of the same seed"
            ),
        ],
        null_models=(
            "Frozen Gaussian rows at GPT-2's own scale; random directions with the norms of learned rows; Gaussian "
            "rows with their covariance; and the learned rows of another seed as they are, which shows what freezing "
            "alone costs. All other initial weights are shared by the arms of a seed."
        ),
        not_shown=(
            f"Training beyond {arms['learned']['steps']:,} steps, other sizes, and a tied unembedding, which a frozen "
            "random embedding hurts far more. Gaps that shrink with more training are possible."
        ),
        command=command,
        numbers={"arms": results["arms"], "cheapest": arm, "curves": results["curves"]},
    )
