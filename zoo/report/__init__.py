"""Reports: their contents, and functions that write them as an HTML page, JSON, CSV tables and figures."""

from zoo.report.chart import Chart, Grid, Series, Style
from zoo.report.document import Report, Section, Verdict
from zoo.report.table import Table
from zoo.report.writing import read, write

__all__ = ["Chart", "Grid", "Report", "Section", "Series", "Style", "Table", "Verdict", "read", "write"]
