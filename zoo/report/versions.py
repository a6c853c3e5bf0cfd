"""Versions of the software with which a report was made."""

import platform
from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """Return the versions of Python, torch and the zoo, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in ("torch", "superposition-zoo"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
