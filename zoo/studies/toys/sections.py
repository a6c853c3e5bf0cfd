"""What the toys show, as a report."""

from pathlib import Path
from typing import Any

from zoo.report import Report
from zoo.studies.toys import attention, explicit, noisy_inputs, random_layers, skip_bigrams, superposition, trained
from zoo.studies.toys.verdict import decide


def write_up(
    out: Path, done: dict[str, Any], settings: dict[str, Any], costs: dict[str, dict[str, float]], command: str
) -> Report:
    """The report of a finished study.

    Args:
        out: Folder of the study.
        done: What every part gave, by its name.
        settings: Of the study.
        costs: Seconds and processes of every part.
        command: What was asked for.
    """

    def again(part: str) -> str:
        seeds = "" if settings["seeds"] is None else f" --seeds {settings['seeds']}"
        return f"python -m zoo study {part} --out {(out / part).as_posix()}{seeds}"

    gates, make_gates = done["universal-gates"], again("universal-gates")
    written, make_written = done["explicit-gates"], again("explicit-gates")
    features, make_features = done["attention-features"], again("attention-features")
    sections = [
        trained.cases(gates, out / "universal-gates", make_gates),
        random_layers.genericity(gates, make_gates),
        random_layers.affine(gates, make_gates),
        trained.losses(gates, make_gates),
        explicit.closed_form(written, out / "explicit-gates", make_written),
        explicit.width(written, make_written),
        noisy_inputs.superposed(written, make_written),
        noisy_inputs.depth(written, make_written),
        superposition.section(
            done["superposition-phases"], done["pentagon"], out / "superposition-phases", again("superposition-phases")
        ),
        attention.circle(features, make_features),
        attention.two_features(features, make_features),
        attention.dimensions(features, out / "attention-features", make_features),
        skip_bigrams.constructed(features, make_features),
        skip_bigrams.learned(features, make_features),
    ]
    return Report(
        "toys",
        "What do toys of superposition, and of computation in superposition, show?",
        "Small networks whose right answers are known: gates of pairs of sparse inputs (B1 to B10), features in fewer "
        "dimensions (B11), and attention heads (C1 to C5).",
        decide(done),
        sections,
        command,
        settings,
        _costs(costs),
    )


def _costs(costs: dict[str, dict[str, float]]) -> str:
    lines = ["| part | minutes | processes |", "|---|---|---|"]
    lines += [f"| {part} | {cost['seconds'] / 60:.1f} | {cost['jobs']:.0f} |" for part, cost in costs.items()]
    lines.append(f"| all | {sum(cost['seconds'] for cost in costs.values()) / 60:.1f} | |")
    return "\n".join(lines)
