"""The base class of all networks that a checkpoint can contain."""

from typing import Any

from zoo.precision import PreciseBuffers


class Network(PreciseBuffers):
    """An nn.Module that can be saved and loaded.

    Its `config` holds the arguments of `__init__`, as plain values, that rebuild it. Your own networks must be
    subclasses of this class, defined at the top level of a module. `zoo.save` and the checkpoints of a run store the
    names of the class and of its module. `zoo.load` finds the class by these names if the module has been imported.
    """

    config: dict[str, Any]
    not_for = "Anything but research."  # the last section of the model card: what it must not be used for

    def extra_repr(self) -> str:
        """Return the arguments of `__init__`, for `repr`."""
        return ", ".join(f"{name}={value!r}" for name, value in self.config.items())
