"""What every datamodule of the zoo shares."""

from typing import Literal

import lightning as L


class ZooDataModule(L.LightningDataModule):
    """A datamodule that says what its batches hold.

    Its text is its name; Lightning's would make all loaders in order to describe them.
    """

    batches: Literal["tokens", "vectors", "feature vectors", "feature contexts"]

    def __str__(self) -> str:
        return type(self).__name__
