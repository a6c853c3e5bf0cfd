"""Files of named tensors: safetensors, .bin of PyTorch, .npz of NumPy, and GGUF."""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.checkpoints import open_tensors, read_pickle
from zoo.errors import ZooError
from zoo.quantised import Rounding, scaled

INSIDE = ("state_dict", "model_state_dict", "model", "module")  # entries of a .bin that may hold the tensors


@dataclass(frozen=True)
class TensorFile:
    """An opened file of named tensors.

    Args:
        shapes: Shape of every tensor, by name.
        values: Function that returns a tensor.
        metadata: Texts in the file, such as those of `safetensors.torch.save_model`.
        quantised: Function that returns a dequantised tensor and its rounding; None if the format has no such tensors.
    """

    shapes: Mapping[str, Sequence[int]]
    values: Callable[[str], Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    quantised: Callable[[str], tuple[Tensor, Rounding | None]] | None = None

    def read(self, name: str) -> tuple[Tensor, Rounding | None]:
        """Return a tensor and how it was rounded, None if it was not. A matrix in int8 is multiplied by its scale.

        Raises:
            ZooError: If it is in int8 and has no scale.
        """
        if self.quantised:
            return self.quantised(name)
        tensor = self.values(name)
        if tensor.dtype != torch.int8 or tensor.ndim != 2:
            return tensor, None
        return scaled(name, tensor, self.shapes, self.shapes.__getitem__, self.values)


@contextmanager
def tensor_file(path: Path) -> Iterator[TensorFile]:
    """Open a file of named tensors; its suffix determines its format.

    Raises:
        ZooError: If the file is missing or damaged.
    """
    if path.suffix == ".gguf":
        from zoo import gguf_files

        gguf = gguf_files.opened(path)
        yield TensorFile(gguf.shapes, lambda name: gguf.read(name)[0], quantised=gguf.read)
    elif path.suffix in (".bin", ".npz"):
        tensors = _pickled(path) if path.suffix == ".bin" else _arrays(path)
        yield TensorFile({name: tuple(tensor.shape) for name, tensor in tensors.items()}, tensors.__getitem__)
    else:
        with open_tensors(path) as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            yield TensorFile(shapes, file.get_tensor, file.metadata() or {})


def _pickled(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file that `torch.save` wrote; nothing in the file is executed."""
    content: Any
    if zipfile.is_zipfile(path):
        content = read_pickle(path)
    else:  # the format of PyTorch before 1.6
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            what = str(error).partition("\n")[0]
            raise ZooError(f"{path} is damaged, or is not a plain file of tensors: {what}") from None
    for name in INSIDE:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    tensors = content if isinstance(content, dict) else {}
    found = {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not found:
        raise ZooError(f"{path} holds no tensors with names")
    return {name: tensor.detach().to_dense() if tensor.is_sparse else tensor.detach() for name, tensor in found.items()}


def _arrays(path: Path) -> dict[str, Tensor]:
    """Return the arrays of numbers in a .npz file, in the byte order of this machine."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if file[name].dtype.kind in "fiub"}
    except OSError as error:
        raise ZooError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception:
        raise ZooError(f"{path} is damaged, or is not a .npz file of numbers") from None
    if not arrays:
        raise ZooError(f"{path} holds no arrays of numbers")
    return {
        name: torch.from_numpy(np.ascontiguousarray(a.astype(a.dtype.newbyteorder("="), copy=False)).reshape(a.shape))
        for name, a in arrays.items()
        if a.dtype != np.longdouble
    }
