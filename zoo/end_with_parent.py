"""Functions with which a child process ends as soon as its parent process has ended, also if the parent was killed."""

import os
import threading

STARTED_BY = "ZOO_STARTED_BY"  # environment variable: id of the process with which a `python -m zoo` has to end
LOOK_EVERY = 0.2  # seconds

_others_watch = threading.Event()


def for_children() -> dict[str, str]:
    """Return the environment variables for a `python -m zoo` that has to end with this process."""
    return {STARTED_BY: str(os.getpid())}


def end_with_starter() -> None:
    """Make this process end with its parent, if the parent started it with the variables of `for_children`."""
    if starter := os.environ.pop(STARTED_BY, None):
        end_with(int(starter))


def end_with(parent: int) -> None:
    """Make this process end, with exit code 1, as soon as the process `parent` is no longer its parent."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def let_others_watch() -> None:
    """Stop watching the parent, because another process watches it from now on."""
    _others_watch.set()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        if _others_watch.wait(LOOK_EVERY):
            return
    os._exit(1)
