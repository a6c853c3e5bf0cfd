"""The base of everything that a checkpoint can hold."""

from typing import Any

from zoo.precision import PreciseBuffers


class Network(PreciseBuffers):
    """An nn.Module that can be saved and loaded.

    Its `config` holds the plain arguments of `__init__` that make it again. Derive your own networks from this class,
    at the top level of a module: `zoo.save` and the checkpoints of a run record the class by its name and module, and
    `zoo.load` finds it there once that module has been imported.
    """

    config: dict[str, Any]
    not_for = "Anything but research."  # the last section of the model card: what it must not be used for

    def extra_repr(self) -> str:
        """The arguments that it was made with."""
        return ", ".join(f"{name}={value!r}" for name, value in self.config.items())
