"""What a report says, apart from how it looks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.report.chart import Chart


@dataclass(frozen=True)
class Section:
    """One experiment.

    Args:
        id: As in A9.
        title: The question it asks.
        finding: Its answer in a sentence or two, numbers and intervals included; or why it was not tested.
        tested: Whether it was.
        tables: Markdown: tables and what they need to be understood.
        charts: Pictures that the page draws.
        pictures: Files (PNG) of pictures with several panels.
        null_models: What it was compared with, in a sentence or two.
        not_shown: What does not follow from it.
        command: What makes it again.
        numbers: All results, plain JSON.
    """

    id: str
    title: str
    finding: str
    tested: bool = True
    tables: str = ""
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
    """A question, its answer, and the experiments behind it.

    Args:
        study: Name of the study, as on the command line.
        title: The question.
        subject: What it was asked of, such as the name of an embedding and its size.
        verdict: The answer.
        sections: The experiments, in order.
        command: What makes the whole again.
        settings: Of the study, plain JSON.
        costs: Markdown: what it took, part by part.
    """

    study: str
    title: str
    subject: str
    verdict: Verdict
    sections: Sequence[Section]
    command: str
    settings: dict[str, Any] = field(default_factory=dict)
    costs: str = ""
