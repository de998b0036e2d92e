"""Weight of the KL term by epoch or by step."""

from __future__ import annotations

from dataclasses import dataclass

from cellvae.core.log import warn
from cellvae.errors import TrainingWarning
from cellvae.train.options.optimizer_options import (
    WarmupOptions,
)

# Epochs over which scVI's KL weight grows where the run is long enough.
AUTO_EPOCHS = 400
# Fraction of a shorter run over which it grows: docs/decisions/0002.
AUTO_FRACTION = 0.5
# Runs of fewer epochs grow it by steps.
FEW_EPOCHS = 10


@dataclass(frozen=True, kw_only=True)
class KLWarmup:
    """KL weight that grows linearly from `minimum` to `maximum`.

    The first epoch (or step) has the minimum, number `n_epochs` (or `n_steps`) the maximum.
    """

    n_epochs: int | None
    n_steps: int | None
    minimum: float
    maximum: float
    floor: float = 0.0
    """Weight that an earlier run had reached already."""

    def weight_at(self, epoch: int, step: int) -> float:
        """Weight in an epoch and at an optimizer step, both counted from 0."""
        slope = self.maximum - self.minimum
        if self.n_epochs:
            weight = min(self.maximum, self.minimum + slope * epoch / self.n_epochs)
        elif self.n_epochs is None and self.n_steps:
            weight = min(self.maximum, self.minimum + slope * step / self.n_steps)
        else:
            weight = self.maximum
        return max(weight, min(self.floor, self.maximum))

    @property
    def by_step(self) -> bool:
        """Whether the weight changes within an epoch."""
        return self.n_epochs is None and bool(self.n_steps)


def plan_warmup(
    options: WarmupOptions, max_epochs: int, steps_per_epoch: int, floor: float = 0.0
) -> KLWarmup:
    """Warm-up of a run; warns if the weight will not reach its maximum.

    A step count without an epoch count is used as it is, as in scvi-tools.
    """
    n_epochs, n_steps = options.n_epochs, options.n_steps
    if n_epochs == "auto":
        n_epochs = None
        if n_steps is None and max_epochs < FEW_EPOCHS:
            n_steps = int(AUTO_FRACTION * max_epochs * steps_per_epoch)
        elif n_steps is None:
            n_epochs = min(AUTO_EPOCHS, int(AUTO_FRACTION * max_epochs))
    warmup = KLWarmup(
        n_epochs=n_epochs,
        n_steps=n_steps,
        minimum=options.minimum,
        maximum=options.maximum,
        floor=floor,
    )
    last = warmup.weight_at(max_epochs - 1, max_epochs * steps_per_epoch - 1)
    option = (
        f"n_epochs_kl_warmup={n_epochs}" if n_epochs else f"n_steps_kl_warmup={options.n_steps}"
    )
    # A last weight of 399/400 is what 400 epochs of warm-up in 400 epochs mean.
    short = (
        n_epochs > max_epochs if n_epochs else max_epochs * steps_per_epoch < (options.n_steps or 0)
    )
    if last < options.maximum and short:
        warn(
            f"The KL weight will only reach {last:.3g} of {options.maximum:g}: {option} is longer "
            f"than the run ({max_epochs} epochs of {steps_per_epoch} steps). Leave it out to warm "
            "up within the run.",
            TrainingWarning,
        )
    return warmup
