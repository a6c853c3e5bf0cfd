"""Paths that a user writes: what `~` and `$VARIABLE` in them stand for, and folders that cannot be made."""

import os
from pathlib import Path

from zoo.errors import ZooError


def expanded(path: str | Path) -> Path:
    """A path as the shell would read it; a variable that is not set stays as it is written."""
    return Path(os.path.expanduser(os.path.expandvars(path)))


def make_folder(folder: Path, setting: str) -> None:
    """Make a folder, and those above it, unless it is there.

    Args:
        folder: The folder.
        setting: What the user may set to name another one.

    Raises:
        ZooError: If that is not allowed or not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ZooError(f"the folder {folder} cannot be made: {reason}; name another one by {setting}") from None
