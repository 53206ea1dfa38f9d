"""`srcsnn train`."""

from typing import Annotated, Literal

import typer

from srcsnn.cli.console import Data, DataRoot, Download, Overwrite, Seed, progress, say

EXAMPLES = "Example: srcsnn train --arch paper-mnist --data mnist -o model.pt"


def train(
    arch: Annotated[str, typer.Option(help="The network: paper-mnist or paper-cifar10.")],
    data: Data,
    output: Annotated[str, typer.Option("--output", "-o", help="Checkpoint to write.")],
    seed: Seed = 0,
    epochs: Annotated[int | None, typer.Option(help="Instead of the protocol's.", min=1)] = None,
    precision: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(help="bfloat16 trains faster on processors that have it."),
    ] = "float32",
    data_root: DataRoot = None,
    download: Download = False,
    overwrite: Overwrite = False,
) -> None:
    """Train one of the paper's networks by the paper's protocol."""
    from dataclasses import asdict, replace

    from srcsnn.checkpoints import check_output, save_new
    from srcsnn.datasets import load_images
    from srcsnn.errors import ConfigError
    from srcsnn.models import ARCHITECTURES
    from srcsnn.plugins import nearest
    from srcsnn.robustness import evaluate
    from srcsnn.training import PROTOCOLS, initialize
    from srcsnn.training import train as run

    if arch not in ARCHITECTURES:
        raise ConfigError(
            f"train knows {', '.join(ARCHITECTURES)}, not {arch!r}{nearest(arch, ARCHITECTURES)}; "
            "train a network of your own with your own script and bring its checkpoint"
        )
    protocol = PROTOCOLS["digits" if data == "digits" else arch]
    protocol = replace(protocol, epochs=epochs or protocol.epochs)
    check_output(output, overwrite=overwrite)
    images = load_images(data, "train", data_root, download)
    test = load_images(data, "test", data_root, download)
    model = initialize(ARCHITECTURES[arch], seed)
    with progress(f"training {arch}") as show:
        run(
            model,
            images.images,
            images.labels,
            protocol,
            seed=seed,
            precision=precision,
            progress=lambda epoch, loss: show(epoch, protocol.epochs),
        )
    origin: dict[str, object] = {
        "command": "train",
        "arch": arch,
        "data": images.name,
        "note": images.note,
    }
    origin |= {"protocol": asdict(protocol), "seed": seed, "precision": precision}
    save_new(output, model, origin, overwrite)
    clean = evaluate(model, test.images, test.labels, distortions=()).cells[0]
    say(f"{output}: {clean.correct} of {clean.total} test images right")
    if images.note:
        say(f"note: {images.note}")
