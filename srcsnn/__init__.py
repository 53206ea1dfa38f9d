"""Sleep for convolutional networks: a trained CNN sleeps as a spiking network and comes back.

The names below are imported when they are first used, so that the command line starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srcsnn.automatic import Settled, settle
    from srcsnn.checkpoints import load_checkpoint, load_into, save_checkpoint
    from srcsnn.config import AutoConfig, SleepConfig, load_config
    from srcsnn.consolidation import SleepResult, sleep
    from srcsnn.datasets import ImageSet, load_images
    from srcsnn.neurons import LIF, Leaky, SnnTorch
    from srcsnn.plasticity import IncDec, Oja, PairSTDP, Rule, plastic
    from srcsnn.preparation import prepare
    from srcsnn.rasters import RecordPolicy, open_raster
    from srcsnn.replay import (
        ClassMeans,
        MovingWindow,
        PoissonMean,
        RealImages,
        Replay,
        UniformNoise,
    )
    from srcsnn.report import Report
    from srcsnn.robustness import Robustness, evaluate

__all__ = [
    "LIF",
    "AutoConfig",
    "ClassMeans",
    "ImageSet",
    "IncDec",
    "Leaky",
    "MovingWindow",
    "Oja",
    "PairSTDP",
    "PoissonMean",
    "RealImages",
    "RecordPolicy",
    "Replay",
    "Report",
    "Robustness",
    "Rule",
    "Settled",
    "SleepConfig",
    "SleepResult",
    "SnnTorch",
    "UniformNoise",
    "evaluate",
    "load_checkpoint",
    "load_config",
    "load_images",
    "load_into",
    "open_raster",
    "plastic",
    "prepare",
    "save_checkpoint",
    "settle",
    "sleep",
]

_HOMES = {
    "automatic": ("Settled", "settle"),
    "checkpoints": ("load_checkpoint", "load_into", "save_checkpoint"),
    "config": ("AutoConfig", "SleepConfig", "load_config"),
    "consolidation": ("SleepResult", "sleep"),
    "datasets": ("ImageSet", "load_images"),
    "neurons": ("LIF", "Leaky", "SnnTorch"),
    "plasticity": ("IncDec", "Oja", "PairSTDP", "Rule", "plastic"),
    "preparation": ("prepare",),
    "rasters": ("RecordPolicy", "open_raster"),
    "replay": (
        "ClassMeans",
        "MovingWindow",
        "PoissonMean",
        "RealImages",
        "Replay",
        "UniformNoise",
    ),
    "report": ("Report",),
    "robustness": ("Robustness", "evaluate"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'srcsnn' has no attribute {name!r}")
    value: object = getattr(import_module(f"srcsnn.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
