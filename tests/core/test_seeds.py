"""Streams of random numbers."""

from __future__ import annotations

import hashlib

import pytest
import torch

from cellvae.core.seeds import derive_seed, draw_seed, isolated_rng, make_generator


def test_a_derived_seed_is_a_fixed_function_of_seed_and_words() -> None:
    digest = hashlib.blake2b(b"7/epoch/3", digest_size=8).digest()
    assert derive_seed(7, "epoch", 3) == int.from_bytes(digest, "big") // 2
    # These numbers are part of what a seed promises: runs of one seed are equal between versions.
    assert derive_seed(0, "training") == 1406109476649629327


def test_derived_seeds_are_those_that_torch_takes_and_all_differ() -> None:
    seeds = {derive_seed(seed, "order", epoch) for seed in range(40) for epoch in range(40)}
    assert len(seeds) == 1600
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "2", "3") != derive_seed(1, "23")
    torch.Generator().manual_seed(max(seeds))


def test_a_generator_repeats_its_stream_and_touches_no_other() -> None:
    state = torch.get_rng_state()
    first = torch.randn(5, generator=make_generator(3, "order", 1))
    assert torch.equal(first, torch.randn(5, generator=make_generator(3, "order", 1)))
    assert not torch.equal(first, torch.randn(5, generator=make_generator(3, "order", 2)))
    assert torch.equal(state, torch.get_rng_state())


def test_a_drawn_seed_follows_torchs_global_generator() -> None:
    state = torch.get_rng_state()
    drawn = []
    for number in (5, 5, 6):
        torch.manual_seed(number)
        drawn.append(draw_seed())
    torch.set_rng_state(state)
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(0 <= seed < 2**31 for seed in drawn)


def test_own_randomness_is_put_back_whatever_happens() -> None:
    state = torch.get_rng_state()
    with isolated_rng(3, "validation"):
        inside = torch.randn(5)
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match="on purpose"), isolated_rng(3, "validation"):
        assert torch.equal(inside, torch.randn(5))
        raise ValueError("on purpose")
    assert torch.equal(state, torch.get_rng_state())
