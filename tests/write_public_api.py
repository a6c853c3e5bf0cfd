"""Writes docs/public_api.md from the packages: `python tests/write_public_api.py`."""

import importlib
import inspect
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "public_api.md"
OPENING = """# Public API

Names on this page keep their meaning and their arguments within a minor version (0.1, 0.2, ...). Every change of one is
listed in [CHANGELOG.md](../CHANGELOG.md). Anything that is not listed may change at any time. The same holds for names
that begin with an underscore.

Also part of the promise: the commands and options that `python -m zoo --help` lists, the names of shipped checkpoints
and configs, and the [format of checkpoints](checkpoint_format.md). Runs and checkpoints of every earlier version load.
"""
PACKAGES = {
    "zoo": "Load, list, save and share checkpoints.",
    "zoo.models": "Networks, and the LightningModules that train them.",
    "zoo.models.sae": "What your own sparse autoencoder is made of.",
    "zoo.models.sparse_coding": "Sparse coding with certificates.",
    "zoo.models.toy": "Toy networks and their theory.",
    "zoo.datamodules": "Batches of text, embedding rows, activations and synthetic features.",
    "zoo.callbacks": "Measuring, saving and stopping.",
    "zoo.metrics": "Metrics for training and for notebooks.",
    "zoo.local_learning": "The local learning coefficient: samplers, results and diagnostics.",
    "zoo.protocols": "What datamodules, modules and callbacks may ask of one another.",
    "zoo.study": "Studies of your own, see [studies](studies.md).",
    "zoo.report": "Their reports.",
    "zoo.estimates": "Means and differences with 95 % intervals.",
    "zoo.null_models": "Random rows that keep chosen properties of a matrix.",
}


def public(package):
    """The names that a package or module promises, in order."""
    names = getattr(package, "__all__", None)
    if names is None:
        own = {n: o for n, o in vars(package).items() if getattr(o, "__module__", None) == package.__name__}
        names = [n for n, o in own.items() if not n.startswith("_") and (inspect.isclass(o) or inspect.isfunction(o))]
    return sorted(names, key=lambda name: (not name[0].isupper(), name.lower()))


def sentence(thing):
    """The first sentence of a docstring, on one line."""
    text = " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
    return text.replace("|", "\\|")


def page():
    """The text of the page."""
    parts = [OPENING]
    for name, what in PACKAGES.items():
        package = importlib.import_module(name)
        parts += [f"\n## `{name}`\n\n{what}\n\n| | |\n|---|---|\n"]
        for member in public(package):
            thing = getattr(package, member)
            text = sentence(thing) if inspect.isclass(thing) or inspect.isfunction(thing) else ""
            parts.append(f"| `{member}` | {text} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
