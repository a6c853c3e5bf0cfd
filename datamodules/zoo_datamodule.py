"""The base of the zoo's datamodules."""

from typing import Literal

import lightning as L

from zoo.described import Described


class ZooDataModule(Described, L.LightningDataModule):
    """A datamodule that states what its batches hold. `zoo.protocols` lists what else may be asked of it."""

    _not_shown = ("allow_zero_length_dataloader_with_multiple_devices", "prepare_data_per_node")
    batches: Literal["tokens", "vectors", "feature vectors", "feature contexts"]  # see `zoo.protocols`

    def __str__(self) -> str:
        return repr(self)  # Lightning's text would make all loaders in order to describe them
