"""The graph of the study: which cells there are for a data set, a trial and a method."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from experiments.cells import Cell, Kind
from srcsnn import SleepConfig, load_config
from srcsnn.datasets import NAMES
from srcsnn.distortions import DISTORTIONS
from srcsnn.errors import ConfigError
from srcsnn.training import PROTOCOLS, Precision, Protocol

__all__ = [
    "ATTENDED", "CONFIGS", "EXACT", "FINE_TUNED", "METHODS", "PRINTED", "STUDIES", "Study",
    "quick", "resolve_source", "targets",
]  # fmt: skip

FINE_TUNED = {
    "FT-GN": ("gaussian-noise",),
    "FT-GB": ("gaussian-blur",),
    "FT-SP": ("salt-and-pepper",),
    "FT-SE": ("speckle",),
    "FT-all": (),  # all of the study
}
ATTENTIVE = ("baseline", "SRC", "SRC+FFF", "GradExp", "GradExp+FFF", "SRC-as-printed")
"""Methods whose attention is measured: the paper's Table VI, and sleep by what it prints alone."""

ATTENDED = 2000
"""Test images whose attention is measured, the first ones."""

SNAPSHOTS, FOLLOWED = 12, 1000
"""How often a night is looked at, and with about how many test images, from all over the set."""

CONFIGS = Path(__file__).parent / "configs"
"""A folder for each data set, with a TOML file for each variant of sleep beyond the paper's."""

PRINTED = "SRC-as-printed"
EXACT = "baseline-float32"
METHODS = ("baseline", "SRC", "SRC+FFF", "GradExp", "GradExp+FFF", *FINE_TUNED, PRINTED, EXACT)
"""Those of the paper's Section 5, as its tables call them, sleep by what it prints alone, and the
baseline trained in float32 where the others are not."""


@dataclass(frozen=True)
class Study:
    """What differs between the data sets (paper, Sections 2 to 5).

    Attributes:
        data: name in tables.
        source: for `srcsnn.load_images`; below SRCSNN_DATA if it is a relative path.
        architecture: a built-in name.
        protocol: of the baseline's training.
        head: of feed-forward fitting.
        tuning: of fine-tuning.
        config: settings of sleep.
        printed: those that hold what the paper prints and no more, if they are others.
        distortions: names and levels.
        precision: of all training.
        nights: trials whose sleep is followed step by step, which costs more than all its measures.
    """

    data: str
    source: str
    architecture: str
    protocol: Protocol
    head: Protocol
    tuning: Protocol
    config: str
    distortions: dict[str, tuple[float, ...]]
    precision: Precision = "float32"
    printed: str | None = None
    nights: int = 10

    @property
    def methods(self) -> tuple[str, ...]:
        """Those of METHODS that there are for its distortions, then the variants."""
        own = tuple(
            method
            for method in METHODS
            if all(name in self.distortions for name in FINE_TUNED.get(method, ()))
            and (method != PRINTED or self.printed is not None)
            and (method != EXACT or self.precision != "float32")
        )
        return own + self.variants

    @property
    def variants(self) -> tuple[str, ...]:
        """`SRC-x` for each x.toml among its configurations, and the same with a fitted head."""
        names = sorted(path.stem for path in (CONFIGS / self.data).glob("*.toml"))
        return tuple(f"SRC-{name}{head}" for name in names for head in ("", "+FFF"))


def _levels(*left_out: str) -> dict[str, tuple[float, ...]]:
    return {name: d.levels for name, d in DISTORTIONS.items() if name not in left_out}


_MNIST, _CIFAR = PROTOCOLS["paper-mnist"], PROTOCOLS["paper-cifar10"]
STUDIES = {
    "mnist": Study(
        data="mnist",
        source="mnist",
        architecture="paper-mnist",
        protocol=_MNIST,
        head=replace(_MNIST, epochs=1),
        tuning=replace(_MNIST, epochs=10, learning_rate=0.05),
        config="paper-mnist",
        printed="paper-mnist-as-printed",
        distortions=_levels("speckle"),
    ),
    "cifar10": Study(
        data="cifar10",
        source="cifar10-jpeg",
        architecture="paper-cifar10",
        protocol=_CIFAR,
        head=replace(_CIFAR, epochs=5, learning_rate=0.1),
        tuning=replace(_CIFAR, epochs=10, learning_rate=0.15),
        config="paper-cifar10",
        printed="paper-cifar10-as-printed",
        nights=2,
        distortions=_levels(),
        precision="bfloat16",
    ),
}


def quick() -> Study:
    """The whole graph in little: on scikit-learn's digits, which need no download."""
    digits = PROTOCOLS["digits"]
    return Study(
        data="digits",
        source="digits",
        architecture="paper-mnist",
        protocol=replace(digits, epochs=30),
        head=replace(digits, epochs=1, learning_rate=0.01),
        tuning=replace(digits, epochs=2, learning_rate=0.05),
        config="digits",
        distortions={name: levels[1::2] for name, levels in _levels("speckle").items()},
    )


def targets(
    study: Study, sha256: str, trials: Iterable[int], methods: Sequence[str]
) -> Iterator[Cell]:
    """The cells whose numbers the report needs.

    Args:
        study: of a data set.
        sha256: of its images.
        trials: their numbers.
        methods: which of METHODS.
    """
    for trial in trials:
        for method in methods:
            network = _Trial(study, sha256, trial).network(method)
            yield from _measures(study, network)
            if method == "SRC" and trial < study.nights:
                yield _trajectory(study, network)


@dataclass(frozen=True)
class _Trial:
    study: Study
    sha256: str
    trial: int

    def network(self, method: str) -> Cell:
        """The cell whose result is the network of a method."""
        study = self.study
        if method == "baseline":
            return self._cell("train", method, _protocol(study, study.protocol))
        if method == EXACT:
            study = replace(study, precision="float32")
            return self._cell("train", method, _protocol(study, study.protocol))
        if method == "GradExp":
            return self._cell("expand", method, {}, "baseline", "SRC")
        if method.endswith("+FFF"):
            before = method.removesuffix("+FFF")
            return self._cell("fit-head", method, _protocol(study, study.head), before)
        if method.startswith("SRC"):
            config = _config(study, method)
            return self._cell("sleep", method, {"config": config.model_dump()}, "baseline")
        distortions = {
            name: levels
            for name, levels in study.distortions.items()
            if name in FINE_TUNED[method] or not FINE_TUNED[method]
        }
        settings = _protocol(study, study.tuning) | {"distortions": distortions}
        return self._cell("fine-tune", method, settings, "baseline")

    def _cell(self, kind: Kind, method: str, settings: dict[str, Any], *inputs: str) -> Cell:
        settings = {"architecture": self.study.architecture} | settings
        networks = tuple(map(self.network, inputs))
        return Cell(kind, self.study.data, self.sha256, self.trial, settings, networks, method)


def _config(study: Study, method: str) -> SleepConfig:
    if method == "SRC":
        config = load_config(study.config)
    elif method == PRINTED:
        config = load_config(study.printed or study.config)
    else:
        config = load_config(CONFIGS / study.data / f"{method.removeprefix('SRC-')}.toml")
    # The same spikes as snnTorch's, sooner.
    return config.with_changes(neuron="lif") if config.neuron == "leaky" else config


def _protocol(study: Study, protocol: Protocol) -> dict[str, Any]:  # Any: JSON
    return {"protocol": asdict(protocol), "precision": study.precision}


def _measures(study: Study, network: Cell) -> Iterator[Cell]:
    def measure(kind: Kind, **settings: object) -> Cell:
        settings = {"architecture": study.architecture} | settings
        return replace(network, kind=kind, settings=settings, inputs=(network,))

    yield measure("evaluate", distortion="clean", levels=(0.0,))
    for distortion, levels in study.distortions.items():
        yield measure("evaluate", distortion=distortion, levels=levels)
    yield measure("gradients")
    # Photographs have no mask; the paper has no attention of the others.
    if study.data != "cifar10" and network.method in ATTENTIVE:
        yield measure("attention", distortions=study.distortions, images=ATTENDED)


def _trajectory(study: Study, slept: Cell) -> Cell:
    """The night that gave this network, looked at on its way."""
    settings = dict(slept.settings) | {
        "distortions": study.distortions, "spread": FOLLOWED, "snapshots": SNAPSHOTS,
    }  # fmt: skip
    return replace(slept, kind="trajectory", settings=settings)


def resolve_source(study: Study, root: Path | None) -> str:
    """The data set as `srcsnn.load_images` takes it.

    Args:
        study: of the data set.
        root: the folder of data sets.

    Raises:
        ConfigError: if it is a folder of images that is not there.
    """
    if study.source in NAMES:
        return study.source
    folder = (root or Path()).absolute() / study.source
    if not folder.is_dir():
        raise ConfigError(
            f"{study.data}: there is no {folder}; set SRCSNN_DATA to the folder above"
        )
    return str(folder)
