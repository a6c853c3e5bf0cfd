"""What a callback needs of the module and the data it watches."""

import lightning as L

from zoo.errors import ZooError


def require(callback: L.Callback, owner: L.LightningModule | L.LightningDataModule | None, *names: str) -> None:
    """Refuse a module or a datamodule that lacks what a callback works with.

    Raises:
        ZooError: Naming what is missing.
    """
    kind = "model" if isinstance(owner, L.LightningModule) else "datamodule"
    if missing := [name for name in names if not hasattr(owner, name)]:
        which = f"{type(owner).__name__} lacks {'it' if len(names) == 1 else ', '.join(missing)}"
        raise ZooError(
            f"{type(callback).__name__} needs a {kind} with {', '.join(names)}; "
            f"{'there is none' if owner is None else which}"
        )
