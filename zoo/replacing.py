"""Folders that are written as a whole, in the place of an older one or not at all."""

import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import ZooError

STEP = re.compile(r"step-\d+")


@contextmanager
def replacing(folder: Path, files: Collection[str]) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when the block ends well, and vanishes otherwise.

    Args:
        folder: What is replaced, if it is there; a link stays one.
        files: Names of the files that an older one may hold, itself or in folders of steps.

    Raises:
        ZooError: If anything else is in `folder`.
    """
    folder = folder.resolve()
    _check(folder, files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield new
        new.chmod(0o755)
        if not folder.exists():
            os.replace(new, folder)
            return
        old = new.with_name(f"{new.name}.old")
        os.replace(folder, old)
        try:
            os.replace(new, folder)
        except OSError:
            os.replace(old, folder)
            raise
        shutil.rmtree(old)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _check(folder: Path, files: Collection[str]) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ZooError(f"{folder} is a file; choose another folder")
    if folder == Path.cwd():
        raise ZooError(f"{folder} is the current folder, which cannot be replaced; name one in it")
    for path in folder.iterdir():
        inside = list(path.iterdir()) if path.is_dir() and STEP.fullmatch(path.name) else [path]
        if strange := [p for p in inside if p.name not in files or p.is_dir()]:
            raise ZooError(f"{folder} holds other things ({strange[0].relative_to(folder)}); choose another folder")
