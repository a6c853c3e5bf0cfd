"""Any result as strict JSON."""

import dataclasses
import math
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """What JSON can hold of a value: NaN and infinities as null, arrays (of any library) as lists, keys as text.

    Raises:
        TypeError: For something that is no data.
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
