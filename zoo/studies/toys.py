"""What do toy models of superposition and of computation in superposition show?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.report import Report, Table, Verdict
from zoo.studies.attention_features import AttentionFeatures
from zoo.studies.explicit_gates import ExplicitGates
from zoo.studies.polygons import Polygons
from zoo.studies.superposition_phases import SuperpositionPhases
from zoo.studies.universal_gates import UniversalGates
from zoo.study import AtLeastTwo, NotTested, Study
from zoo.wording import listed


@dataclass(frozen=True)
class Toys(Study):
    """All studies of small networks whose correct outputs are known.

    Args:
        seeds: Number of random draws or networks in every part except `polygons`; by default each part's own number.
    """

    seeds: AtLeastTwo | None = None

    def parts(self) -> Mapping[str, Study]:
        """Return the studies of features in few dimensions, of gates, and of attention."""
        seeds: dict[str, Any] = {} if self.seeds is None else {"seeds": self.seeds}
        studies = (
            Polygons(),
            SuperpositionPhases(**seeds),
            ExplicitGates(**seeds),
            UniversalGates(**seeds),
            AttentionFeatures(**seeds),
        )
        return {study.name: study for study in studies}

    def report_of_parts(self, parts: Mapping[str, Report | NotTested]) -> Report:
        """Return a report with the answers of all parts."""
        told = {name: part.verdict for name, part in parts.items() if isinstance(part, Report)}
        subject = (
            "Small networks whose correct outputs are known: they represent features in few dimensions, compute logic "
            "gates of pairs of sparse inputs, or are single attention heads."
        )
        return Report(subject, _verdict(told, [name for name in parts if name not in told]), self.sections(parts))


def _verdict(told: Mapping[str, Verdict], missing: list[str]) -> Verdict:
    """Combine the verdicts of all parts in one verdict.

    Args:
        told: Verdict of each part that has one, by the part's name.
        missing: Names of the parts without a verdict.
    """
    absent = f"Parts without an answer: {listed(missing)}." if missing else ""
    if not told:
        return Verdict("No answer yet.", absent)
    evidence = [row for verdict in told.values() for row in verdict.numbers["evidence"]]
    table = Table(["question", "measured", "answer"], evidence).markdown()
    headline = " ".join(verdict.headline for verdict in told.values())
    numbers = {name: verdict.numbers for name, verdict in told.items()}
    certainty = [f"- {name}: {verdict.certainty}" for name, verdict in told.items()]
    return Verdict(headline, "\n".join([*certainty, *([f"\n{absent}"] if absent else [])]), table, numbers)
