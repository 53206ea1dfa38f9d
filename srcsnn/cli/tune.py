"""`srcsnn tune`."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcsnn.cli.console import (
    Arch,
    Config,
    Data,
    DataRoot,
    Download,
    Seed,
    Set,
    Trained,
    load_model,
    progress,
    say,
)

if TYPE_CHECKING:
    from srcsnn.tuning import Search

EXAMPLES = "Example: srcsnn tune model.pt --arch paper-mnist --data mnist -o tuned"


def tune(
    checkpoint: Trained,
    arch: Arch,
    data: Data,
    folder: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the network, its settings, the study."),
    ],
    config: Config = "auto",
    set_: Set = None,
    trials: Annotated[int, typer.Option(help="Settings to try, at most.", min=1)] = 1000,
    minutes: Annotated[
        float, typer.Option(help="Begin no other settings later than this.", min=0)
    ] = 10.0,
    workers: Annotated[
        int, typer.Option(help="Processes; 1 for a search that can be repeated.", min=1)
    ] = min(4, os.cpu_count() or 1),
    distortions: Annotated[
        str | None,
        typer.Option(help="Whose mean is to be high: gn, gb, sp, se, with commas."),
    ] = None,
    clean_loss: Annotated[
        float, typer.Option(help="Clean accuracy that may be lost, in points.", min=0)
    ] = 1.5,
    fit_head: Annotated[
        bool, typer.Option(help="Try fitting linear layers and BatchNorm's statistics after sleep.")
    ] = True,
    study: Annotated[
        str | None, typer.Option(help="SQLite file or URL of a database instead of the folder's.")
    ] = None,
    seed: Seed = 0,
    data_root: DataRoot = None,
    download: Download = False,
) -> None:
    """Search the settings under which a checkpoint sleeps best, and sleep it with the best.

    Training images and their labels alone decide; test images are looked at in the end. A search
    that was stopped goes on when it is asked for again with the same folder.
    """
    from torch import nn

    from converters import measure
    from srcsnn.checkpoints import check_output, load_checkpoint, save_checkpoint
    from srcsnn.cli.settings import settings_of
    from srcsnn.datasets import load_images
    from srcsnn.distortions import parse_distortions
    from srcsnn.drawing import check_figures
    from srcsnn.errors import ConfigError, SrcsnnError
    from srcsnn.figures import accuracy_figure, search_figure
    from srcsnn.files import write_json, write_text
    from srcsnn.robustness import evaluate
    from srcsnn.tables import robustness_table
    from srcsnn.training import is_fittable_norm

    try:
        from srcsnn.tuning import confirm, fitted, search, space_of, tuned
    except ModuleNotFoundError as cause:
        raise ConfigError('tune needs Optuna: pip install "srcsnn[tune]"') from cause
    check_figures()
    loaded = load_checkpoint(checkpoint)
    start = settings_of(config, set_)
    chosen = None if distortions is None else parse_distortions(distortions)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise SrcsnnError(f"cannot make the folder {folder}: {cause.strerror}") from cause
    results_file, kept = folder / "result.json", study or str(folder / "study.db")
    _check_results(results_file, kept)
    output = check_output(folder / f"tuned{loaded.path.suffix}", loaded, overwrite=True)
    model = load_model(arch, loaded)
    fit_norms = fit_head and any(map(is_fittable_norm, model.modules()))
    if fit_head and not any(isinstance(module, nn.Linear) for module in model.modules()):
        say("the network has no linear layer, so that no head is fitted")
        fit_head = False
    images = load_images(data, "train", data_root, download)
    begun, tried = time.monotonic(), 0
    with progress("searching") as show:

        def tell(done: int, total: int) -> None:
            nonlocal tried
            tried += 1
            late = (time.monotonic() - begun) / (60 * minutes) if minutes else 1.0
            show(round(1000 * min(1.0, max(done / total, late))), 1000)

        try:
            found = search(
                model,
                images.images,
                images.labels,
                start,
                trials=trials,
                seed=seed,
                distortions=chosen,
                clean_loss=clean_loss / 100,
                space=space_of(start, fit_head=fit_head, fit_norms=fit_norms),
                study=kept,
                workers=workers,
                seconds=60 * minutes,
                progress=lambda candidate, done, total: tell(done, total),
            )
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"{kept} keeps what was tried; the same command goes on from there")
            raise
    if found.candidates and not tried and minutes:
        say(
            f"{kept} has {len(found.candidates)} settings already, as many as --trials asks for; "
            "nothing new was tried"
        )
    search_figure(found, folder / "search.png")
    _check_found(found, minutes, clean_loss)
    slept = found.kept[0].config  # what scales depend on is not searched, and all alike
    with progress("measuring the best few again") as show:
        scales = measure(
            model, images.images, layers=slept.layers, normalization=slept.make_normalization()
        )
        best = confirm(
            found,
            model,
            images.images,
            images.labels,
            seed=seed,
            distortions=chosen,
            scales=scales,
            progress=show,
        )
    networks = {"baseline": model}
    with progress("sleeping with the best settings"):
        network = tuned(model, images.images, images.labels, best, seed=seed, scales=scales)
        if best.fit_images or best.fit_norms:
            networks["fitted alone"] = fitted(model, images.images, images.labels, best, seed=seed)
        networks["tuned"] = network
    write_text(folder / "config.toml", best.config.to_toml())
    origin = {
        "command": "tune",
        "arch": arch,
        "data": images.name,
        "note": images.note,
        "input": str(loaded.path),
        "config": best.config.model_dump(),
        "fit_images": best.fit_images,
        "fit_norms": best.fit_norms,
        "seed": seed,
        "tried": len(found.candidates),
        "study": kept,
    }
    save_checkpoint(output, loaded, network, origin, overwrite=True)
    test = load_images(data, "test", data_root, download)
    results = {}
    for name, each in networks.items():
        with progress(f"evaluating the {name} network on test images") as show:
            results[name] = evaluate(
                each, test.images, test.labels, distortions=chosen, seed=seed, progress=show
            )
    say(robustness_table(results))
    counts = {name: result.to_dict() for name, result in results.items()}
    write_json(results_file, origin | {"results": counts})
    accuracy_figure(results, folder / "accuracy.png", title=images.note or None)
    gain = 100 * (best.mean - found.baseline.mean())
    say(f"{len(found.candidates)} settings tried; the best gains {gain:+.1f} points in validation")
    fits = ["BatchNorm's statistics"] if best.fit_norms else []
    fits += [f"linear layers, shown {best.fit_images:,} images"] if best.fit_images else []
    if fits:
        say(
            f"fitted to clean training images after sleep: {' and '.join(fits)}; 'fitted alone' is "
            "the network that did not sleep, fitted likewise"
        )
    say(f"in {folder}/: {output.name}, config.toml, result.json, accuracy.png, search.png")
    say(f"{kept} keeps what was tried; the same command with more --trials or --minutes goes on")


def _check_found(found: "Search", minutes: float, clean_loss: float) -> None:
    """Says how many settings failed, and why there is no best where that is so."""
    from srcsnn.errors import SrcsnnError

    tried = len(found.candidates)
    failures = [candidate.failure for candidate in found.candidates if candidate.failure]
    if failures:
        say(f"{len(failures)} of {tried} settings failed; the first: {failures[0]}")
    if not tried:
        raise SrcsnnError(f"no settings were tried within {minutes:g} minutes; allow more")
    if len(failures) == tried:
        raise SrcsnnError("all settings failed, so that more of them would be no help")
    if not found.kept:
        raise SrcsnnError(
            f"none of {tried} settings keeps clean accuracy within {clean_loss:g} points; try "
            "more, or allow a larger --clean-loss"
        )


def _check_results(results: Path, study: str) -> None:
    """Refuses a folder whose results are of another study than the one to go on with."""
    from json import loads

    from srcsnn.errors import ConfigError

    if not results.exists():
        return
    if "://" not in study and not Path(study).exists():
        raise ConfigError(
            f"{results} is there, but not {study}, the study that it would be of; give a new folder"
        )
    try:
        of = loads(results.read_text()).get("study", study)
    except (ValueError, AttributeError) as cause:
        raise ConfigError(f"{results} is not of this command; give a new folder") from cause
    if of != study:
        raise ConfigError(f"{results} is of the study {of}, not {study}; give a new folder")
