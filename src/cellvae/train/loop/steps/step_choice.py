"""Which step a run makes."""

from __future__ import annotations

from typing import Any

from cellvae.contracts import Module
from cellvae.errors import InvalidOptionError
from cellvae.train.loop.steps.adversarial_step import AdversarialStep
from cellvae.train.loop.steps.gradient_step import GradientStep, LossFunction, Step
from cellvae.train.options.adversarial_options import AdversarialOptions


def has_adversary(module: Module[Any], options: AdversarialOptions) -> bool:
    """Whether training of a module has an adversarial classifier.

    Raises
    ------
    InvalidOptionError
        If one is requested and there is nothing that it could read or tell apart.
    """
    possible = module.n_latent > 0 and module.n_adversarial_classes > 1
    if options.classifier is not True:
        wanted = module.adversarial if options.classifier in ("auto", None) else False
        return wanted and possible
    if possible:
        return True
    kind = type(module).__name__.removesuffix("Module")
    if module.n_latent > 0 and module.n_adversarial_classes == 1:
        raise InvalidOptionError(
            "Expected cells of at least two batches for adversarial_classifier=True; got one. Set "
            "up the data with batch_key=..., or leave adversarial_classifier out."
        )
    raise InvalidOptionError(
        "Expected a model with latent variables and batches for adversarial_classifier=True; "
        f"{kind} has none that a classifier could read. Leave adversarial_classifier out."
    )


def make_step(
    module: Module[Any],
    options: AdversarialOptions,
    *,
    seed: int,
    loss: LossFunction | None = None,
) -> Step:
    """Make the step of a run.

    Parameters
    ----------
    module
        The network and its loss.
    options
        Whether there is an adversarial classifier, and its weight.
    seed
        Seed of what the step trains beside the module.
    loss
        `module.loss`, compiled or not.

    Raises
    ------
    InvalidOptionError
        As :func:`has_adversary`.
    """
    if has_adversary(module, options):
        return AdversarialStep(module, loss, scale=options.scale, seed=seed)
    return GradientStep(module, loss)
