"""Random number streams: one seed for each run, and one stream for each use of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Seed of a stream: a fixed function of the seed of a run and the purpose of the stream."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def draw_seed() -> int:
    """Seed drawn from torch's global generator, so `torch.manual_seed` determines it."""
    return int(torch.randint(2**31 - 1, ()).item())


def make_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """CPU generator of one stream of a run."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextmanager
def isolated_rng(seed: int, *purpose: str | int) -> Iterator[None]:
    """Context with its own stream in torch's global generators, whose state is restored."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive_seed(seed, *purpose))
        yield
