"""Functions for paths given by users: they expand `~` and `$VARIABLE`, and make folders."""

import os
from pathlib import Path

from zoo.errors import ZooError


def expanded(path: str | Path) -> Path:
    """Return a path with `~` and `$VARIABLE` expanded as in a shell; a variable that is not set is left unchanged."""
    return Path(os.path.expanduser(os.path.expandvars(path)))


def make_folder(folder: Path, setting: str) -> None:
    """Make a folder and its parent folders, unless they exist.

    Args:
        folder: The folder.
        setting: Name of the setting with which the user can choose another folder, for the error message.

    Raises:
        ZooError: If the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ZooError(f"the folder {folder} cannot be made: {reason}; choose another one with {setting}") from None
