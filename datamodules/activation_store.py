"""Activations on disk, if they are wanted there: written once, checked before use."""

import hashlib
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from zoo.checkpoints import open_tensors
from zoo.errors import ZooError
from zoo.paths import make_folder


class ActivationStore:
    """A folder with one safetensors file for every refill of every rank, named by what the activations depend on.

    Args:
        root: Folder of all stores; this one's is named by a hash of the fingerprint.
        fingerprint: A name that changes whenever the activations would.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.fingerprint = hashlib.sha256(fingerprint.encode()).hexdigest()
        self.folder = root / f"activations-{self.fingerprint[:16]}"

    def load(self, name: str) -> Tensor | None:
        """The activations stored under a name, float32 on the CPU; None if there are none.

        Raises:
            ZooError: If the file is damaged or holds something else.
        """
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            return None
        try:
            with open_tensors(path) as file:
                told = file.metadata() or {}
                x = file.get_tensor("x") if "x" in file.keys() else torch.empty(0)  # noqa: SIM118 - not a dict
        except ZooError as error:
            raise ZooError(f"{error}; delete it to have it made again") from None
        if told != {"fingerprint": self.fingerprint, "name": name, "sha256": _digest(x)}:
            raise ZooError(f"{path} is damaged or not of this data; delete it to have it made again")
        return x

    def save(self, name: str, x: Tensor) -> None:
        """Store activations; a file is whole or not there."""
        make_folder(self.folder, "data.activations_dir")
        path, x = self.folder / f"{name}.safetensors", x.cpu().contiguous()
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # another run may be making the same
        save_file({"x": x}, partial, {"fingerprint": self.fingerprint, "name": name, "sha256": _digest(x)})
        partial.chmod(0o644)
        os.replace(partial, path)


def _digest(x: Tensor) -> str:
    return hashlib.sha256(x.contiguous().numpy().data).hexdigest()
