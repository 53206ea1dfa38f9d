"""A real sleep on MNIST, killed at random moments while it records.

Four times here; `SRCSNN_KILLS=50 pytest tests/rasters/test_raster_kills.py` kills it more often.
"""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from srcsnn.rasters.salvage import repair
from srcsnn.rasters.validation import validate

KILLS = int(os.environ.get("SRCSNN_KILLS", "4"))
MNIST = Path(os.environ.get("SRCSNN_DATA", "nowhere"))

# One process loads everything and forks: torch takes seconds to import, a sleep one.
RUN = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import srcsnn
from srcsnn.config import load_config
from srcsnn.datasets import load_images
from srcsnn.models import paper_mnist
from srcsnn.training import initialize

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
images = load_images("mnist", "train", os.environ["SRCSNN_DATA"]).images[:2000]
model = initialize(paper_mnist, 0)
config = load_config("paper-mnist").with_changes(steps=4000, thresholds=(1.0, 1.0))

def sleeping(name):
    pid = os.fork()
    if not pid:
        srcsnn.sleep(model, images, config=config, seed=0, raster=folder / name)
        os._exit(0)
    while not (folder / (name + ".part")).exists():
        time.sleep(0.001)
    return pid

started = time.monotonic()
assert os.waitpid(sleeping("whole.h5"), 0)[1] == 0
seconds = time.monotonic() - started
moments = random.Random(0)
for kill in range(kills):
    pid = sleeping(f"{kill}.h5")
    time.sleep(moments.uniform(0, 0.8 * seconds))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


@pytest.mark.skipif(not (MNIST / "MNIST").is_dir(), reason="needs MNIST in SRCSNN_DATA")
@pytest.mark.timeout(60 + 30 * KILLS)
def test_what_is_killed_is_exact_up_to_its_last_block(tmp_path, record_property):
    subprocess.run([sys.executable, "-c", RUN, str(tmp_path), str(KILLS)], check=True)
    kept, finished = [], 0
    with h5py.File(tmp_path / "whole.h5") as whole:
        assert whole["complete"][0] == 1
        assert whole["layers/conv2/counts_n"][...].sum() > 1000
        for kill in range(KILLS):
            killed = tmp_path / f"{kill}.h5.part"
            if not killed.exists():  # it was faster than the unbroken run
                assert compared(tmp_path / f"{kill}.h5", whole) == 4000
                finished += 1
                continue
            kept.append(compared(killed, whole))
            assert validate(killed).violations == () or kept[-1] == 0
            if kept[-1]:
                assert repair(killed, tmp_path / "saved.h5").rows == kept[-1]
    record_property("kept", kept)
    print(f"kept of 4,000 steps: {sorted(kept)}; {finished} had finished")
    assert max(kept) > 0
    assert len(kept) >= KILLS // 2


def compared(path, whole):
    """How many rows of a killed file count; they must be those of the unbroken run."""
    with h5py.File(path) as file:
        rows = int(file["steps_valid"][0])
        for name, layer in file["layers"].items():
            for dataset in "bits", "counts_ct":
                expected = whole["layers"][name][dataset][:rows]
                assert np.array_equal(layer[dataset][:rows], expected)
    return rows
