"""Access to all variants of sparse autoencoders by name."""

import importlib
import inspect

from zoo.errors import ZooError
from zoo.models.sae.base import SAE


def variants() -> dict[str, type[SAE]]:
    """Return every variant that `zoo.models` exports. Its key is its class name without "SAE", such as TopK."""
    models = importlib.import_module("zoo.models")
    exported = (getattr(models, name) for name in models.__all__)
    kinds = [c for c in exported if isinstance(c, type) and issubclass(c, SAE) and not inspect.isabstract(c)]
    return {cls.__name__.removesuffix("SAE"): cls for cls in kinds}


def variant(name: str) -> type[SAE]:
    """Return the variant with a name of `variants()`, or your own class, named module.Class.

    Raises:
        ZooError: If there is no such class, or its `swept` does not name the setting that controls sparsity.
    """
    known = variants()
    cls: type = known.get(name, object)
    module, _, own = name.rpartition(".")
    if module:
        try:
            cls = getattr(importlib.import_module(module), own, object)
        except ImportError as error:
            raise ZooError(f"the module of {name} cannot be imported: {error}") from None
    if not issubclass(cls, SAE):
        raise ZooError(
            f"there is no variant {name!r}; the variants are {', '.join(known)}, or module.Class for your own class"
        )
    if not cls.swept[1]:
        raise ZooError(f"{name} must define `swept`: the name of its sparsity setting, and the values to compare")
    return cls
