"""Are tokens of an embedding arranged on circles, or related by matrices?"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from zoo.report import Report, Verdict
from zoo.shared_tasks.structure import StudyOfStructure
from zoo.studies.binding import Binding
from zoo.studies.circles import Circles
from zoo.study import NotTested, Study


@dataclass(frozen=True)
class Structure(StudyOfStructure):
    """Both studies of structure, `binding` and `circles`, without the dictionaries and training runs of `embedding`."""

    def parts(self) -> Mapping[str, Study | NotTested]:
        """Return the studies `binding` and `circles`, which share the tasks of the search."""
        shared = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"binding": Binding(**shared), "circles": Circles(**shared)}

    def report_of_parts(self, parts: Mapping[str, Report | NotTested]) -> Report:
        """Return a report with both findings."""
        reports = [part for part in parts.values() if isinstance(part, Report)]
        if not reports:
            return Report(self.source, Verdict("No answer yet.", ""), self.sections(parts))
        headline = " ".join(part.verdict.headline for part in reports)
        verdict = Verdict(headline, reports[0].verdict.certainty, numbers=reports[0].verdict.numbers)
        return Report(reports[0].subject, verdict, self.sections(parts))
