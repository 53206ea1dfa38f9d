"""`srcsnn info`."""

from srcsnn.cli.console import (
    Arch,
    Config,
    Data,
    DataRoot,
    Download,
    Seed,
    Set,
    Trained,
    explicit,
    load_model,
    say,
)

EXAMPLES = "Example: srcsnn info model.pt --arch paper-mnist --data mnist --config paper-mnist"


def info(
    checkpoint: Trained,
    arch: Arch,
    data: Data,
    config: Config = "auto",
    set_: Set = None,
    seed: Seed = 0,
    data_root: DataRoot = None,
    download: Download = False,
) -> None:
    """Show the spiking layers of a checkpoint: shapes, alpha, thresholds. Nothing sleeps."""
    from srcsnn.checkpoints import load_checkpoint
    from srcsnn.cli.settings import settings_of
    from srcsnn.datasets import load_images
    from srcsnn.preparation import prepare, replay_for
    from srcsnn.tables import units_table

    loaded = load_checkpoint(checkpoint)
    settings = settings_of(config, set_)
    model = load_model(arch, loaded)
    images = load_images(data, "train", data_root, download)
    found, scales = explicit(model, images.images, settings, seed)
    snn = prepare(model, images.images, found, scales=scales)
    found.make_rules([unit.name for unit in snn.sleeping])  # which find fault, as does the replay
    replay_for(snn, found, images.images.mean(0))
    wrapped = f" under {loaded.wrapper!r}" if loaded.wrapper else ""
    say(f"{loaded.path}: {len(loaded.state_dict)} tensors{wrapped}, SHA-256 {loaded.sha256}")
    say(units_table(snn, snn.shapes(tuple(images.images.shape[1:]))))
    if rectified := [layer.name for layer in snn.layers if layer.rectifies]:
        say(f"no ReLU behind {', '.join(rectified)}: spikes stand for the positive part")
