"""A report: one HTML page, its JSON and its pictures."""

from zoo.report.chart import Chart, Series
from zoo.report.document import Report, Section, Verdict

__all__ = ["Chart", "Report", "Section", "Series", "Verdict"]
