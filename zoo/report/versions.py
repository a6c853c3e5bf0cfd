"""What a report was made with."""

import platform
from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """Versions of Python, torch, and the zoo if it is installed."""
    found = {"python": platform.python_version()}
    for package in ("torch", "superposition-zoo"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
