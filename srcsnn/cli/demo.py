"""`srcsnn demo`."""

from pathlib import Path
from typing import Annotated

import typer

from srcsnn.cli.console import Seed, progress, say

EXAMPLES = "Example: srcsnn demo --folder my-first-night"


def demo(
    folder: Annotated[Path, typer.Option(help="Where to leave the files.")] = Path("srcsnn-demo"),
    seed: Seed = 0,
) -> None:
    """Train a small network on digits, let it sleep, and show what changed. No download.

    Files of an earlier demo in the folder are replaced.
    """
    import logging

    from srcsnn.checkpoints import load_checkpoint, save_checkpoint, save_new, versions
    from srcsnn.consolidation import sleep
    from srcsnn.datasets import load_images
    from srcsnn.drawing import check_figures
    from srcsnn.errors import SrcsnnError
    from srcsnn.figures import accuracy_figure
    from srcsnn.files import write_json
    from srcsnn.models import paper_mnist
    from srcsnn.robustness import evaluate
    from srcsnn.tables import report_table, robustness_table
    from srcsnn.training import PROTOCOLS, initialize, train

    check_figures()
    logging.disable(logging.INFO)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise SrcsnnError(
            f"cannot make the folder {folder}: {cause.strerror}; choose another with --folder"
        ) from cause
    training, test = load_images("digits", "train"), load_images("digits", "test")
    protocol = PROTOCOLS["digits"]
    model = initialize(paper_mnist, seed)
    with progress("training on 1,348 digits") as show:
        train(
            model, training.images, training.labels, protocol, seed=seed,
            progress=lambda epoch, loss: show(epoch, protocol.epochs),
        )  # fmt: skip
    origin = {"command": "demo", "seed": seed}
    save_new(folder / "model.pt", model, origin, overwrite=True)
    with progress("sleeping") as show:
        night = sleep(
            model, training.images, "digits", seed=seed, raster=folder / "run.h5", overwrite=True,
            provenance=origin, progress=show,
        )  # fmt: skip
    origin |= {"config": night.config.model_dump(), "report": night.report.to_dict()}
    save_checkpoint(
        folder / "slept.pt", load_checkpoint(folder / "model.pt"), night.model, origin,
        overwrite=True,
    )  # fmt: skip
    results = {}
    for name, network in (("baseline", model), ("slept", night.model)):
        with progress(f"evaluating the {name} network") as show:
            results[name] = evaluate(network, test.images, test.labels, seed=seed, progress=show)
    counts = {name: result.to_dict() for name, result in results.items()}
    write_json(folder / "result.json", {**origin, "versions": versions(), "results": counts})
    accuracy_figure(results, folder / "accuracy.png")
    say(report_table(night.report))
    say(robustness_table(results))
    gain = 100 * (results["slept"].mean() - results["baseline"].mean())
    say(f"sleep changed the mean accuracy over distortions by {gain:+.1f} points.")
    say(f"in {folder}/: model.pt, slept.pt (checkpoints), run.h5 (spikes), result.json (counts),")
    say(f"accuracy.png (the figure). Next: srcsnn inspect {folder / 'run.h5'}")
