"""Settings of the whole process: `cellvae.settings.seed = 0`."""

from __future__ import annotations

import logging
import random

import numpy as np
import torch

from cellvae.errors import InvalidOptionError, UnknownOptionError, did_you_mean


class Settings:
    """Settings that hold for every model of a process, until they are changed."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {"seed": None, "batch_size": 128, "progress_bar": True}

    @property
    def seed(self) -> int | None:
        """Seed that splits, weights and training start from; None draws one from torch's generator.

        Setting it also seeds `random`, NumPy and torch, as scvi-tools does.
        """
        return self.values["seed"]  # type: ignore[return-value]

    @seed.setter
    def seed(self, seed: int | None) -> None:
        if seed is None:
            self.values["seed"] = None
            return
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
            raise InvalidOptionError(f"Expected seed to be None or a whole number from 0 to 2**32 - 1; got {seed!r}.")
        self.values["seed"] = int(seed)
        random.seed(int(seed))
        np.random.seed(int(seed))  # noqa: NPY002
        torch.manual_seed(int(seed))

    @property
    def batch_size(self) -> int:
        """Cells per batch when a trained model is asked something."""
        return self.values["batch_size"]  # type: ignore[return-value]

    @batch_size.setter
    def batch_size(self, batch_size: int) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise InvalidOptionError(f"Expected batch_size to be a whole number of cells; got {batch_size!r}.")
        self.values["batch_size"] = int(batch_size)

    @property
    def progress_bar(self) -> bool:
        """Whether long work shows a progress bar."""
        return self.values["progress_bar"]  # type: ignore[return-value]

    @progress_bar.setter
    def progress_bar(self, shown: bool) -> None:
        self.values["progress_bar"] = bool(shown)

    @property
    def verbosity(self) -> int:
        """Level of the package's logger, as in the module `logging`."""
        return logging.getLogger("cellvae").getEffectiveLevel()

    @verbosity.setter
    def verbosity(self, level: int | str) -> None:
        logging.getLogger("cellvae").setLevel(level)

    @property
    def num_threads(self) -> int:
        """Threads that torch uses on a CPU."""
        return torch.get_num_threads()

    @num_threads.setter
    def num_threads(self, number: int) -> None:
        torch.set_num_threads(number)

    def __setattr__(self, name: str, value: object) -> None:
        known = ["seed", "batch_size", "progress_bar", "verbosity", "num_threads"]
        if name != "values" and name not in known:
            raise UnknownOptionError(f"settings has no '{name}'.{did_you_mean(name, known)}")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return (
            f"cellvae settings: seed={self.seed}, batch_size={self.batch_size}, "
            f"progress_bar={self.progress_bar}, verbosity={self.verbosity}, num_threads={self.num_threads}"
        )


settings = Settings()
