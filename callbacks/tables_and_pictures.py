"""What callbacks leave behind: tables and pictures, in the run's folder and in TensorBoard."""

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
    """Row indices grouped by decade of their count: "0", "1-9", "10-99", ...; one group "all" without counts.

    Args:
        counts: How often each row's token occurs, (R,) int64.
        n_rows: Number of rows R.
    """
    if counts is None:
        return {"all": torch.arange(n_rows)}
    decade = torch.where(counts > 0, counts.clamp(min=1).double().log10().floor().long() + 1, 0)
    label = {d: "0" if d == 0 else f"{10 ** (d - 1)}-{10**d - 1}" for d in range(int(decade.max()) + 1)}
    return {label[d]: members for d in label if len(members := (decade == d).nonzero().squeeze(1))}


def logged_step(trainer: L.Trainer) -> int:
    """The last step counted from 0, as in Lightning's own curves."""
    return max(0, trainer.global_step - 1)


def write_table(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write columns of equal length as CSV; a reader finds the old table or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    os.replace(partial, path)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for TensorBoard's text page."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def quoted(token: str) -> str:
    """A token as Python writes it, in Markdown that backticks and bars do not upset."""
    return f"``{token!r}``"


def render(figure: Figure) -> np.ndarray:
    """The figure's pixels, (height, width, 4) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def show(trainer: L.Trainer, figure: Figure, path: Path, tag: str, texts: Mapping[str, str]) -> None:
    """Save a figure as PNG; TensorBoard gets it too, and texts beside it.

    Args:
        trainer: Holds the loggers.
        figure: The picture.
        path: Where the PNG goes.
        tag: The picture's name in TensorBoard.
        texts: Markdown, by the part of its name that follows the tag.
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
