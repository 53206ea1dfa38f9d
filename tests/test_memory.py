"""What becomes of memory that is freed."""

import os
import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, threading, torch
from srcsnn.memory import keep_freed

def step():
    torch.empty(4_000_000).fill_(1), torch.empty(2_000_000).fill_(1)

def work():
    if {kept}:
        keep_freed()
    for _ in range(30):  # until all blocks have found their places
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is asked to keep it")
@pytest.mark.parametrize("kept", [False, True])
def test_pages_are_not_made_again_in_a_worker_of_dask(kept):
    """Dask sets this variable for its workers, and their work is done in a thread."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(kept=kept)],
        env=os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"},
        capture_output=True,
        check=True,
        text=True,
    )
    faults = int(done.stdout)
    assert faults < 1_000 if kept else faults > 30_000
