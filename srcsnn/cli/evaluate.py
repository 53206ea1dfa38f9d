"""`srcsnn evaluate`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from srcsnn.cli.console import (
    Arch,
    Data,
    DataRoot,
    Download,
    Overwrite,
    Seed,
    load_model,
    progress,
    say,
)

EXAMPLES = "Example: srcsnn evaluate model.pt slept.pt --arch paper-mnist --data mnist"


def evaluate(
    checkpoints: Annotated[
        list[str], typer.Argument(help="One or more; the first is compared to.")
    ],
    arch: Arch,
    data: Data,
    distortions: Annotated[
        str | None,
        typer.Option(
            help="gn, gb, sp, se, with commas. Without: gn, gb and sp for grey images, all four "
            "for colour."
        ),
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="JSON of counts.")] = None,
    figure: Annotated[
        str | None, typer.Option(help="Accuracy against intensity: .png .svg .pdf")
    ] = None,
    seed: Seed = 0,
    data_root: DataRoot = None,
    download: Download = False,
    overwrite: Overwrite = False,
) -> None:
    """Accuracy on the test images, clean and distorted, of several checkpoints side by side."""
    from srcsnn.checkpoints import load_checkpoint, versions
    from srcsnn.datasets import load_images
    from srcsnn.distortions import parse_distortions
    from srcsnn.drawing import check_figures
    from srcsnn.errors import ConfigError, DatasetError, SrcsnnError
    from srcsnn.figures import accuracy_figure
    from srcsnn.files import check_distinct, check_target, write_json
    from srcsnn.robustness import evaluate as run
    from srcsnn.tables import robustness_table

    real = [os.path.realpath(path) for path in checkpoints]
    twice = [path for path in checkpoints if real.count(os.path.realpath(path)) > 1]
    if twice:
        raise ConfigError(f"one file twice: {', '.join(twice)}; name each checkpoint once")
    written = {"the counts": output, "the figure": figure}
    for path in checkpoints:
        check_distinct(written, read={"a checkpoint to read": path, "the data to read": data})
    if figure is not None:
        check_figures(figure)
    chosen = None if distortions is None else parse_distortions(distortions)
    for target in (output, figure):
        if target is not None:
            check_target(target, overwrite=overwrite)
    loaded = {path: load_checkpoint(path) for path in checkpoints}
    models = {path: load_model(arch, checkpoint) for path, checkpoint in loaded.items()}
    images = load_images(data, "test", data_root, download)
    results = {}
    for path, model in models.items():
        with progress(f"evaluating {path}") as show:
            try:
                results[path] = run(
                    model,
                    images.images,
                    images.labels,
                    distortions=chosen,
                    seed=seed,
                    progress=show,
                )
            except DatasetError as problem:
                raise DatasetError(f"{path} on {images.source}: {problem}") from problem
    say(robustness_table(results))
    if images.note:
        say(f"note: {images.note}")
    if output is not None:
        write_json(
            output,
            {
                "arch": arch,
                "data": {"name": images.name, "split": images.split, "note": images.note},
                "versions": versions(),
                "checkpoints": [
                    {"path": path, "sha256": loaded[path].sha256, **result.to_dict()}
                    for path, result in results.items()
                ],
            },
            error=SrcsnnError,
        )
        say(f"counts: {output}")
    if figure is not None:
        accuracy_figure(results, Path(figure), title=images.note or None)
        say(f"figure: {figure}")
