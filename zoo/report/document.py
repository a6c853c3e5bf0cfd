"""Contents of a report, without its layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.report.chart import Chart
from zoo.report.table import Table
from zoo.wording import listed


@dataclass(frozen=True)
class Section:
    """The part of a report on one experiment.

    Args:
        id: Name of the experiment in the report, such as the name of its study; also its anchor on the page.
        title: Question that the experiment answers.
        finding: Answer in one or two sentences, with numbers and intervals; or the reason why it was not tested.
        tested: Whether the question was tested.
        tables: Tables, and Markdown texts between them.
        charts: Charts, which are interactive on the page.
        pictures: PNG files of figures with several panels.
        null_models: Null models and baselines of the experiment, in one or two sentences.
        not_shown: Conclusions that do not follow from the experiment.
        command: Command that repeats the experiment; by default the runner fills it in.
        numbers: All results, plain JSON.
    """

    id: str
    title: str
    finding: str
    tested: bool = True
    tables: Sequence[Table | str] = ()
    charts: Sequence[Chart] = ()
    pictures: Sequence[Path] = ()
    null_models: str = ""
    not_shown: str = ""
    command: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The answer to a report's question.

    Args:
        headline: The answer in one sentence; after an empty line, Markdown text with its numbers may follow.
        certainty: How certain the answer is, and why.
        evidence: Markdown table of the results on which the answer is based.
        numbers: These results as plain JSON.
        recognised: Which effects the study would have recognised, as its positive controls show.
        not_tested: What the answer does not cover. By default the page lists the sections that were not tested, and
            shows `not_shown` of the first other section that has it.
        chart: The chart beside the answer; by default the first chart of the sections.
    """

    headline: str
    certainty: str
    evidence: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    recognised: str = ""
    not_tested: str = ""
    chart: Chart | None = None

    @classmethod
    def combined(cls, verdicts: Mapping[str, "Verdict | None"]) -> "Verdict":
        """Return one verdict with the answers and the evidence of several.

        Args:
            verdicts: Verdicts by the names of their parts, None for a part without an answer. The `numbers` of each
                have `evidence`, rows of question, measurement and answer.
        """
        told = {name: verdict for name, verdict in verdicts.items() if verdict is not None}
        missing = [name for name in verdicts if name not in told]
        absent = f"Parts without an answer: {listed(missing)}." if missing else ""
        if not told:
            return cls("No answer yet.", absent)
        evidence = [row for verdict in told.values() for row in verdict.numbers["evidence"]]
        table = Table(["question", "measured", "answer"], evidence).markdown()
        headline = " ".join(verdict.headline for verdict in told.values())
        numbers = {name: verdict.numbers for name, verdict in told.items()} | {"evidence": evidence}
        certainty = [f"- {name}: {verdict.certainty}" for name, verdict in told.items()]
        return cls(headline, "\n".join([*certainty, *([f"\n{absent}"] if absent else [])]), table, numbers)


@dataclass(frozen=True)
class Report:
    """An answer, and the experiments on which it is based.

    The runner fills in `study` and all later fields.

    Args:
        subject: What was studied, such as the name of an embedding and its size.
        verdict: The answer.
        sections: The experiments, in order.
        study: Name of the study on the command line.
        title: The question.
        command: Command that repeats the whole study.
        settings: Settings of the study, plain JSON.
        costs: Times that the tasks took.
    """

    subject: str
    verdict: Verdict
    sections: Sequence[Section]
    study: str = ""
    title: str = ""
    command: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    costs: Table | None = None

    def charts(self) -> list[Chart]:
        """Return all charts, each once: the verdict's own, and those of the sections."""
        found = [chart for section in self.sections for chart in section.charts]
        own = self.verdict.chart
        return found if own is None or any(own is chart for chart in found) else [own, *found]
