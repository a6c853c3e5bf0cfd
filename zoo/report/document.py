"""What a report says, apart from how it looks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.report.chart import Chart
from zoo.report.table import Table


@dataclass(frozen=True)
class Section:
    """One experiment.

    Args:
        id: Its name in the report, such as that of the study it comes from; an anchor on the page.
        title: The question it asks.
        finding: Its answer in a sentence or two, numbers and intervals included; or why it was not tested.
        tested: Whether it was.
        tables: Tables, and texts in Markdown between them.
        charts: Pictures that the page draws.
        pictures: Files (PNG) of pictures with several panels.
        null_models: What it was compared with, in a sentence or two.
        not_shown: What does not follow from it.
        command: What makes it again; by default the runner says so.
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
        headline: In one sentence.
        certainty: How sure it is, and on what that rests.
        evidence: Markdown table of what it was decided on.
        numbers: The same, plain JSON.
    """

    headline: str
    certainty: str
    evidence: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """An answer, and the experiments behind it.

    Args:
        subject: What was asked, such as the name of an embedding and its size.
        verdict: The answer.
        sections: The experiments, in order.
        study: Name of the study, as on the command line. This and what follows is added by whatever runs the study.
        title: The question.
        command: What makes the whole again.
        settings: Of the study, plain JSON.
        costs: What it took.
    """

    subject: str
    verdict: Verdict
    sections: Sequence[Section]
    study: str = ""
    title: str = ""
    command: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    costs: Table | None = None
