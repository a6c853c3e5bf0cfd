"""What loaders share whose batches are a function of the step."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor


class ResumableLoader(ABC):
    """Endless batches, one epoch per iteration; its state is the number of batches drawn, the same on every rank."""

    def __init__(self) -> None:
        self.position = 0

    @abstractmethod
    def __len__(self) -> int:
        """Batches in an epoch."""

    @abstractmethod
    def batch(self, step: int) -> dict[str, Tensor]:
        """This rank's part of global batch `step`."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        end = (self.position // len(self) + 1) * len(self)
        while self.position < end:
            batch = self.batch(self.position)
            self.position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches drawn so far."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches drawn before."""
        self.position = state["position"]
