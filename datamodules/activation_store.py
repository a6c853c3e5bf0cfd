"""Optional storage of activations on disk. Files are written once and checked before use."""

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
    """A folder with one safetensors file for every refill of every rank.

    Args:
        root: Folder of all stores. The folder of this store is a subfolder, named by a hash of the fingerprint.
        fingerprint: A string that is different whenever the activations would be different.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.fingerprint = hashlib.sha256(fingerprint.encode()).hexdigest()
        self.folder = root / f"activations-{self.fingerprint[:16]}"

    def load(self, name: str) -> Tensor | None:
        """Return the activations stored under a name, on the CPU, or None if the file does not exist.

        Raises:
            ZooError: If the file is damaged or belongs to other activations.
        """
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            return None
        try:
            with open_tensors(path) as file:
                told = file.metadata() or {}
                x = file.get_tensor("x") if "x" in file.keys() else torch.empty(0)  # noqa: SIM118 - not a dict
        except ZooError as error:
            raise ZooError(f"{error}; delete the file, and the next run writes it again") from None
        if told != {"fingerprint": self.fingerprint, "name": name, "sha256": _digest(x)}:
            raise ZooError(
                f"{path} is damaged or belongs to other activations; delete the file, and the next run writes it again"
            )
        return x

    def save(self, name: str, x: Tensor) -> None:
        """Store activations under a name. The file appears only when it is complete."""
        make_folder(self.folder, "data.activations_dir")
        path, x = self.folder / f"{name}.safetensors", x.cpu().contiguous()
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # another run may write the same file
        save_file({"x": x}, partial, {"fingerprint": self.fingerprint, "name": name, "sha256": _digest(x)})
        partial.chmod(0o644)
        os.replace(partial, path)


def _digest(x: Tensor) -> str:
    return hashlib.sha256(x.contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()
