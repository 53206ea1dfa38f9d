"""The few best of a search, measured again on training images by which none was chosen."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from converters import Scale
from srcsnn.distortions import Distortion
from srcsnn.errors import SrcsnnError
from srcsnn.robustness import evaluate
from srcsnn.seeding import key
from srcsnn.tuning.candidates import Candidate, Search
from srcsnn.tuning.space import searched_distortions
from srcsnn.tuning.splits import split
from srcsnn.tuning.tryout import tuned

__all__ = ["confirm"]

_FINALISTS = 5
_IMAGES = 3_000
"""On which finalists are measured, at most; three times as many as a search looks at."""


def confirm(
    found: Search,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int,
    distortions: Sequence[Distortion] | None = None,
    validation: int = 1000,
    scales: Mapping[str, Scale] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Candidate:
    """The best of a search's five best, by images on which none was measured or fitted.

    The best of many that are measured on a thousand images is in part the one with the most luck
    there. Where no other images are left, it is the best of the search after all.

    Args:
        found: what `search` found.
        model: the network that it was a search for; it is not changed.
        images: (N, C, H, W) in [0, 1]: the same training images.
        labels: (N,) their class numbers.
        seed: of the search.
        distortions: of the search.
        validation: of the search.
        scales: what `converters.measure` found in these images, if it was asked before.
        progress: called with the finalists that are measured, and how many there are.

    Returns:
        One of the candidates, as the search has it.

    Raises:
        SrcsnnError: if no candidate keeps its clean accuracy.
        ConfigError, ConversionError, DatasetError, SleepError: as `tuned`.
    """
    if found.best is None:
        raise SrcsnnError(f"none of {len(found.candidates)} settings keeps clean accuracy")
    kept = sorted(found.kept, key=lambda candidate: candidate.mean, reverse=True)
    finalists = list(dict.fromkeys(kept))[:_FINALISTS]
    fresh = split(len(images), validation, seed).unseen[:_IMAGES]
    if len(finalists) < 2 or len(fresh) < validation:
        return found.best
    distortions = searched_distortions(images.shape[1]) if distortions is None else distortions
    means = []
    for done, candidate in enumerate(finalists, 1):
        network = tuned(
            model, images, labels, candidate, seed=seed, validation=validation, scales=scales
        )
        counts = evaluate(
            network, images[fresh], labels[fresh], distortions=distortions,
            seed=key(seed, "noise of the finals") % 2**63,
        )  # fmt: skip
        means.append(counts.mean())
        progress(done, len(finalists))
    return finalists[means.index(max(means))]
