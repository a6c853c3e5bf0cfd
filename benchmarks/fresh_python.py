"""Functions to run code in a new Python process, and to read what Linux measures of a process.

This module imports only the standard library, because the time of imports is measured.
"""

import os
import subprocess
import sys


def run(code: str, **environment: str) -> str:
    """Run `code` in a new Python process with additional environment variables, and return what it prints.

    Raises:
        SystemExit: If the process fails, with its stderr as the message.
    """
    words, variables = [sys.executable, "-c", code], {**os.environ, **environment}
    done = subprocess.run(words, capture_output=True, text=True, env=variables)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def kernel(file: str, key: str) -> int:
    """Return a number from `/proc/self/FILE` of this process: in kB from `status`, in bytes from `io`."""
    with open(f"/proc/self/{file}") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key))
