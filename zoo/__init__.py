"""superposition-zoo: what does a transformer's token embedding contain that superposition does not explain?"""

from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.catalog import info, list_models
    from zoo.checkpoints import save
    from zoo.sources import embedding, load

__version__ = "0.1.0"
__all__ = ["ZooError", "embedding", "info", "list_models", "load", "save"]

_HOMES = {
    "embedding": "zoo.sources",
    "info": "zoo.catalog",
    "list_models": "zoo.catalog",
    "load": "zoo.sources",
    "save": "zoo.checkpoints",
}


def __getattr__(name: str) -> Any:
    """Import a function's home only when it is asked for, so that `import zoo` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
