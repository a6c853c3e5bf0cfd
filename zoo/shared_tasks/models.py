"""Tasks that read a model, so that workers without access to its file receive the weights; and the steps of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from zoo.errors import ZooError
from zoo.source import Source
from zoo.study import Result, Task, Work


@dataclass(frozen=True)
class Weights(Task):
    """Read the weights of a network, with its class and arguments for `build`."""

    source: Source
    step: int | None = None
    here = True

    def named_by(self) -> dict[str, Any]:
        """Return a hash of the weights; it does not depend on the file that contains them."""
        return {"weights": self.source.weights_fingerprint(self.step)}

    def do(self, work: Work) -> Result:
        """Return the network's class, its arguments and its tensors."""
        return stored(self.source.load(self.step))

    def seconds(self) -> float:
        """Return the time to import, and to read a small network."""
        return 5.0


def stored(net: Any) -> Result:
    """Return a network's class, its arguments and its tensors, for `build`."""
    tensors = {f"weights.{name}": value.numpy() for name, value in net.state_dict().items()}
    assert all(isinstance(value, np.ndarray) for value in tensors.values())
    return {"class": type(net).__name__, "init_args": net.config, **tensors}


def wanted_steps(words: Sequence[str] | None) -> tuple[int, ...] | Literal["all"] | None:
    """Return the training steps of a setting: None if it is not set, "all", or numbers.

    Raises:
        ZooError: If they are not whole numbers in ascending order.
    """
    words = [word for each in words or () for word in each.replace(",", " ").split()]
    if not words or words == ["all"]:
        return "all" if words else None
    if not all(word.isdecimal() for word in words):
        raise ZooError(f"steps is {' '.join(words)}; expected whole numbers, or all")
    if [int(word) for word in words] != sorted({int(word) for word in words}):
        raise ZooError("steps must be ascending, without repeated values")
    return tuple(map(int, words))


def steps_of(source: Source, wanted: tuple[int, ...] | Literal["all"] | None) -> list[int | None]:
    """Return the wanted steps of a source, ascending; by default the last one, [None] for a source of one step.

    Raises:
        ZooError: If the source does not have them.
    """
    if wanted is None:
        return [source.steps[-1] if source.steps else None]
    here = source.path is not None
    if here and not source.steps:
        raise ZooError(f"{source.name} holds one step only; do not set steps")
    if wanted == "all":
        if not source.steps:
            raise ZooError(f"the steps of {source.name} are not known; list them with --steps")
        return list(source.steps)
    for step in wanted if here else ():
        if step not in source.steps:
            raise ZooError(f"{source.name} has no step {step}; it has {', '.join(map(str, source.steps))}")
    return list(wanted)


def build(weights: Result) -> Any:
    """Return the network, an nn.Module in eval mode without gradients.

    Args:
        weights: Result of `stored`.
    """
    import torch

    from zoo import checkpoints

    state = {
        name.removeprefix("weights."): torch.from_numpy(np.array(value))
        for name, value in weights.items()
        if name.startswith("weights.")
    }
    return checkpoints.build(weights["class"], weights["init_args"], state, weights["class"])
