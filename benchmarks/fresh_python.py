"""Fresh Pythons, and what Linux says of them; imports nothing, because what imports cost is measured."""

import os
import subprocess
import sys


def run(code: str, **environment: str) -> str:
    """What a new Python prints that runs `code` with these environment variables added.

    Raises:
        SystemExit: With what it printed to stderr, if it fails.
    """
    words, variables = [sys.executable, "-c", code], {**os.environ, **environment}
    done = subprocess.run(words, capture_output=True, text=True, env=variables)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def kernel(file: str, key: str) -> int:
    """A number that Linux keeps of this process in `/proc/self/FILE`: in kB in `status`, in bytes in `io`."""
    with open(f"/proc/self/{file}") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key))
