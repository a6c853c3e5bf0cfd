"""Batches of vectors: functions that bring them into one form, and the vectors that initialise a module."""

from typing import Any

import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from zoo.errors import ZooError
from zoo.protocols import datamodule, offered

ENOUGH = 16_384  # largest number of vectors that scale, bias and first atoms are fitted to


def as_vectors(batch: Any) -> dict[str, Tensor]:
    """Return a batch of vectors as a dict with `x` (B, d_in); see `"vectors"` in `zoo.protocols`.

    Args:
        batch: A dict with `x`, which is returned unchanged; a tensor (..., d_in); or a tuple or list whose first entry
            is such a tensor, which a `DataLoader` returns for a `TensorDataset`.

    Raises:
        ZooError: If the batch is none of these.
    """
    if isinstance(batch, dict) and isinstance(batch.get("x"), Tensor):
        return batch
    x = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.ndim:
        held = f"a dict with {', '.join(map(str, batch))}" if isinstance(batch, dict) else f"a {type(x).__name__}"
        held = f"a tensor of {x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else held
        raise ZooError(f"a batch is {held}; expected vectors: a tensor (B, d_in) of floats, or a dict with it as x")
    return {"x": x.reshape(-1, x.shape[-1])}


def as_evaluated(batch: Any) -> dict[str, Tensor]:
    """Return a batch for validation or test like `as_vectors`, with `weight` and `held_out`, (B,) each.

    If the batch lacks them, all weights are 1 and all vectors are held out.
    """
    batch = as_vectors(batch)
    x = batch["x"]
    return {
        "weight": torch.ones(len(x), device=x.device),
        "held_out": torch.ones(len(x), dtype=torch.bool, device=x.device),
        **batch,
    }


def first_vectors(trainer: Any) -> Tensor:
    """Return the vectors (n, d_in) that scale, bias and first atoms are fitted to, the same on every rank.

    They are the datamodule's `sample()`, if it has that method. Otherwise they are the first vectors, at most `ENOUGH`,
    of the training batches of rank 0. Training starts again from the first batch, and the state of torch's random
    number generators does not change.

    Raises:
        ZooError: If the training data are several loaders, can be read only once, or have no vectors.
    """
    data = datamodule(trainer)
    if (sample := offered(data, "sample")) is not None:
        vectors: Tensor = sample()
        return vectors
    with isolate_rng():
        loader = trainer.fit_loop._data_source.dataloader()  # Lightning sets its loaders up after this
        if isinstance(loader, list | tuple | dict | CombinedLoader):
            raise ZooError(f"the training data are a {type(loader).__name__} of loaders; give one DataLoader")
        batches = iter(loader)
        if batches is loader:
            raise ZooError(
                f"the training data are a {type(loader).__name__}, which can be read only once; give a DataLoader, or "
                "call the module's initialise(vectors) before training"
            )
        found, n = [], 0
        for batch in batches:
            x = as_vectors(batch)["x"]
            found.append(x[: ENOUGH - n])
            n += len(found[-1])
            if n == ENOUGH:
                break
    if not n:
        raise ZooError("the training data have no batch of vectors")
    return trainer.strategy.broadcast(torch.cat(found))
