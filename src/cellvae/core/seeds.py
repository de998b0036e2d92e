"""Where random numbers come from: one seed a run, and one stream for each use of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *words: str | int) -> int:
    """Seed of a stream of its own, a fixed function of a run's seed and what the stream is for."""
    text = "/".join([str(seed), *map(str, words)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def draw_seed() -> int:
    """Seed taken from torch's global generator, so that `torch.manual_seed` governs it."""
    return int(torch.randint(2**31 - 1, ()).item())


def make_generator(seed: int, *words: str | int) -> torch.Generator:
    """CPU generator for one use of a run's seed."""
    return torch.Generator().manual_seed(derive_seed(seed, *words))


@contextmanager
def isolated_rng(seed: int, *words: str | int) -> Iterator[None]:
    """Context with its own stream in torch's global generators, which are put back afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive_seed(seed, *words))
        yield
