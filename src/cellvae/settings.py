"""Settings of the whole process: `cellvae.settings.seed = 0`."""

from __future__ import annotations

import logging
import random
from typing import Literal

from cellvae.core.cpu_threads import cpu_threads
from cellvae.core.log import logger, show_messages
from cellvae.core.options import check_value
from cellvae.core.platform.fork import fork
from cellvae.errors import InvalidOptionError, UnknownOptionError, did_you_mean

IGNORED_SETTINGS = {
    "dl_num_workers": "Cells are read by threads of this process: see num_workers of train().",
    "dl_persistent_workers": "Cells are read by threads of this process.",
    "logging_dir": "Give the folder to run_dir of train(), or to dirpath of a callback.",
    "progress_bar_style": "There is one style of progress bar.",
    "warnings_stacklevel": "Warnings name the line of your own code.",
    "mlflow_set_tracking_uri": "Give train() a logger of your own.",
    "mlflow_set_experiment": "Give train() a logger of your own.",
    "jax_preallocate_gpu_memory": "There are no models in Jax.",
}
"""Settings of scvi-tools that are accepted and have no effect here, with the reason."""


DEFAULT_BATCH_SIZE = 128
"""Cells per batch by default."""


class Settings:
    """Settings of all models in this process.

    Settings that only scvi-tools has are accepted: a message says why they have no effect.

    Raises
    ------
    UnknownOptionError
        If a setting does not exist.
    InvalidOptionError
        If the value of a setting is invalid.
    """

    def __init__(self) -> None:
        self.values: dict[str, object] = {
            "seed": None,
            "batch_size": DEFAULT_BATCH_SIZE,
            "progress_bar": True,
            "kernels": "auto",
        }

    @property
    def seed(self) -> int | None:
        """Seed of splits, weights and training; None draws one from torch's generator.

        Setting it also seeds `random`, NumPy and torch, as scvi-tools does.
        """
        return self.values["seed"]  # type: ignore[return-value]

    @seed.setter
    def seed(self, seed: int | None) -> None:
        number: int | None = check_value(
            "seed", seed, int | None, {"at_least": 0, "at_most": 2**32 - 1}
        )
        self.values["seed"] = number
        if number is not None:
            import numpy as np
            import torch

            random.seed(number)
            np.random.seed(number)
            torch.manual_seed(number)

    @property
    def batch_size(self) -> int:
        """Cells per batch in posterior analysis of a trained model."""
        return self.values["batch_size"]  # type: ignore[return-value]

    @batch_size.setter
    def batch_size(self, batch_size: int) -> None:
        self.values["batch_size"] = check_value("batch_size", batch_size, int, {"at_least": 1})

    @property
    def progress_bar(self) -> bool:
        """Whether long computations show a progress bar."""
        return self.values["progress_bar"]  # type: ignore[return-value]

    @progress_bar.setter
    def progress_bar(self, shown: bool) -> None:
        self.values["progress_bar"] = check_value("progress_bar", shown, bool)

    @property
    def verbosity(self) -> int:
        """Level of the logger of the package, as in the module `logging`."""
        return logging.getLogger("cellvae").getEffectiveLevel()

    @verbosity.setter
    def verbosity(self, level: int | str) -> None:
        known = logging.getLevelNamesMapping()
        name = level.upper() if isinstance(level, str) else level
        if isinstance(name, str) and name not in known:
            raise InvalidOptionError(
                f"Expected verbosity to be a level of logging ({', '.join(known)}); got {level!r}."
                f"{did_you_mean(name, known)}"
            )
        logging.getLogger("cellvae").setLevel(check_value("verbosity", name, int | str))

    @property
    def kernels(self) -> Literal["auto", "compiled", "torch"]:
        """Implementation of likelihoods on a CPU in single precision.

        `"compiled"` kernels make one pass over memory, and are compiled by numba at first use (some
        seconds, cached on disk); `"torch"` makes several passes, on any device and dtype. `"auto"`
        uses compiled kernels from 256 genes on. The results differ by rounding.
        """
        return self.values["kernels"]  # type: ignore[return-value]

    @kernels.setter
    def kernels(self, kernels: Literal["auto", "compiled", "torch"]) -> None:
        self.values["kernels"] = check_value(
            "kernels", kernels, Literal["auto", "compiled", "torch"]
        )

    @property
    def num_threads(self) -> int:
        """Threads that torch uses on a CPU."""
        import torch

        return torch.get_num_threads()

    @num_threads.setter
    def num_threads(self, number: int) -> None:
        import torch

        n_threads = check_value("num_threads", number, int, {"at_least": 1})
        if n_threads > 1 and fork.single_thread_in_child:
            raise InvalidOptionError(
                "Expected num_threads to be 1 in a process that was forked from one whose OpenMP "
                f"library cannot end its threads; got {n_threads}. Start processes with "
                "multiprocessing.get_context('spawn')."
            )
        torch.set_num_threads(n_threads)
        cpu_threads.is_limited = True

    def reset_logging_handler(self) -> None:
        """Show the package's messages on standard error again."""
        show_messages()

    def __getattr__(self, name: str) -> object:
        if name in IGNORED_SETTINGS:
            return self.values.get(name)
        raise AttributeError(f"settings has no '{name}'.")

    def __setattr__(self, name: str, value: object) -> None:
        if name in IGNORED_SETTINGS:
            logger.info("settings.%s has no effect here. %s", name, IGNORED_SETTINGS[name])
            self.values[name] = value
            return
        known = ["seed", "batch_size", "progress_bar", "verbosity", "num_threads", "kernels"]
        if name != "values" and name not in known:
            raise UnknownOptionError(f"settings has no '{name}'.{did_you_mean(name, known)}")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return (
            f"cellvae settings: seed={self.seed}, batch_size={self.batch_size}, "
            f"progress_bar={self.progress_bar}, verbosity={self.verbosity}, "
            f"num_threads={self.num_threads}, kernels={self.kernels}"
        )


settings = Settings()
