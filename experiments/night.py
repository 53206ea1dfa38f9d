"""A night that is looked at on its way: accuracy, rates and weight change after every few steps."""

from typing import Any

import srcsnn
from converters import to_ann, unslept
from experiments.cells import Cell
from experiments.place import Place, distortions_of
from srcsnn import load_config, prepare
from srcsnn.night import run
from srcsnn.report import SpikeCounter, report_layer
from srcsnn.seeding import stream

__all__ = ["spread", "trajectory"]


def spread(total: int, count: int) -> slice:
    """About `count` of so many images, from all over the set: some sets are sorted by class.

    >>> spread(10_000, 1000)
    slice(None, None, 10)
    """
    return slice(None, None, max(1, total // count))


def trajectory(cell: Cell, place: Place) -> list[dict[str, Any]]:  # Any: JSON
    """The night of the sleep cell, with the network measured again and again on its way."""
    model, settings = place.network(cell.inputs[0]), cell.settings
    chosen = spread(len(place.images.test), settings["spread"])
    images, labels = place.images.test[chosen], place.images.test_labels[chosen]
    config = load_config(settings["config"])
    snn = prepare(model, place.images.train, config)
    every = max(1, config.steps // settings["snapshots"])
    counter = SpikeCounter()
    found: list[dict[str, Any]] = []  # Any: JSON

    def look(step: int, steps: int) -> None:
        if step % every and step < steps:
            return
        counts = srcsnn.evaluate(
            to_ann(snn, model), images, labels, distortions=distortions_of(cell), seed=cell.trial
        )
        layers = [
            report_layer(u, unslept(u, model), counter.counts[u.layer.name] / step, config.dt_s)
            for u in snn.units
            if step
        ]
        found.append({
            "step": step,
            "clean": counts.clean,
            "mean": counts.mean(),
            "rate": {layer.name: layer.rate for layer in layers},
            "change": {layer.name: layer.change for layer in layers},
        })  # fmt: skip

    look(0, config.steps)
    run(
        snn,
        config.make_replay(place.images.train.mean(0)),
        config.make_rules([unit.name for unit in snn.sleeping]),
        steps=config.steps,
        generator=stream(cell.trial, "sleep"),
        observers=[counter.see],
        progress=look,
    )
    return found
