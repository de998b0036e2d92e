"""Options of a search: how trials are drawn and stopped, and what each may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cellvae.core.options import Options, check_kwargs, option
from cellvae.errors import InvalidOptionError

SchedulerName = Literal["asha", "hyperband", "median", "fifo"]
SearcherName = Literal["random", "hyperopt", "optuna"]
Mode = Literal["min", "max", "auto"]
RESOURCES = ("cpu", "gpu", "memory")


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Options):
    """How trials are drawn and stopped, and what each may use.

    Parameters
    ----------
    num_samples
        Number of trials; with `grid_search`, of trials for each combination.
    scheduler
        What stops trials early; None for nothing.
    searcher
        What draws the options of trials.
    scheduler_kwargs, searcher_kwargs
        Further arguments of these classes of Ray.
    resources
        Processors (`"cpu"`), GPUs (`"gpu"`) and bytes of memory (`"memory"`) of a trial.
    max_concurrent_trials
        Most trials at a time; None for as many as the resources allow.
    time_budget
        Seconds after which all trials are stopped; None for no limit.
    progress
        Whether a line is printed when a trial ends.
    """

    num_samples: int = option(16, at_least=1)
    scheduler: SchedulerName | None = "asha"
    searcher: SearcherName = "random"
    scheduler_kwargs: Mapping[str, Any] = field(default_factory=dict)
    searcher_kwargs: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    max_concurrent_trials: int | None = option(None, at_least=1)
    time_budget: float | None = option(None, above=0)
    progress: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kwargs([*self.resources], RESOURCES, "resources")
        for name, amount in self.resources.items():
            if isinstance(amount, bool) or amount < 0:
                raise InvalidOptionError(
                    f"Expected resources['{name}'] to be at least 0; got {amount!r}."
                )

    def trial_resources(self) -> dict[str, float]:
        """What each trial may use: one processor, and a GPU where there is one, unless given."""
        import torch

        return {"cpu": 1, "gpu": int(torch.cuda.is_available()), **self.resources}

    def n_threads(self) -> int:
        """Threads of a trial, one for each of its processors."""
        return max(1, int(self.trial_resources()["cpu"]))
