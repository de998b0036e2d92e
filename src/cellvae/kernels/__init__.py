"""Compiled mathematics: what torch does in many passes over memory, done in one.

Numba compiles at first use and keeps what it compiled on disk; nothing is loaded before.
"""

from cellvae.kernels.choice import Kernels, compiled_for
from cellvae.kernels.likelihood import CountKind, log_likelihood

__all__ = ["CountKind", "Kernels", "compiled_for", "log_likelihood"]
