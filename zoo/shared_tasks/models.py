"""Tasks that read a model, so that workers without access to its file receive the weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np

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
        net = self.source.load(self.step)
        tensors = {f"weights.{name}": value.numpy() for name, value in net.state_dict().items()}
        assert all(isinstance(value, np.ndarray) for value in tensors.values())
        return {"class": type(net).__name__, "init_args": net.config, **tensors}

    def seconds(self) -> float:
        """Return the time to import, and to read a small network."""
        return 5.0


def build(weights: Result) -> Any:
    """Return the network, an nn.Module in eval mode without gradients.

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
