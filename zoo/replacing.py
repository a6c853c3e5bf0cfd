"""A context manager that writes a folder completely or not at all, and replaces an older folder."""

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
    """Yield a new folder, which replaces `folder` if the block ends without an error, and is deleted otherwise.

    Args:
        folder: Folder to replace; it need not exist. If it is a link, the folder that it points to is replaced.
        files: Names of the files that the older folder may hold, directly or in the subfolders of steps.

    Raises:
        ZooError: If `folder` holds anything else.
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
        raise ZooError(f"{folder} is the current folder, which cannot be replaced; choose a folder in it")
    for path in folder.iterdir():
        inside = list(path.iterdir()) if path.is_dir() and STEP.fullmatch(path.name) else [path]
        if strange := [p for p in inside if p.name not in files or p.is_dir()]:
            raise ZooError(f"{folder} holds other files ({strange[0].relative_to(folder)}); choose another folder")
