"""Files of matrices that are sources of embeddings but not of networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import ZooError
from zoo.source_files import decoded, only_rows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.quantised import Rounding


class MatrixFile:
    """A file of matrices, by its suffix: .safetensors, .bin, .npz, .gguf, or .npy.

    In the folder of a .npy file there may be files with tokens, tokenizer and counts. A GGUF file holds its tokens.
    """

    zoo_part = None

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path, self.kind = name, path, path.suffix

    def load(self, trust_remote_code: bool = False) -> nn.Module:
        """Refuse: the file holds matrices, not a network."""
        kind = "GGUF" if self.kind == ".gguf" else f"a {self.kind} file"
        raise ZooError(f"{self.name} cannot be loaded as a network ({kind}); {only_rows(self.name)}")

    def tensor(self, wanted: str | None) -> tuple[str, Tensor, Rounding | None]:
        """See `Folder.tensor`."""
        from zoo.hugging_face import read_tensor

        is_array = self.kind == ".npy"
        if is_array and wanted is not None and wanted != self.path.name:
            raise ZooError(f"{self.name} holds one matrix without a name; leave --tensor {wanted} out")
        return (
            (self.path.name, _read_npy(self.path), None) if is_array else read_tensor(self.path, wanted, {}, self.name)
        )

    def beside(self, file: str) -> str | None:
        """See `Folder.beside`."""
        if self.kind == ".gguf" and file == "tokens.json":
            from zoo import gguf_files

            return gguf_files.opened(self.path).tokens()
        path = self.path.with_suffix(f".{file}")
        return decoded(path.read_bytes(), path) if self.kind == ".npy" and path.is_file() else None


def _read_npy(path: Path) -> Tensor:
    """Return the array of a .npy file of floating-point numbers, of any width and byte order, as float32."""
    import numpy as np
    import torch

    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise ZooError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception:  # numpy does not catch exceptions of Python's own parser
        raise ZooError(f"{path} is damaged, or is not a .npy file of numbers") from None
    if array.dtype.kind != "f":
        raise ZooError(f"{path} holds {array.dtype} {list(array.shape)}, not a matrix of token rows")
    with np.errstate(over="ignore"):  # numbers that are too large become infinite, which is refused later
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
