"""All sparse autoencoders by name, for what compares them."""

import importlib
import inspect

from zoo.errors import ZooError
from zoo.models.sae.base import SAE


def variants() -> dict[str, type[SAE]]:
    """Every variant that `zoo.models` exports, by its name without "SAE", such as TopK."""
    models = importlib.import_module("zoo.models")
    exported = (getattr(models, name) for name in models.__all__)
    kinds = [c for c in exported if isinstance(c, type) and issubclass(c, SAE) and not inspect.isabstract(c)]
    return {cls.__name__.removesuffix("SAE"): cls for cls in kinds}


def variant(name: str) -> type[SAE]:
    """The variant of a name in `variants`, or your own, named module.Class.

    Raises:
        ZooError: If there is none, or it does not say in `swept` which setting makes its codes sparse.
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
            f"there is no variant {name!r}; the variants are {', '.join(known)}, or module.Class for one of your own"
        )
    if not cls.swept[1]:
        raise ZooError(f"{name} has no `swept`: the name of its sparsity setting, and the values to compare")
    return cls
