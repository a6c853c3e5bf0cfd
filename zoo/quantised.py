"""Rounding of quantised matrices: their values, and how large the error of the rounding is.

A quantised number is one of equally spaced values, whose spacing is the step. If the numbers before rounding are spread
evenly within a step, the mean squared error of one entry is step² / 12 (Bennett, "Spectra of quantized signals", 1948,
section "Sampling and quantizing").
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.errors import ZooError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Rounding:
    """How a matrix was rounded.

    Args:
        kind: Name of the number format, such as Q4_1.
        squared_error: Estimated squared error of every row, (V,), in the square of the matrix's unit; None if the
            format's values are not equally spaced, so that it is not known.
    """

    kind: str
    squared_error: Tensor | None

    @classmethod
    def of_steps(cls, kind: str, steps: Tensor) -> "Rounding":
        """Return the rounding to values with known steps.

        Args:
            kind: Name of the number format.
            steps: Step of every entry, (V, D).
        """
        return cls(kind, steps.double().square().sum(1) / 12)

    def fvu(self, W: Tensor, kept: "np.ndarray") -> float | None:
        """Return the squared error of rows, as a share of the variance of rows around their mean.

        Args:
            W: The dequantised matrix, (V, D).
            kept: Rows that count, (V,) bool.
        """
        if self.squared_error is None:
            return None
        chosen = torch.from_numpy(kept)
        rows = W[chosen].double()
        return float(self.squared_error[chosen].sum() / (rows - rows.mean(0)).square().sum())


def scaled(
    name: str, q: Tensor, names: Iterable[str], shape: Callable[[str], Sequence[int]], read: Callable[[str], Tensor]
) -> tuple[Tensor, Rounding]:
    """Return an int8 matrix times its scale, which is another tensor of the same file, and its rounding.

    The scale has the matrix's name, or the name without `.weight`, followed by `_scale`, `_scales`, `.scale` or
    `.scales`; or it is the only tensor of a fitting shape whose name contains `scale`. It is one number, or one per
    row.

    Args:
        name: Name of the matrix.
        q: The matrix, (V, D) int8.
        names: Names of all tensors in the file.
        shape: Function that returns the shape of a tensor.
        read: Function that returns the values of a tensor.

    Raises:
        ZooError: If there is no scale of a fitting shape, or the file has a zero point, which is not read.
    """
    V, names = len(q), list(names)
    fits = [n for n in names if n != name and tuple(shape(n)) in ((), (1,), (V,), (V, 1), (1, 1))]
    stems = (name, name.removesuffix(".weight"))
    named = [n for n in fits if n in {f"{s}{sign}{end}" for s in stems for sign in "_." for end in ("scale", "scales")}]
    found = named or [n for n in fits if "scale" in n.lower()]
    if len(found) != 1:
        what = f"has the scales {', '.join(found)}" if found else "has no scale"
        raise ZooError(
            f"tensor {name} is int8 and {what}; the file needs one tensor {name}_scale, of one number or one per row"
        )
    prefix = name.rpartition(".")[0] if named else ""  # of the module that the matrix belongs to
    signs = ("zero", "offset", "zp")
    others = [n for n in names if n not in (name, *found) and (n.startswith((*stems, prefix)) or not named)]
    if zero := next((n for n in others if any(sign in n.lower() for sign in signs)), None):
        raise ZooError(f"tensor {name} is int8 with a zero point, {zero}, which is not read; subtract it first")
    scale = read(found[0])
    if not scale.is_floating_point():
        raise ZooError(f"tensor {found[0]} is {scale.dtype}; a scale has a floating-point type")
    factors = scale.float().reshape(-1, 1)
    return q.float() * factors, Rounding.of_steps("int8", factors.expand(q.shape))
