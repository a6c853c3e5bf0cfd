"""What do toy models of superposition and of computation in superposition show?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.report import Report, Verdict
from zoo.studies.attention_features import AttentionFeatures
from zoo.studies.continuous_gates import ContinuousGates
from zoo.studies.explicit_gates import ExplicitGates
from zoo.studies.polygons import Polygons
from zoo.studies.superposition_phases import SuperpositionPhases
from zoo.studies.universal_gates import UniversalGates
from zoo.study import AtLeastTwo, NotTested, Study


@dataclass(frozen=True)
class Toys(Study):
    """All studies of small networks whose correct outputs are known.

    Args:
        seeds: Number of random draws or networks in every part except `polygons`; by default each part's own number.
            `shared-dimensions` has 16 times as many networks, `product-readoffs` and `circuits-in-depth` 4 times.
    """

    seeds: AtLeastTwo | None = None

    def parts(self) -> Mapping[str, Study]:
        """Return the studies of features in few dimensions, of gates, of real numbers, and of attention."""
        seeds: dict[str, Any] = {} if self.seeds is None else {"seeds": self.seeds}
        studies = (
            Polygons(),
            SuperpositionPhases(**seeds),
            ExplicitGates(**seeds),
            UniversalGates(**seeds),
            *ContinuousGates(**seeds).parts().values(),
            AttentionFeatures(**seeds),
        )
        return {study.name: study for study in studies}

    def report_of_parts(self, parts: Mapping[str, Report | NotTested]) -> Report:
        """Return a report with the answers of all parts."""
        verdicts = {name: part.verdict if isinstance(part, Report) else None for name, part in parts.items()}
        subject = (
            "Small networks whose correct outputs are known: they represent features in few dimensions, compute logic "
            "gates of pairs of sparse inputs or real numbers, or are single attention heads."
        )
        return Report(subject, Verdict.combined(verdicts), self.sections(parts))
