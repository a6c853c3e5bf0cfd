"""Tables of numbers, texts and estimates, which can be written as Markdown, CSV and JSON."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.estimates import Estimate

Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """A table with named columns.

    Args:
        columns: Names of the columns.
        rows: Rows, with one cell per column. In Markdown, floats and estimates have `digits` digits after the point,
            and None and NaN are "-".
        digits: Digits after the point.
        note: Markdown text below the table that explains the columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    digits: int = 3
    note: str = ""

    def markdown(self) -> str:
        """Return the table and its note as Markdown."""
        lines = [_line(self.columns), "|---" * len(self.columns) + "|"]
        lines += [_line([self._shown(cell) for cell in row]) for row in self.rows]
        return "\n".join(lines) + (f"\n\n{self.note}" if self.note else "")

    def csv(self) -> str:
        """Return the table as CSV with all digits. An estimate has three columns: its value, low and high."""
        wide = [any(isinstance(row[i], Estimate) for row in self.rows) for i in range(len(self.columns))]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names: list[str] = []
        for name, is_wide in zip(self.columns, wide, strict=True):
            names += [name, f"{name}, low", f"{name}, high"] if is_wide else [name]
        writer.writerow(names)
        for row in self.rows:
            cells: list[Any] = []
            for cell, is_wide in zip(row, wide, strict=True):
                if isinstance(cell, Estimate):
                    cells += [cell.mean, cell.low, cell.high]
                else:
                    cells += [cell, None, None] if is_wide else [cell]
            writer.writerow(cells)
        return text.getvalue()

    def _shown(self, cell: Cell) -> str:
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return "-"
        if isinstance(cell, float | Estimate):
            return format(cell, f".{self.digits}f")
        return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
