"""What `srcsnn.sleep` needs of a recorder."""

import torch

from srcsnn.rasters import LayerLayout, RasterLayout, Recorder
from srcsnn.testing.verdict import judging

__all__ = ["check_recorder"]

_STEPS = 5
_LAYERS = (
    LayerLayout("input", (1, 6, 6), "input"),
    LayerLayout("conv", (3, 4, 4), "conv"),
    LayerLayout("fc", (10,), "linear"),
)


def check_recorder(recorder: Recorder) -> None:
    """Checks that a recorder is what `srcsnn.sleep` needs, by a run of five steps.

    It must not write to the spikes that it is shown: `sleep` shows it a copy, but in `run` an
    observer is shown the network's own. It records that run; make another for a sleep.

    Args:
        recorder: an object with `begin` and `record`, see `srcsnn.rasters.Recorder`.

    Raises:
        ConformanceError: with everything that was found, one line each.
    """
    with judging(recorder, "recorder", "begin", "record") as faults:
        recorder.begin(RasterLayout(_LAYERS, _STEPS, 0.001))
        generator = torch.Generator().manual_seed(0)
        for _ in range(_STEPS):
            for layer in _LAYERS:
                drawn = torch.rand(1, *layer.shape, generator=generator)
                with torch.inference_mode():  # as in a sleep
                    spikes = (drawn < 0.2).float()
                    before = spikes.clone()
                    answer = recorder.record(layer.name, spikes)  # type: ignore[func-returns-value]  # which is looked at
                if not torch.equal(spikes, before):
                    faults.add(f"{layer.name}: it writes to the spikes that it is shown")
                if answer is not None:
                    faults.add("record(...) returns something, which nobody hears")
