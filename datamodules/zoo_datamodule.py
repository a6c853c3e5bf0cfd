"""Base class of all datamodules of the zoo."""

from typing import Literal

import lightning as L


class ZooDataModule(L.LightningDataModule):
    """Datamodule with an attribute `batches`, which names the content of its batches.

    `str` returns only the class name, because Lightning's description would create all loaders.
    """

    batches: Literal["tokens", "vectors", "feature vectors", "feature contexts"]

    def __str__(self) -> str:
        return type(self).__name__
