import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import gc
import numpy as np
from zoo.free_memory import free_memory

def megabytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1e3

class Own:
    def __init__(self, array):
        self.array, self.itself = array, self

gc.disable()
free_memory()
before = megabytes()
kept = [Own(np.ones(10_000)) for _ in range(2_000)]  # 160 MB in parts of 80 kB
used = megabytes()
kept = [own.array for own in kept[::50]]  # what stays lies between what goes
free_memory()
print(before, used, megabytes())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs the C library glibc"
)
def test_memory_that_is_not_used_goes_back_to_the_operating_system():
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    before, used, after = map(float, told.split())
    assert used > before + 150
    assert after < before + 30
