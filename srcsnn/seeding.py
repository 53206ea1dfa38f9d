"""Named streams of random numbers, so that adding one stream shifts no other."""

import hashlib
import operator

import torch

from srcsnn.errors import ConfigError

__all__ = ["key", "stream"]


def key(seed: int, *names: str | int | float) -> int:
    """A 128-bit number that depends on the seed and on every name, and on nothing else.

    The same on every machine and in every version of Python: it is the first half of the SHA-256
    of the seed and the names, each written as text with its length in front, so that no two lists
    of texts collide.

    Raises:
        ConfigError: if the seed is no whole number.

    >>> key(0, "sleep") == key(0, "sleep"), key(0, "sleep") == key(1, "sleep")
    (True, False)
    """
    try:
        if isinstance(seed, bool):
            raise TypeError("a truth value")
        number = operator.index(seed)  # of a tensor that holds one, too
    except TypeError as cause:
        raise ConfigError(f"seed={seed!r}: must be a whole number") from cause
    words = [str(number), *map(str, names)]
    text = "".join(f"{len(word)}:{word}" for word in words)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def stream(seed: int, *names: str | int | float) -> torch.Generator:
    """A CPU generator of its own for each seed and list of names.

    >>> a, b = stream(0, "sleep"), stream(0, "train")
    >>> bool(torch.rand(1, generator=a) == torch.rand(1, generator=b))
    False
    """
    generator = torch.Generator(device="cpu")
    generator.manual_seed(key(seed, *names) % 2**63)
    return generator
