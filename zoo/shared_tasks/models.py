"""Models as tasks, so that they reach workers which have no file of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.source import Source
from zoo.study import Result, Task, Work


@dataclass(frozen=True)
class Weights(Task):
    """The weights of a network, and what `build` needs beside them."""

    source: Source
    step: int | None = None
    here = True

    def named_by(self) -> dict[str, Any]:
        """The weights, whatever holds them."""
        return {"weights": self.source.weights_fingerprint(self.step)}

    def do(self, work: Work) -> Result:
        """The network's class and arguments, and its tensors."""
        net = self.source.load(self.step)
        tensors = {f"weights.{name}": value.numpy() for name, value in net.state_dict().items()}
        assert all(isinstance(value, np.ndarray) for value in tensors.values())
        return {"class": type(net).__name__, "init_args": net.config, **tensors}

    def seconds(self) -> float:
        """To import, and to read a small network."""
        return 5.0


def build(weights: Result) -> Any:
    """The network, an nn.Module in eval mode without gradients.

    Args:
        weights: Result of `Weights`.
    """
    import torch

    from zoo import checkpoints

    state = {
        name.removeprefix("weights."): torch.from_numpy(np.array(value))
        for name, value in weights.items()
        if name.startswith("weights.")
    }
    return checkpoints.build(weights["class"], weights["init_args"], state, weights["class"])
