"""Parts of the network that do not learn for a while, or at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import lightning.pytorch as pl
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.dropout import _DropoutNd as Dropout

from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.training_plan import TrainingPlan

Choice = str | Sequence[str] | Callable[[str, nn.Parameter], bool]
"""Parts of a network: names of modules or parameters, or a function of each parameter."""


class FrozenParts:
    """Parts of a network that can be held still and let go again.

    Parameters
    ----------
    network
        What the parts are of.
    choice
        Which parts.
    batch_norm
        Whether normalisation and dropout of the parts are held too.

    Raises
    ------
    InvalidOptionError
        If a name is not one of the network, or nothing is chosen.
    """

    def __init__(self, network: nn.Module, choice: Choice, *, batch_norm: bool = True) -> None:
        self.parameters = select_parameters(network, choice)
        self.layers = (
            list(norm_and_dropout_in(network, choice, self.parameters)) if batch_norm else []
        )
        self.requires_grad_flags = [p.requires_grad for p in self.parameters]
        self.training_flags = [layer.training for layer in self.layers]
        self.is_frozen = False

    def freeze(self) -> None:
        """Keep weights as they are, and normalisation and dropout as in use of the model."""
        if not self.is_frozen:
            self.requires_grad_flags = [p.requires_grad for p in self.parameters]
            self.training_flags = [layer.training for layer in self.layers]
        self.is_frozen = True
        for parameter in self.parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        self.set_eval_mode()

    def set_eval_mode(self) -> None:
        """Put the layers in eval mode again, where something else put them in train mode."""
        if self.is_frozen:
            for layer in self.layers:
                if layer.training:
                    layer.eval()

    def unfreeze(self) -> None:
        """Give parameters and layers the flags that they had before."""
        if self.is_frozen:
            for parameter, trained in zip(self.parameters, self.requires_grad_flags, strict=True):
                parameter.requires_grad_(trained)
            for layer, in_training in zip(self.layers, self.training_flags, strict=True):
                layer.train(in_training)
        self.is_frozen = False


class Freeze(pl.Callback):
    """Keeps parts of the network as they are, for the whole run or its first epochs.

    The weights are not trained, and batch normalisation and dropout of the parts work as they do in
    a trained model: running means and variances stay as they are to the last bit. At the end of
    the run every flag is as it was before.

    Parameters
    ----------
    modules
        Names of modules or parameters, such as `"z_encoder"`; or a function of name and parameter
        that says whether the parameter is kept.
    until_epoch
        Epoch of the run, counted from 0, in which the parts are trained first; None for never.
    freeze_batch_norm
        Whether batch normalisation and dropout are kept too.

    Raises
    ------
    InvalidOptionError
        If a name is not one of the network, nothing is chosen, or nothing is left to train.

    Examples
    --------
    >>> from cellvae.train.callbacks.freeze import Freeze
    >>> Freeze("z_encoder", until_epoch=10).until_epoch
    10
    """

    group = Group.MUTATOR

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
        """Find the parts; all of the network can be trained for later."""
        network = network_of(pl_module)
        self.frozen = FrozenParts(network, self.modules, batch_norm=self.freeze_batch_norm)
        if self.until_epoch is None:
            check_trainable_left(network, self.frozen.parameters, "Freeze")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hold the parts, or let them go."""
        assert self.frozen is not None
        if self.until_epoch is None or trainer.current_epoch < self.until_epoch:
            self.frozen.freeze()
            check_trainable_left(network_of(pl_module), [], "Freeze")
        else:
            self.frozen.unfreeze()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Keep layers in eval mode whatever happened since the last step."""
        if self.frozen is not None:
            self.frozen.set_eval_mode()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the parts go."""
        if self.frozen is not None:
            self.frozen.unfreeze()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Let the parts go."""
        if self.frozen is not None:
            self.frozen.unfreeze()


def network_of(pl_module: pl.LightningModule) -> nn.Module:
    """The network that a Lightning module trains: that of a plan, else the module itself."""
    return pl_module.module if isinstance(pl_module, TrainingPlan) else pl_module


def select_parameters(network: nn.Module, choice: Choice) -> list[nn.Parameter]:
    """Parameters that were chosen.

    Raises
    ------
    InvalidOptionError
        If a name is not one of the network, or nothing is chosen.
    """
    everything = dict(network.named_parameters())
    if callable(choice):
        chosen = {name: p for name, p in everything.items() if choice(name, p)}
    else:
        chosen = {}
        modules = dict(network.named_modules())
        for name in [choice] if isinstance(choice, str) else choice:
            if name in everything:
                chosen[name] = everything[name]
            elif name and name in modules:
                chosen |= {f"{name}.{k}": p for k, p in modules[name].named_parameters()}
            else:
                raise unknown_name_error(name, network)
    if not chosen:
        raise InvalidOptionError(
            f"Expected modules to choose parameters to freeze; {choice!r} chose none of "
            f"{len(everything)}."
        )
    return list({id(p): p for p in chosen.values()}.values())


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
) -> Iterator[nn.Module]:
    """Normalisation and dropout of the modules of which all parameters were chosen."""
    chosen = {id(p) for p in parameters}
    names = [] if callable(choice) else [choice] if isinstance(choice, str) else list(choice)
    seen: set[int] = set()
    for name, part in network.named_modules():
        own = [id(p) in chosen for p in part.parameters()]
        if name in names or (own and all(own)):
            for layer in part.modules():
                if isinstance(layer, BatchNorm | Dropout) and id(layer) not in seen:
                    seen.add(id(layer))
                    yield layer


def check_trainable_left(network: nn.Module, held: Sequence[nn.Parameter], who: str) -> None:
    """Check that something is left to train.

    Raises
    ------
    InvalidOptionError
        If all parameters are frozen.
    """
    frozen = {id(p) for p in held}
    if not any(p.requires_grad and id(p) not in frozen for p in network.parameters()):
        raise InvalidOptionError(
            f"Expected {who} to leave something to train; got a network whose parameters are all "
            "frozen. Choose fewer modules."
        )
