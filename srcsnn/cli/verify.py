"""`srcsnn verify`."""

from typing import Annotated

import typer

from srcsnn.cli.console import (
    Arch,
    Data,
    DataRoot,
    Download,
    Seed,
    Trained,
    load_model,
    progress,
    say,
)

EXAMPLES = "Example: srcsnn verify model.pt --arch paper-mnist --data mnist --classify 100"


def verify(
    checkpoint: Trained,
    arch: Arch,
    data: Data,
    layers: Annotated[str, typer.Option(help="conv, all, or names with commas.")] = "conv",
    steps: Annotated[int, typer.Option(help="Time steps for each image.", min=1)] = 100,
    classify: Annotated[
        int, typer.Option(help="Also classify test images by spikes, for this many steps.", min=0)
    ] = 0,
    seed: Seed = 0,
    data_root: DataRoot = None,
    download: Download = False,
) -> None:
    """Compare a checkpoint with its spiking network, before anything sleeps."""
    from converters import measure
    from srcsnn import verification
    from srcsnn.checkpoints import load_checkpoint
    from srcsnn.cli.settings import parse_layers
    from srcsnn.datasets import load_images
    from srcsnn.robustness import evaluate
    from srcsnn.tables import verification_table

    loaded = load_checkpoint(checkpoint)
    model = load_model(arch, loaded)
    images = load_images(data, "train", data_root, download).images
    chosen = parse_layers(layers)
    found = verification.verify(model, images, seed=seed, layers=chosen, steps=steps)
    say(verification_table(found))
    say(
        f"the copy that sleeps, with BatchNorm and the like folded in, differs from the CNN by "
        f"{found.difference:.1e} of its largest output"
    )
    if classify:
        test = load_images(data, "test", data_root, download)
        with progress("classifying by spikes"):
            scales = measure(model, images, layers="all")
            spiking = verification.classify(
                model, test.images, test.labels, seed=seed, steps=classify, scales=scales
            )
        plain = evaluate(model, test.images, test.labels, distortions=[]).clean
        say(f"test images: {plain:.2%} by the CNN, {spiking:.2%} by spikes in {classify} steps")
