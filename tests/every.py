"""Every class of the zoo of a kind, found by walking its modules, with arguments that make it small."""

import importlib
import inspect
import pkgutil

import zoo
from zoo.models.sae.variants import variants
from zoo.network import Network

SMALL = {  # by name of the argument
    **{"vocab_size": 20, "context_length": 8, "d_model": 12, "n_layers": 1, "n_heads": 2, "tied": False},
    **{"d_in": 8, "d_sae": 24, "n_atoms": 24, "k": 3, "prefixes": [4, 9]},
    **{
        "n_features": 6,
        "d_hidden": 3,
        "d_mlp": 5,
        "d_out": 4,
        "d_embed": 7,
        "n_circuits": 6,
        "n_slots": 5,
        "d_state": 3,
        "n_seeds": 2,
        "d_head": 2,
    },
}
SAE_VARIANTS = [cls.__name__ for cls in variants().values()]


def modules(*packages):
    """All modules of packages of the zoo, imported."""
    for package in packages:
        root = importlib.import_module(f"zoo.{package}")
        names = [m.name for m in pkgutil.walk_packages(root.__path__, f"{root.__name__}.")]
        yield from (importlib.import_module(name) for name in names if not name.endswith(".kernels"))


def classes(base, *packages):
    """All public concrete classes that derive from a base and are defined in packages of the zoo, by name."""
    found = {}
    for module in modules(*packages):
        for name, cls in vars(module).items():
            is_own = isinstance(cls, type) and cls.__module__ == module.__name__ and not name.startswith("_")
            if is_own and issubclass(cls, base) and not inspect.isabstract(cls):
                found[name] = cls
    return found


def small(cls, **arguments):
    """An object of a class with arguments that make it small."""
    known = inspect.signature(cls).parameters
    return cls(**{name: value for name, value in SMALL.items() if name in known} | arguments)


def sparse(variant, levels):
    """The setting of a sparse autoencoder that makes its codes sparse, at its level if there is one by that name."""
    name, _ = getattr(zoo.models, variant).swept
    return {name: levels[name]} if name in levels else {}


NETWORKS = classes(Network, "models")
