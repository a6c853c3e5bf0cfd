"""Converts results to values that strict JSON can represent."""

import dataclasses
import math
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """Convert a value to plain JSON: NaN and infinities to null, arrays of any library to lists, keys to texts.

    Raises:
        TypeError: For an object that cannot be represented.
    """
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if hasattr(value, "tolist"):  # arrays and scalars of numpy, tensors
        return plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Path):
        return value.as_posix()
    try:
        items = iter(value)
    except TypeError:
        raise TypeError(f"{type(value).__name__} cannot be written as JSON") from None
    return [plain(item) for item in items]
