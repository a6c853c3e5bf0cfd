"""Base class of training loaders that can be resumed exactly, because a batch is a function of the step."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor


class ResumableLoader(ABC):
    """Loader of endless batches, one epoch per iteration.

    Its state is the number of batches drawn so far, which is the same on every rank.
    """

    def __init__(self) -> None:
        self.position = 0

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    @abstractmethod
    def batch(self, step: int) -> dict[str, Tensor]:
        """Return this rank's part of global batch `step`."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        end = (self.position // len(self) + 1) * len(self)
        while self.position < end:
            batch = self.batch(self.position)
            self.position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches drawn so far."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the number of batches in a saved state."""
        self.position = state["position"]
