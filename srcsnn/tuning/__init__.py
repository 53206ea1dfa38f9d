"""Search of the settings of a sleep by a genetic algorithm, on training images alone.

The paper found its Table II so (Delanois et al. 2023, Section 4): a genetic algorithm, and the mean
validation accuracy under distortions of one trial's network.
"""

from srcsnn.tuning.candidates import Candidate, Search
from srcsnn.tuning.finals import confirm
from srcsnn.tuning.generations import search
from srcsnn.tuning.space import AUTO_SPACE, SPACE, Range, space_of
from srcsnn.tuning.tryout import fitted, tuned

__all__ = [
    "AUTO_SPACE", "SPACE", "Candidate", "Range", "Search", "confirm", "fitted", "search",
    "space_of", "tuned",
]  # fmt: skip
