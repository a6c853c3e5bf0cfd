"""What a user named as a source: opened once, and named by what it holds."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


class Source:
    """A model or an embedding: a zoo name, a folder, a file, or a place on the hub.

    Args:
        name: What `zoo.load` or `zoo.embedding` takes.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._fingerprints: dict[Any, str] = {}

    @classmethod
    def open(cls, source: "str | Path | Source") -> "Source":
        return source if isinstance(source, Source) else cls(str(source))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def steps(self) -> tuple[int, ...]:
        from zoo import catalog

        place = catalog.place(self.name)
        if self.name.startswith("hf:") or "{step}" in self.name or not place.is_dir():
            return ()
        return tuple(catalog.steps(place / "steps" if (place / "steps").is_dir() else place))

    def load(self, step: int | None = None) -> "nn.Module":
        from zoo import sources

        return sources.load(*sources.at_step(self.name, step))

    def embedding(self, step: int | None = None) -> "Tensor":
        from zoo import sources

        return sources.embedding(*sources.at_step(self.name, step))

    def tokenizer_json(self, step: int | None = None) -> str | None:
        from zoo import sources

        return sources.tokenizer_json(*sources.at_step(self.name, step))

    def token_strings(self, step: int | None = None) -> list[str] | None:
        from zoo import sources

        return sources.token_strings(*sources.at_step(self.name, step))

    def row_counts(self, step: int | None, n_rows: int) -> "Tensor | None":
        from zoo import sources

        return sources.row_counts(*sources.at_step(self.name, step), n_rows)

    def fingerprint(self, step: int | None = None) -> str:
        import json

        if step not in self._fingerprints:
            W = self.embedding(step)
            counts = self.row_counts(step, len(W))
            text = json.dumps([list(W.shape), self.token_strings(step), None if counts is None else counts.tolist()])
            digest = hashlib.sha256(text.encode())
            digest.update(W.contiguous().numpy().data)
            self._fingerprints[step] = digest.hexdigest()
        return self._fingerprints[step]

    def weights_fingerprint(self, step: int | None = None) -> str:
        if ("weights", step) not in self._fingerprints:
            net = self.load(step)
            digest = hashlib.sha256(f"{type(net).__name__} {net.config}".encode())
            for name, value in net.state_dict().items():
                digest.update(f"{name} {list(value.shape)} {value.dtype}".encode())
                digest.update(value.contiguous().view(-1).numpy().data)
            self._fingerprints["weights", step] = digest.hexdigest()
        return self._fingerprints["weights", step]
