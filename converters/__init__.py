"""Turns a trained CNN into a spiking network and back.

Knows torch and nothing about sleep, snnTorch, files or the command line.
"""

from converters.assembly import Bias
from converters.conversion import measure, simulate, spiking_layers, to_ann, to_snn, unslept
from converters.errors import ConversionError
from converters.normalization import Diehl, Legacy, Normalization, Percentile, Scale
from converters.sites import Layers
from converters.spiking import (
    Layer,
    Listener,
    Neuron,
    Neurons,
    SpikingNetwork,
    Synapse,
    Unit,
    listening,
)

__all__ = [
    "Bias",
    "ConversionError",
    "Diehl",
    "Layer",
    "Layers",
    "Legacy",
    "Listener",
    "Neuron",
    "Neurons",
    "Normalization",
    "Percentile",
    "Scale",
    "SpikingNetwork",
    "Synapse",
    "Unit",
    "listening",
    "measure",
    "simulate",
    "spiking_layers",
    "to_ann",
    "to_snn",
    "unslept",
]
