"""What the commands share: options, the terminal, progress, and how errors are told."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from torch import Tensor, nn

    from converters import Scale
    from srcsnn.checkpoints import Checkpoint
    from srcsnn.config import AutoConfig, SleepConfig

__all__ = [
    "Arch", "Config", "Data", "DataRoot", "Download", "Overwrite", "Seed", "Set", "Trained",
    "explicit", "interruptible", "load_model", "progress", "report_errors", "say", "say_json",
]  # fmt: skip

P = ParamSpec("P")

# What would move the cursor, or cannot be written: control characters except for the end of a line
# and tabs, and the bytes of file names that are not UTF-8.
_UNSHOWN = dict.fromkeys(
    {*range(32), *range(127, 160)} - {9, 10} | {*range(0xD800, 0xE000)}, "\ufffd"
)

Arch = Annotated[
    str, typer.Option(help="The network: paper-mnist, paper-cifar10, or package.module:callable.")
]
Config = Annotated[
    str,
    typer.Option(
        help="auto, paper-mnist, paper-cifar10 (both also -as-printed), digits, or a TOML file."
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="Images: digits, mnist, fashion-mnist, cifar10, a folder with train/ and test/ of "
        "class folders, or an .npz or .h5 file."
    ),
]
DataRoot = Annotated[
    str | None,
    typer.Option(help="Where torchvision's data sets are.", envvar="SRCSNN_DATA"),
]
Download = Annotated[bool, typer.Option("--download", help="Fetch a data set that is not there.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]
Trained = Annotated[str, typer.Argument(help="A trained network: .pt, .pth, .safetensors.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting: steps=400, layers=all; repeat for more."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]


def say(text: "RenderableType" = "") -> None:
    """Prints a line, or anything that rich can draw, to standard output."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    # Brackets and colons may be in a path.
    console = Console(highlight=False, markup=False, emoji=False)
    if isinstance(text, str):
        console.print(text.translate(_UNSHOWN), soft_wrap=True)
        return
    # A row stays one line: wider than the terminal is better than cut.
    console.width = max(console.width, 150)
    drawn = console.render(text)
    console.print(Segments(Segment(part.text.translate(_UNSHOWN), part.style) for part in drawn))


def say_json(value: object) -> None:
    """Prints JSON to standard output, in letters that every terminal has."""
    import json

    from srcsnn.files import json_text

    text = json_text(value)
    print("".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text), end="")


def load_model(arch: str, checkpoint: "Checkpoint") -> "nn.Module":
    """The network of this name with the weights of the checkpoint, in eval mode."""
    from srcsnn.checkpoints import load_into
    from srcsnn.models import make_model

    model = make_model(arch)
    load_into(checkpoint, model)
    return model.eval()


def explicit(
    model: "nn.Module", images: "Tensor", settings: "SleepConfig | AutoConfig", seed: int
) -> "tuple[SleepConfig, Mapping[str, Scale] | None]":
    """The settings; from auto what it finds for this network, whatever a night would do to it.

    And the scales of the activations, if they had to be measured for that.
    """
    from converters import measure
    from srcsnn.automatic import settle
    from srcsnn.config import AutoConfig

    if not isinstance(settings, AutoConfig):
        return settings, None
    scales = measure(model, images, layers=settings.layers)
    settled = settle(model, images, settings.with_changes(keep=0), seed=seed, scales=scales)
    return settled.config, scales


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error; the block gets a function of (done, total)."""
    from rich.console import Console
    from rich.progress import Progress

    from srcsnn.errors import SrcsnnError

    # The time left is told from the last half hour: a part of the work may take minutes.
    console = Console(stderr=True)
    # Into a file goes no bar, which would leave an empty line there.
    with Progress(
        console=console,
        transient=True,
        speed_estimate_period=1800,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=None)
        shown = 0.0

        def show(done: int, total: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if done == total or now - shown > 0.1:  # a step may be shorter than drawing the bar
                shown = now
                bar.update(task, completed=done, total=total)

        try:
            yield show
        except KeyboardInterrupt as interrupt:
            notes = "".join(f"; {note}" for note in getattr(interrupt, "__notes__", []))
            raise SrcsnnError(f"interrupted while {what}{notes}") from interrupt


def interruptible(command: Callable[P, None]) -> Callable[P, None]:
    """The command, with Ctrl-C told in words wherever it strikes."""

    @wraps(command)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            # Nothing is imported here: the interrupt may have come while torch was.
            print("error: interrupted between two parts of the work", file=sys.stderr)
            raise SystemExit(1) from None

    return told


def _mendable(error: Exception) -> bool:
    from srcsnn.errors import SrcsnnError

    # Not imported to ask: it brings torch along, which `inspect` does without.
    conversion = sys.modules.get("converters.errors")
    if conversion and isinstance(error, conversion.ConversionError):
        return True
    return isinstance(error, SrcsnnError | OSError | MemoryError)


@contextmanager
def report_errors(*, debug: bool) -> Iterator[None]:
    """Turns an error that a user can mend into one or two lines and an exit code."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output, `head` for example, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except (ValueError, OSError, MemoryError) as error:
        from srcsnn.errors import ConfigError

        if debug or not _mendable(error):
            raise
        told = (str(error) or type(error).__name__).translate(_UNSHOWN)
        print(f"error: {told}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
