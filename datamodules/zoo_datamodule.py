"""What every datamodule of the zoo shares."""

import lightning as L


class ZooDataModule(L.LightningDataModule):
    """A datamodule whose text is its name; Lightning's would make all loaders to describe them."""

    def __str__(self) -> str:
        return type(self).__name__
