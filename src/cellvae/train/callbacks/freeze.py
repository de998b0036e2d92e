"""Freezing of weights for a run or for its first epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import lightning.pytorch as pl
from torch import nn

from cellvae.core.frozen_weights import FrozenWeights
from cellvae.core.options import check_arguments
from cellvae.core.platform.torch_adapter import NORM_AND_DROPOUT
from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.training_plan import TrainingPlan

Choice = str | Sequence[str] | Callable[[str, nn.Parameter], bool]
"""Weights of a network: names of modules or parameters, or a predicate of name and parameter."""


class FrozenParts:
    """Frozen weights of a network that can be unfrozen again.

    Parameters
    ----------
    network
        Network with the weights.
    choice
        Which weights.
    batch_norm
        Whether BatchNorm and Dropout layers of the frozen modules are in eval mode too.

    Raises
    ------
    InvalidOptionError
        If a name is not one of the network, or nothing is selected.
    """

    def __init__(self, network: nn.Module, choice: Choice, *, batch_norm: bool = True) -> None:
        self.network = network
        self.frozen_weights = select_weights(network, choice, batch_norm=batch_norm)
        parameters = dict(network.named_parameters())
        self.parameters = [parameters[name] for name in self.frozen_weights.parameters]
        self.layers = [network.get_submodule(name) for name in self.frozen_weights.eval_modules]
        self.is_frozen = False

    def freeze(self) -> None:
        """Freeze the parameters, and put their BatchNorm and Dropout layers in eval mode."""
        if not self.is_frozen:
            self.requires_grad_flags = [p.requires_grad for p in self.parameters]
            self.training_flags = [layer.training for layer in self.layers]
        self.is_frozen = True
        self.frozen_weights.freeze_in(self.network)
        for parameter in self.parameters:
            parameter.grad = None
        self.set_eval_mode()

    def set_eval_mode(self) -> None:
        """Put the layers back in eval mode, in case something has put them in train mode."""
        if self.is_frozen:
            self.frozen_weights.set_eval_mode_in(self.network)

    def unfreeze(self) -> None:
        """Restore the flags that parameters and layers had before."""
        if self.is_frozen:
            for parameter, flag in zip(self.parameters, self.requires_grad_flags, strict=True):
                parameter.requires_grad_(flag)
            for layer, training in zip(self.layers, self.training_flags, strict=True):
                layer.train(training)
        self.is_frozen = False


class Freeze(pl.Callback):
    """Freezes parts of the network for the whole run or for its first epochs.

    The weights are not trained, and their BatchNorm and Dropout layers are in eval mode, so that
    running means and variances do not change by a bit. At the end of the run all flags are
    restored.

    Parameters
    ----------
    modules
        Names of modules or parameters, such as `"z_encoder"`; or a function of name and parameter
        that returns whether to freeze the parameter.
    until_epoch
        First epoch of the run, counted from 0, in which the parts are trained; None for never.
    freeze_batch_norm
        Whether BatchNorm and Dropout layers are in eval mode too.

    Raises
    ------
    InvalidOptionError
        If a name is not one of the network, nothing is selected, or nothing is left to train.

    Examples
    --------
    >>> from cellvae.train.callbacks.freeze import Freeze
    >>> Freeze("z_encoder", until_epoch=10).until_epoch
    10
    """

    group = Group.MUTATOR
    # Modes of layers are not changed between the steps of a block.
    supports_blocks: ClassVar[bool] = True

    @check_arguments()
    def __init__(
        self, modules: Choice, *, until_epoch: int | None = None, freeze_batch_norm: bool = True
    ) -> None:
        super().__init__()
        if until_epoch is not None and until_epoch < 0:
            raise InvalidOptionError(f"Expected until_epoch to be at least 0; got {until_epoch}.")
        self.modules = modules
        self.until_epoch = until_epoch
        self.freeze_batch_norm = freeze_batch_norm
        self.frozen: FrozenParts | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Select the parts, and check that something is left to train."""
        network = network_of(pl_module)
        self.frozen = FrozenParts(network, self.modules, batch_norm=self.freeze_batch_norm)
        if self.until_epoch is None:
            check_trainable_left(network, self.frozen.parameters, "Freeze")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freeze the parts, or unfreeze them from `until_epoch` on."""
        assert self.frozen is not None
        if self.until_epoch is None or trainer.current_epoch < self.until_epoch:
            self.frozen.freeze()
            check_trainable_left(network_of(pl_module), [], "Freeze")
        else:
            self.frozen.unfreeze()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Put the layers back in eval mode."""
        if self.frozen is not None:
            self.frozen.set_eval_mode()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Unfreeze the parts."""
        if self.frozen is not None:
            self.frozen.unfreeze()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Unfreeze the parts."""
        if self.frozen is not None:
            self.frozen.unfreeze()


def network_of(pl_module: pl.LightningModule) -> nn.Module:
    """The network that a Lightning module trains: that of a plan, else the module itself."""
    return pl_module.module if isinstance(pl_module, TrainingPlan) else pl_module


def select_weights(network: nn.Module, choice: Choice, *, batch_norm: bool) -> FrozenWeights:
    """Weights to freeze, with the BatchNorm and Dropout layers that belong to them.

    Raises
    ------
    InvalidOptionError
        If a name is not one of the network, or nothing is selected.
    """
    all_parameters = dict(network.named_parameters())
    if callable(choice):
        selected = [p for name, p in all_parameters.items() if choice(name, p)]
    else:
        selected = []
        modules = dict(network.named_modules())
        for name in [choice] if isinstance(choice, str) else choice:
            if name in all_parameters:
                selected.append(all_parameters[name])
            elif name and name in modules:
                selected += modules[name].parameters()
            else:
                raise unknown_name_error(name, network)
    if not selected:
        raise InvalidOptionError(
            f"Expected modules to choose parameters to freeze; {choice!r} chose none of "
            f"{len(all_parameters)}."
        )
    # A parameter that several modules share has one name among those of the network.
    name_of = {id(p): name for name, p in all_parameters.items()}
    layers = norm_and_dropout_in(network, choice, selected) if batch_norm else ()
    return FrozenWeights(
        parameters=tuple(dict.fromkeys(name_of[id(p)] for p in selected)),
        eval_modules=tuple(layers),
    )


def unknown_name_error(name: str, network: nn.Module) -> InvalidOptionError:
    """Error for a name that the network does not have."""
    known = [k for k, _ in network.named_modules() if k] + [
        k for k, _ in network.named_parameters()
    ]
    top = [k for k, _ in network.named_children()]
    top += [k for k, _ in network.named_parameters(recurse=False)]
    return InvalidOptionError(
        f"Expected the name of a module or parameter of {type(network).__name__}; got '{name}'."
        f"{did_you_mean(name, known)} It is made of: {', '.join(top)}."
    )


def norm_and_dropout_in(
    network: nn.Module, choice: Choice, parameters: Sequence[nn.Parameter]
) -> Iterator[str]:
    """Names of BatchNorm and Dropout layers in modules all of whose parameters are selected."""
    selected = {id(p) for p in parameters}
    names = [] if callable(choice) else [choice] if isinstance(choice, str) else list(choice)
    seen: set[int] = set()
    for name, module in network.named_modules():
        is_selected = [id(p) in selected for p in module.parameters()]
        if name in names or (is_selected and all(is_selected)):
            for layer_name, layer in module.named_modules(prefix=name):
                if isinstance(layer, NORM_AND_DROPOUT) and id(layer) not in seen:
                    seen.add(id(layer))
                    yield layer_name


def check_trainable_left(network: nn.Module, frozen: Sequence[nn.Parameter], caller: str) -> None:
    """Check that something is left to train.

    Raises
    ------
    InvalidOptionError
        If all parameters are frozen.
    """
    frozen_ids = {id(p) for p in frozen}
    if not any(p.requires_grad and id(p) not in frozen_ids for p in network.parameters()):
        raise InvalidOptionError(
            f"Expected {caller} to leave something to train; got a network whose parameters are "
            "all frozen. Choose fewer modules."
        )
