"""`srcsnn sleep`."""

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
    load_model,
    progress,
    say,
)

EXAMPLES = (
    "Example: srcsnn sleep model.pt --arch paper-mnist --data mnist --config paper-mnist "
    "-o slept.pt --raster run.h5"
)


def sleep(
    checkpoint: Trained,
    arch: Arch,
    data: Data,
    output: Annotated[str, typer.Option("--output", "-o", help="Checkpoint to write.")],
    config: Config = "auto",
    save_config: Annotated[
        str | None, typer.Option(help="TOML file for the settings that it sleeps with.")
    ] = None,
    raster: Annotated[str | None, typer.Option(help="HDF5 file for the spikes.")] = None,
    record_layers: Annotated[
        list[str] | None, typer.Option(help="Layers to record, * matches; repeat for more.")
    ] = None,
    record_every: Annotated[int, typer.Option(help="Record every k-th step.", min=1)] = 1,
    counts_only: Annotated[
        bool, typer.Option("--counts-only", help="Record spike counts, not spikes.")
    ] = False,
    set_: Set = None,
    seed: Seed = 0,
    data_root: DataRoot = None,
    download: Download = False,
    overwrite: Overwrite = False,
) -> None:
    """Put a checkpoint to sleep; write it again, same keys, with the slept weights.

    Activations are measured on the training images; the labels are not used. Without --config, the
    settings are found in the network: a firing rate for every layer, and a dose of change that
    keeps the classes of the training images.
    """
    import logging

    from rich.console import Console
    from rich.logging import RichHandler

    from srcsnn.checkpoints import check_output, load_checkpoint, save_checkpoint
    from srcsnn.cli.settings import settings_of
    from srcsnn.consolidation import sleep as run
    from srcsnn.datasets import load_images
    from srcsnn.errors import ConfigError
    from srcsnn.files import check_distinct, check_target, write_text
    from srcsnn.rasters import RecordPolicy
    from srcsnn.tables import report_table

    logging.basicConfig(
        level="INFO",
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False, show_time=False)],
    )
    if raster is None and (record_layers or record_every > 1 or counts_only):
        raise ConfigError("nothing is recorded without --raster; name a file for the spikes")
    beside = {"the raster": raster, "the settings to write": save_config}
    check_distinct(beside, read={"the checkpoint to read": checkpoint})
    check_distinct(
        {"the new checkpoint": output, "its provenance": f"{output}.json", **beside},
        read={"the data to read": data, "the settings to read": config},
    )
    loaded = load_checkpoint(checkpoint)
    settings = settings_of(config, set_)
    check_output(output, loaded, overwrite=overwrite)
    if save_config:
        check_target(save_config, overwrite=overwrite, error=ConfigError)
    model = load_model(arch, loaded)
    images = load_images(data, "train", data_root, download)
    origin: dict[str, object] = {
        "command": "sleep",
        "arch": arch,
        "data": images.name,
        "note": images.note,
        "input": str(loaded.path),
    }
    policy = RecordPolicy(
        layers=tuple(record_layers or ["*"]), every=record_every, counts_only=counts_only
    )
    with progress("sleeping") as show:
        try:
            result = run(
                model,
                images.images,
                settings,
                seed=seed,
                raster=raster,
                record=policy,
                overwrite=overwrite,
                provenance=origin,
                progress=show,
            )
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"{output} was not written")
            raise
    for choice in result.report.choices:
        say(f"found: {choice}")
    say(report_table(result.report))
    for warning in result.report.warnings:
        say(f"warning: {warning}")
    origin |= {"config": result.config.model_dump(), "seed": seed, "raster": raster}
    save_checkpoint(
        output, loaded, result.model, origin | {"report": result.report.to_dict()}, overwrite
    )
    say(f"slept {result.report.steps} steps in {result.report.seconds:.2f} s: {output}")
    if raster:
        say(f"spikes: {raster}")
    if save_config:
        write_text(save_config, result.config.to_toml())
        say(f"settings: {save_config}")
