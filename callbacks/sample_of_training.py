"""A fixed sample of the training data, the same on every process and in a resumed run."""

from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.distributed import all_gather_object

from zoo.errors import ZooError
from zoo.models.vector_batches import as_vectors
from zoo.protocols import datamodule, offered

IGNORED = -100  # target that does not count


def sample_of_training(trainer: L.Trainer, pl_module: L.LightningModule, n: int) -> dict[str, Tensor]:
    """Return at most n examples of the first training batches, to be called before training.

    Vectors come from the datamodule's `sample()`, if it has that method. The state of random generators and of the
    training data does not change. With several processes, the parts of a batch are put together again.

    Returns:
        Tensors on the CPU by name: (n, ...), or (n, n_seeds, ...) for data of networks that are trained side by side.

    Raises:
        ZooError: If the training data are several loaders, can be read only once, or have fewer than 2 examples.
    """
    data = datamodule(trainer)
    if (sample := offered(data, "sample")) is not None:
        with isolate_rng():
            return {"x": sample()[:n].cpu()}
    parts, found = [], 0
    with isolate_rng():
        loader: Any = trainer.fit_loop._data_source.dataloader()
        if isinstance(loader, list | tuple | dict | CombinedLoader) or iter(loader) is loader:
            raise ZooError(f"the training data are a {type(loader).__name__}; a sample needs one DataLoader")
        for batch in loader:
            parts.append(_over_processes(trainer, _examples(pl_module, data, batch)))
            found += len(next(iter(parts[-1].values())))
            if found >= n:
                break
    if found < 2:
        raise ZooError(f"the training data have {found} examples; a sample needs at least 2")
    return {name: torch.cat([part[name] for part in parts])[:n] for name in parts[0]}


def n_points(data: dict[str, Tensor], count: Literal["tokens", "sequences"]) -> int:
    """Return the number of data points of a sample: of tokens that count, or of examples."""
    if "targets" in data:
        return int((data["targets"] != IGNORED).sum())
    return len(next(iter(data.values())))


def _examples(pl_module: L.LightningModule, data: Any, batch: Any) -> dict[str, Tensor]:
    """Return a batch of this process with one example after the other."""
    batch = batch if isinstance(batch, dict) else as_vectors(batch)
    kept = {name: x.detach().cpu() for name, x in batch.items() if isinstance(x, Tensor) and name != "row"}
    if str(offered(data, "batches")).startswith("feature "):
        n_seeds = data.n_seeds
        kept = {name: x.unflatten(0, (n_seeds, -1)).transpose(0, 1) for name, x in kept.items()}
    return kept


def _over_processes(trainer: L.Trainer, part: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the whole batch, from the parts of all processes."""
    if trainer.world_size == 1:
        return part
    everyones: list[Any] = [None] * trainer.world_size
    all_gather_object(everyones, part)
    return {name: torch.cat([one[name] for one in everyones]) for name in part}


def seed_by_seed(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch with the vectors of one seed after the other, from tensors (B, n_seeds, ...)."""
    return {name: x.transpose(0, 1).flatten(0, 1) for name, x in batch.items()}
