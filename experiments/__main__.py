"""`python -m experiments run | status | report`: the study of the paper, from a checkout."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import optuna
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from experiments.cells import Cell
from experiments.images import images_of
from experiments.place import Place
from experiments.report import write_report
from experiments.results import Results
from experiments.schedule import Finished, cluster, run_here, run_on
from experiments.searching import search_variant
from experiments.store import Ledger, Models, Record, missing
from experiments.study import STUDIES, Study, quick, resolve_source, targets
from srcsnn.cli.console import report_errors
from srcsnn.errors import ConfigError, SrcsnnError
from srcsnn.plugins import nearest
from srcsnn.tuning import Candidate

RESULTS = Path("docs/results/study")
"""The ledgers: small, committed."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Data = Annotated[str, typer.Argument(help="mnist or cifar10.")]
Trials = Annotated[int, typer.Option(help="Networks, from trial 0.", min=1)]
Methods = Annotated[
    str | None, typer.Option(help="With commas: baseline,SRC,SRC+FFF,... Without: all.")
]
Folder = Annotated[Path, typer.Option(help="For networks and decoded images; large.")]


@app.command()
def run(
    data: Data = "mnist",
    trials: Trials = 10,
    methods: Methods = None,
    workers: Annotated[int | None, typer.Option(help="Processes on this machine.", min=1)] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler: tcp://...")
    ] = None,
    folder: Folder = Path("study"),
    small: Annotated[
        bool, typer.Option("--quick", help="The whole graph in little, on digits; keeps nothing.")
    ] = False,
) -> None:
    """Compute what is missing of the study. A killed run goes on where it was."""
    if small:
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary)
            results, found = _run(quick(), 2, None, workers, scheduler, place, place)
            (place / "results").mkdir()
            write_report([results], {results.study.data: found}, place)
        return
    _run(_study(data), trials, methods, workers, scheduler, folder, RESULTS)


@app.command()
def search(
    data: Data,
    name: Annotated[str, typer.Argument(help="Of the variant: it becomes the method SRC-NAME.")],
    layers: Annotated[str, typer.Option(help='"conv", "all", or names with commas.')] = "conv",
    candidates: Annotated[int, typer.Option(help="Settings to try.", min=1)] = 300,
    folder: Folder = Path("study"),
) -> None:
    """Search settings of sleep on training images, as the paper did for its Table II."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the lines below say as much
    study = _study(data)
    _, _, place = _plan(study, 1, "baseline", folder, RESULTS)
    named = layers if layers in ("conv", "all") else tuple(layers.split(","))

    def tell(found: Candidate, tried: int, wanted: int) -> None:
        print(f"{tried:4} of {wanted}: mean {found.mean:.4f}, clean {found.clean:.4f}", flush=True)

    path = search_variant(study, place, name, named, candidates, RESULTS, tell)
    print(f"{path}: the best of them")


@app.command()
def status(
    data: Data = "mnist",
    trials: Trials = 10,
    methods: Methods = None,
    folder: Folder = Path("study"),
) -> None:
    """Say what of the study is there, and what is to be computed."""
    study = _study(data)
    wanted, ledger, place = _plan(study, trials, methods, folder, RESULTS)
    done = Counter(cell.method for cell in wanted if cell in ledger)
    for method, total in Counter(cell.method for cell in wanted).items():
        print(f"{method:12} {done[method]:4} of {total:4} measures")
    cells = missing(wanted, ledger, place.models)
    seconds = sum(_expected(ledger, cells))
    print(f"{len(cells)} cells to compute, about {seconds / 60:.0f} min on one core")


@app.command()
def check(
    data: Data = "mnist",
    trial: Annotated[int, typer.Option(help="Which network.", min=0)] = 0,
    method: Annotated[str, typer.Option(help="Which method.")] = "SRC",
) -> None:
    """Compute one trial of a method anew, from the training on, and compare with the ledger."""
    study = _study(data)
    _, ledger, place = _plan(study, 1, method, Path("study"), RESULTS)
    with tempfile.TemporaryDirectory() as temporary:
        again = Ledger(Path(temporary) / "again.jsonl")
        fresh = Place(place.source, Path(temporary))
        wanted = list(targets(study, place.images.sha256, [trial], [method]))
        cells = missing(wanted, again, fresh.models)
        with _progress(cells, ledger, 1) as finished:
            run_here(cells, fresh, again, finished)
    differ = 0
    for cell in cells:
        if cell not in ledger:
            print(f"not in the ledger: {cell}")
            continue
        before, now = (book.records[cell.key]["result"] for book in (ledger, again))
        same = before == now
        differ += not same
        print(f"{'same' if same else 'DIFFERS'}: {cell}")
        if not same:
            print(f"  in the ledger: {before}\n  now:           {now}")
    if differ:
        raise SrcsnnError(f"{differ} of {len(cells)} cells differ")


@app.command()
def report(trials: Trials = 10, folder: Folder = Path("study")) -> None:
    """Write the pages, tables and figures of docs/results/ from the ledgers."""
    studies, places = [], {}
    for name, study in STUDIES.items():
        if not (RESULTS / f"{name}.jsonl").exists():
            continue
        wanted, ledger, place = _plan(study, trials, None, folder, RESULTS)
        results = Results(study, wanted, ledger)
        if "baseline" in results.methods:
            studies.append(results)
            places[name] = place
    if not studies:
        raise ConfigError(f"no baseline is finished in {RESULTS}; begin with `run mnist`")
    write_report(studies, places, Path("docs"))
    print(f"docs/results/: {', '.join(results.study.data for results in studies)}")


def _study(data: str) -> Study:
    if data not in STUDIES:
        raise ConfigError(
            f"no study {data!r}{nearest(data, STUDIES)}; there are {', '.join(STUDIES)}"
        )
    return STUDIES[data]


def _plan(
    study: Study, trials: int, methods: str | None, folder: Path, results: Path
) -> tuple[list[Cell], Ledger, Place]:
    root = os.environ.get("SRCSNN_DATA")
    place = Place(resolve_source(study, Path(root) if root else None), folder.absolute())
    names = [name.strip() for name in methods.split(",")] if methods else list(study.methods)
    for name in names:
        if name not in study.methods:
            raise ConfigError(
                f"no method {name!r} for {study.data}{nearest(name, study.methods)}; there are "
                + ", ".join(study.methods)
            )
    sha256 = images_of(place.source, place.folder).sha256
    wanted = list(targets(study, sha256, range(trials), names))
    return wanted, Ledger(results / f"{study.data}.jsonl"), place


def _run(
    study: Study,
    trials: int,
    methods: str | None,
    workers: int | None,
    scheduler: str | None,
    folder: Path,
    results: Path,
) -> tuple[Results, Place]:
    results.mkdir(parents=True, exist_ok=True)
    wanted, ledger, place = _plan(study, trials, methods, folder, results)
    with ledger.held():
        cells = missing(wanted, ledger, Models(place.folder))
        if workers is None and scheduler is None:
            with _progress(cells, ledger, 1) as finished:
                run_here(cells, place, ledger, finished)
        else:
            with cluster(workers, scheduler) as client:
                there = workers or len(client.scheduler_info()["workers"]) or 1
                with _progress(cells, ledger, there) as finished:
                    run_on(client, cells, place, ledger, finished)
    print(f"{study.data}: {len(cells)} cells computed, {len(wanted)} measures in {ledger.path}")
    return Results(study, wanted, ledger), place


@contextmanager
def _progress(cells: Sequence[Cell], ledger: Ledger, workers: int) -> Iterator[Finished]:
    """A bar over the time that the cells are expected to take."""
    seconds = dict(zip((cell.key for cell in cells), _expected(ledger, cells), strict=True))
    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=sum(seconds.values()))
        done = 0

        def finished(cell: Cell, record: Record) -> None:
            nonlocal done
            done += 1
            expected = seconds.pop(cell.key)
            left = sum(seconds.values()) / workers / 60
            text = f"{done} of {len(cells)} cells, about {left:.0f} min left; done: {cell}"
            bar.update(task, advance=expected, description=text)

        yield finished


def _expected(ledger: Ledger, cells: Sequence[Cell]) -> Iterator[float]:
    """About how many seconds each cell takes, from those of its kind so far, by their epochs."""
    known: dict[str, list[float]] = {}
    for record in ledger.records.values():
        each = record["seconds"] / _passes(record["kind"], record["settings"])
        known.setdefault(record["kind"], []).append(each)
    for cell in cells:
        found = known.get(cell.kind) or (cell.gives_model and known.get("train")) or [5.0]
        yield sum(found) / len(found) * _passes(cell.kind, cell.settings)


def _passes(kind: str, settings: Mapping[str, Any]) -> float:
    """How often training goes through the data set; 1 where there is no training."""
    epochs: float = settings.get("protocol", {}).get("epochs", 1)
    return 7 * epochs if kind == "fine-tune" else epochs


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its code."""
    with report_errors(debug=False):
        app(arguments, prog_name="python -m experiments")


if __name__ == "__main__":
    main()
