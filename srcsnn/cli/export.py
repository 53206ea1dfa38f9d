"""`srcsnn export`."""

import io
from pathlib import Path
from typing import Annotated

import typer

from srcsnn.cli.console import (
    Arch,
    Config,
    Data,
    DataRoot,
    Download,
    Overwrite,
    Seed,
    Set,
    Trained,
    explicit,
    load_model,
    say,
)

EXAMPLES = "Example: srcsnn export slept.pt --arch paper-mnist --data mnist -o slept.nir"


def export(
    checkpoint: Trained,
    arch: Arch,
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="The NIR file to write.")],
    config: Config = "auto",
    set_: Set = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    data_root: DataRoot = None,
    download: Download = False,
) -> None:
    """Write the spiking network of a checkpoint in NIR."""
    from srcsnn.checkpoints import load_checkpoint
    from srcsnn.cli.settings import settings_of
    from srcsnn.datasets import load_images
    from srcsnn.errors import ConfigError
    from srcsnn.files import check_distinct, check_target, write_atomically
    from srcsnn.preparation import prepare

    try:
        import nir

        from srcsnn.nir_graph import to_nir
    except ModuleNotFoundError as cause:
        raise ConfigError('export needs NIR: pip install "srcsnn[nir]"') from cause
    check_distinct(
        {"the NIR file": output},
        read={
            "the checkpoint to read": checkpoint,
            "the data to read": data,
            "the settings to read": config,
        },
    )
    check_target(output, overwrite=overwrite, error=ConfigError)
    loaded = load_checkpoint(checkpoint)
    asked = settings_of(config, set_)
    model = load_model(arch, loaded)
    images = load_images(data, "train", data_root, download)
    settings, scales = explicit(model, images.images, asked, seed)
    snn = prepare(model, images.images, settings, scales=scales)
    graph = to_nir(snn, tuple(images.images.shape[1:]), dt_s=settings.dt_s)
    buffer = io.BytesIO()
    nir.write(buffer, graph)
    write_atomically(output, lambda file: file.write(buffer.getvalue()))
    say(f"{len(graph.nodes)} nodes, steps of {1000 * settings.dt_s:g} ms: {output}")
