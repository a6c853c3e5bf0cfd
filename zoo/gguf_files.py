"""Reader of GGUF files, the format of llama.cpp, through the package `gguf`."""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.quantised import Rounding
from zoo.token_texts import stored_text

INSTALL = "pip install 'superposition-zoo[gguf]'"
PLAIN = ("F32", "F16", "BF16", "F64")  # formats that are not quantised
# Formats with equally spaced values: where the (low bits of the) quantised numbers are in a block of bytes, and the
# byte in which each of them is 1.
STEPS = {
    "Q4_0": (slice(2, None), 0x11),
    "Q4_1": (slice(4, None), 0x11),
    "Q5_0": (slice(6, None), 0x11),
    "Q5_1": (slice(8, None), 0x11),
    "Q8_0": (slice(2, None), 0x01),
    "Q2_K": (slice(16, 80), 0x55),
    "Q3_K": (slice(32, 96), 0x55),
    "Q4_K": (slice(16, None), 0x11),
    "Q5_K": (slice(48, None), 0x11),
    "Q6_K": (slice(0, 128), 0x11),
}


class Gguf:
    """An opened GGUF file.

    Args:
        path: The file.

    Raises:
        ZooError: If the package `gguf` is missing, or the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            from gguf import GGUFReader
        except ImportError:
            raise ZooError(f"{path} is a GGUF file, which needs the package gguf; run {INSTALL}") from None
        try:
            self._reader = GGUFReader(path)
        except Exception as error:
            raise ZooError(f"{path} is damaged, or is not a GGUF file: {str(error).partition(chr(10))[0]}") from None
        self.path, self._tensors = path, {str(tensor.name): tensor for tensor in self._reader.tensors}
        self.shapes = {name: tuple(map(int, reversed(t.shape))) for name, t in self._tensors.items()}

    def read(self, name: str) -> tuple[Tensor, Rounding | None]:
        """Return a tensor, dequantised as float32, and how it was rounded; None for floating-point numbers.

        Raises:
            ZooError: If the package `gguf` cannot dequantise its format.
        """
        from gguf import quants

        tensor = self._tensors[name]
        kind = tensor.tensor_type
        try:
            values = torch.from_numpy(quants.dequantize(tensor.data, kind).astype("float32"))
        except Exception:
            raise ZooError(f"{self.path}: tensor {name} is {kind.name}, which gguf cannot dequantise") from None
        W = values.reshape(self.shapes[name])
        return W, None if kind.name in PLAIN or W.ndim != 2 else self._rounding(tensor, W.shape)

    def _rounding(self, tensor: Any, shape: torch.Size) -> Rounding:
        """Return the rounding of a tensor. Its steps are the differences between quantised numbers 1 and 0."""
        from gguf import GGML_QUANT_SIZES, quants

        kind = tensor.tensor_type
        if kind.name not in STEPS:
            return Rounding(kind.name, None)
        place, ones = STEPS[kind.name]
        blocks = tensor.data.reshape(-1, GGML_QUANT_SIZES[kind][1]).copy()
        blocks[:, place] = ones
        upper = quants.dequantize(blocks, kind)
        blocks[:, place] = 0
        steps = torch.from_numpy(upper - quants.dequantize(blocks, kind))
        return Rounding.of_steps(kind.name, steps.reshape(shape))

    def tokens(self) -> str | None:
        """Return a JSON list with the text of every token, by id; None if the file has no tokens."""
        listed = self._reader.get_field("tokenizer.ggml.tokens")
        if listed is None:
            return None
        kind = self._reader.get_field("tokenizer.ggml.model")
        model = str(kind.contents()) if kind else ""
        texts = [bytes(listed.parts[at]).decode("utf-8", "zoo.bytes") for at in listed.data]
        return json.dumps([stored_text(text, model) for text in texts])


def opened(path: Path) -> Gguf:
    """Return an opened GGUF file; the last one is kept open, because reading its metadata takes seconds.

    Raises:
        ZooError: If the file cannot be read.
    """
    status = path.stat()
    return _opened(path, status.st_mtime_ns, status.st_size)


_opened: Callable[[Path, int, int], Gguf] = lru_cache(1)(lambda path, changed, size: Gguf(path))
