"""Functions with which callbacks write tables and figures to the run's folder and to TensorBoard."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from torch import Tensor


def frequency_groups(counts: Tensor | None, n_rows: int) -> dict[str, Tensor]:
    """Return row indices grouped by the decade of their count: "0", "1-9", "10-99", ...

    Without counts there is one group, "all".

    Args:
        counts: How often each row's token occurs, (R,) int64; None if not known.
        n_rows: Number of rows R.
    """
    if counts is None:
        return {"all": torch.arange(n_rows)}
    decade = torch.where(counts > 0, counts.clamp(min=1).double().log10().floor().long() + 1, 0)
    label = {d: "0" if d == 0 else f"{10 ** (d - 1)}-{10**d - 1}" for d in range(int(decade.max()) + 1)}
    return {label[d]: members for d in label if len(members := (decade == d).nonzero().squeeze(1))}


def logged_step(trainer: L.Trainer) -> int:
    """Return the number of the last step, counted from 0 like the steps that Lightning logs."""
    return max(0, trainer.global_step - 1)


def write_table(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write columns of equal length as CSV, atomically: a reader finds the old table or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    os.replace(partial, path)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, for TensorBoard's text page."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def quoted(token: str) -> str:
    """Return a token's Python literal as Markdown code, which backticks and bars in the token do not break."""
    return f"``{token!r}``"


def render(figure: Figure) -> np.ndarray:
    """Return the figure's pixels, (height, width, 4) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def show(trainer: L.Trainer, figure: Figure, path: Path, tag: str, texts: Mapping[str, str]) -> None:
    """Save a figure as PNG, and add it and some texts to TensorBoard if the trainer logs there.

    Args:
        trainer: Trainer with the loggers.
        figure: The figure.
        path: Path of the PNG.
        tag: The figure's name in TensorBoard.
        texts: Markdown texts by name; in TensorBoard their names are `tag/name`.
    """
    picture = render(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    imsave(partial, picture, format="png")
    os.replace(partial, path)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, picture, logged_step(trainer), dataformats="HWC")
            for name, text in texts.items():
                logger.experiment.add_text(f"{tag}/{name}", text, logged_step(trainer))
