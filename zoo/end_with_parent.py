"""A process that another one has started for its own work ends when that one has ended, however it did."""

import os
import threading

STARTED_BY = "ZOO_STARTED_BY"  # environment variable: the process that a `python -m zoo` has to end with
LOOK_EVERY = 0.2  # seconds

_others_watch = threading.Event()


def for_children() -> dict[str, str]:
    """What to add to the environment of a `python -m zoo` that has to end with this process."""
    return {STARTED_BY: str(os.getpid())}


def end_with_starter() -> None:
    """End with the process that has started this one by an environment of `for_children`, if one has."""
    if starter := os.environ.pop(STARTED_BY, None):
        end_with(int(starter))


def end_with(parent: int) -> None:
    """End this process, with code 1, as soon as the process `parent` is not its parent any more."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def let_others_watch() -> None:
    """Stop watching the parent, because from now on somebody else does."""
    _others_watch.set()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        if _others_watch.wait(LOOK_EVERY):
            return
    os._exit(1)
