"""Training methods of a model: `train`, the searches before it, and its default callbacks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cellvae.errors import InvalidOptionError
from cellvae.estimator.base_model import BaseModel
from cellvae.estimator.minified_cells import refuse_minified
from cellvae.estimator.resume import state_folder
from cellvae.estimator.training_run import run_training, search_inputs
from cellvae.settings import settings

if TYPE_CHECKING:
    from cellvae.train.callbacks.protocols import Callback
    from cellvae.train.options.train_kwargs import ParsedTrainKwargs
    from cellvae.train.options.train_options import TrainOptions
    from cellvae.train.search.learning_rate_search import LearningRateSearch


class TrainingMixin(BaseModel):
    """A model that can be trained."""

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | str | list[int] = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        load_sparse_tensor: bool = False,
        batch_size: int | None = None,
        early_stopping: bool | str | Callback | None = None,
        datasplitter_kwargs: Mapping[str, Any] | None = None,
        plan_config: Any = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        datamodule: Any = None,
        trainer_config: Any = None,
        *,
        callbacks: Callback | Sequence[Callback] | Mapping[str, Any] | None = None,
        seed: int | None = None,
        resume: bool | str | Path | None = None,
        run_dir: str | Path | None = None,
        reset: bool = False,
        on_nan: Literal["stop_restore", "raise", "skip_batch", "ignore"] = "stop_restore",
        on_interrupt: Literal["stop", "raise"] = "stop",
        **trainer_kwargs: Any,
    ) -> None:
        """Train the model; a second call continues the training of the first.

        However the run ends, by an error or Ctrl-C too, the model can be used afterwards: with the
        best weights if a metric was monitored, else with the last finite ones. A further run that
        fails leaves the model unchanged. `training_report` says how the run ended.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; by default 400, fewer above 20,000 cells.
        accelerator, devices
            Device, as in `lightning.Trainer`; `"auto"` is a CUDA device if there is one.
        train_size, validation_size
            Fractions of the cells; by default 0.9 and the rest. Remaining cells are for testing.
        shuffle_set_split
            Whether cells are shuffled before the split.
        load_sparse_tensor
            Accepted as in scvi-tools, without effect: sparse counts are never made dense as a
            whole here.
        batch_size
            Cells per optimizer step, of all devices together; by default 128, or what the model
            trains best with (256 for TOTALVI). `batch_size_per_device` is the number on each.
        early_stopping
            Whether training stops when `early_stopping_monitor` (`"elbo_validation"`) has not
            improved by `early_stopping_min_delta` (0) for `early_stopping_patience` (45) checks,
            after `early_stopping_warmup_epochs` (0). The best weights are restored unless
            `early_stopping_restore_best=False`. A metric's name or a callback work as well.
        datasplitter_kwargs
            `external_indexing=[train, validation, test]`, `drop_last`, `shuffle`, `num_workers`.
        plan_config, trainer_config
            Defaults for `plan_kwargs` and for arguments of this call: dictionaries or dataclasses.
        plan_kwargs
            `optimizer`, `optimizer_creator`, `lr`, `weight_decay`, `eps`, `update_only_decoder`,
            `fused_optimizer`, `n_epochs_kl_warmup` (half of the run, at most 400),
            `n_steps_kl_warmup`, `min_kl_weight`, `max_kl_weight`, `reduce_lr_on_plateau`,
            `lr_factor`, `lr_patience`, `lr_threshold`, `lr_scheduler_metric`, `lr_min`, `compile`,
            `compile_kwargs`, `on_step`, `adversarial_classifier` (True trains a classifier of the
            batches, which the latent variables learn to fool), `scale_adversarial_loss`.
            `lr`, `weight_decay`, `eps`, the lengths of the warm-up, `reduce_lr_on_plateau` and
            `adversarial_classifier` can also be given as arguments of this call.
        datamodule
            Not supported yet.
        callbacks
            Lightning callbacks, such as :class:`~cellvae.train.SaveCheckpoint`; one, several, or a
            dictionary, in which `{"nan_guard": None}` removes a default one.
        seed
            Seed of split, order and noise; by default `settings.seed`, else the seed of the
            previous run, else a random one.
        resume
            `"auto"` resumes an interrupted run if there is one, else starts a new run, and saves
            the state of the run after every epoch. A path resumes from that state. `ckpt_path`
            means the same.
        run_dir
            Folder for all files of the run: state, checkpoints, logs.
        reset
            Whether earlier training is discarded: new weights, split, optimizer and history.
        on_nan
            What happens if a loss or gradient is not finite; the weights are never updated with
            it. `"stop_restore"` ends the run with the best or last finite weights and a warning,
            `"raise"` with an error; `"skip_batch"` skips the step; `"ignore"` does not check.
        on_interrupt
            Whether a run that was ended by Ctrl-C (after its current batch) returns, or raises
            KeyboardInterrupt. A second Ctrl-C aborts at once.
        **trainer_kwargs
            Further arguments of early stopping (`early_stopping_mode`, `_combine`, `_baseline`,
            `_patience_epochs`, `_stopping_threshold` ...), `lr_schedule="cosine"`,
            `ema_decay=0.99` (validates and keeps a moving average of the weights),
            `accumulate={0: 4}`, `max_time="00:08:00:00"`, `check_val_every_n_epoch`,
            `steps_per_block` (optimizer steps that Lightning sees as one batch),
            `placement` (`"device"` or `"memory"`: where the cells are stored while training on a
            GPU), `capture_steps` (steps on a GPU are replayed from a CUDA graph: `"auto"` once the
            first have been equal to plain ones, `True` unseen, `False` never),
            `enable_checkpointing`, `checkpointing_monitor`, `learning_rate_monitor`,
            `enable_progress_bar`, `progress_bar_refresh_rate`, `simple_progress_bar`, `logger`,
            and any argument of `lightning.Trainer`.

        Raises
        ------
        UnknownOptionError
            If a keyword is misspelt, at any depth; before any data are read.
        InvalidOptionError
            If an argument has an invalid value, or a monitored metric is never logged.
        ResumeError
            If the run to resume had other cells, genes, categories or hyperparameters.
        TrainingError
            If the loss was not finite before the first update, or with `on_nan="raise"`.
        """
        refuse_minified(self.adata, "train a model")
        if datamodule is not None:
            raise InvalidOptionError(
                "datamodule is not supported yet: give the cells as an AnnData."
            )
        given = {
            "max_epochs": max_epochs,
            "accelerator": accelerator,
            "devices": devices,
            "train_size": train_size,
            "validation_size": validation_size,
            "shuffle_set_split": shuffle_set_split,
            "load_sparse_tensor": load_sparse_tensor,
            "batch_size": batch_size,
            "early_stopping": early_stopping,
            "datasplitter_kwargs": datasplitter_kwargs,
            "plan_config": plan_config,
            "plan_kwargs": plan_kwargs,
            "trainer_config": trainer_config,
            "callbacks": callbacks,
            "seed": seed,
            "resume": resume,
            "run_dir": run_dir,
            "reset": reset,
            "on_nan": on_nan,
            "on_interrupt": on_interrupt,
        }
        # An argument left at its default is not given, so that configs and the model decide.
        signature = inspect.signature(TrainingMixin.train).parameters
        kwargs = {k: v for k, v in given.items() if v is not signature[k].default}
        run_training(self, self.parse_train_kwargs(kwargs | trainer_kwargs))

    def parse_train_kwargs(self, kwargs: Mapping[str, Any]) -> ParsedTrainKwargs:
        """Options and callbacks of a run, with the model's own defaults for `train`.

        Parameters
        ----------
        kwargs
            Keyword arguments of :meth:`train`.

        Raises
        ------
        UnknownOptionError, InvalidOptionError
            As for :meth:`train`.
        """
        from cellvae.train.options.train_kwargs import parse_train_kwargs, to_kwargs

        defaults = self.train_defaults(kwargs)
        if defaults:
            plan_defaults = defaults.pop("plan_kwargs", {})
            plan = to_kwargs(kwargs.get("plan_config"), "plan_config")
            trainer = to_kwargs(kwargs.get("trainer_config"), "trainer_config")
            kwargs = {
                **kwargs,
                "plan_config": {**plan_defaults, **plan},
                "trainer_config": {**defaults, **trainer},
            }
        return parse_train_kwargs(
            kwargs,
            progress_default=settings.progress_bar,
            loss_weights=[*self.module.loss_weights],
            learns_labels=self.semisupervised_labels() is not None,
        )

    def lr_find(
        self,
        min_lr: float = 1e-6,
        max_lr: float = 1.0,
        num_steps: int = 100,
        mode: Literal["exponential", "linear"] = "exponential",
        early_stop_threshold: float | None = 4.0,
        plot: str | Path | None = None,
        *,
        batch_size: int | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> LearningRateSearch:
        """Search for a learning rate: record the loss while the rate grows from low to high.

        A copy of the network is trained; the model, its history and the states of all random
        number generators do not change. The KL term, and an adversarial classifier if `plan_kwargs`
        has one, count fully. Use the result as
        `model.train(plan_kwargs={"lr": found.suggestion})` after `found = model.lr_find()`.

        Parameters
        ----------
        min_lr, max_lr, num_steps, mode
            Lowest and highest rate, number of rates, and their spacing.
        early_stop_threshold
            The search ends when the loss is this many times the lowest; None to never stop early.
        plot
            File for a figure of loss by learning rate.
        batch_size, plan_kwargs, seed
            As for :meth:`train`.

        Returns
        -------
        Rates, losses and a suggestion, which `found.plot()` draws.
        """
        from cellvae.train.search.learning_rate_search import find_learning_rate

        refuse_minified(self.adata, "search a learning rate")
        options = self._search_options(batch_size, plan_kwargs, seed)
        rows, cells, run_seed = search_inputs(self, options)
        return find_learning_rate(
            self.module,
            rows,
            cells,
            seed=run_seed,
            batch_size=options.loader.batch_size,
            optimizer=options.optimizer,
            adversarial=options.adversarial,
            min_lr=min_lr,
            max_lr=max_lr,
            num_steps=num_steps,
            mode=mode,
            early_stop_threshold=early_stop_threshold,
            plot=plot,
            device=self.device,
        )

    def find_batch_size(
        self,
        mode: Literal["power", "binsearch"] = "power",
        start: int = 128,
        steps_per_trial: int = 3,
        max_trials: int = 25,
        max_val: int = 8192,
        margin: float = 0.05,
        *,
        plan_kwargs: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> int:
        """Search for the largest batch size that fits in memory, by training copies of the network.

        Parameters
        ----------
        mode
            `"power"` doubles the batch size until a batch does not fit; `"binsearch"` then bisects
            between the last two sizes.
        start, max_val
            First and largest batch size.
        steps_per_trial, max_trials
            Optimizer steps with each batch size, and number of batch sizes.
        margin
            Fraction that `"binsearch"` subtracts if memory was the limit.
        plan_kwargs, seed
            As for :meth:`train`.
        """
        from cellvae.train.search.batch_size_search import find_batch_size

        refuse_minified(self.adata, "search a batch size")
        options = self._search_options(start, plan_kwargs, seed)
        rows, cells, run_seed = search_inputs(self, options)
        return find_batch_size(
            self.module,
            rows,
            cells,
            seed=run_seed,
            mode=mode,
            start=start,
            steps_per_trial=steps_per_trial,
            max_trials=max_trials,
            max_val=max_val,
            margin=margin,
            optimizer=options.optimizer,
            adversarial=options.adversarial,
            device=self.device,
        )

    def _search_options(
        self, batch_size: int | None, plan_kwargs: Mapping[str, Any] | None, seed: int | None
    ) -> TrainOptions:
        """Options of the run that a search tries out."""
        kwargs: dict[str, Any] = {"plan_kwargs": plan_kwargs or {}, "early_stopping": False}
        given = {"batch_size": batch_size, "seed": seed}
        kwargs |= {name: value for name, value in given.items() if value is not None}
        return self.parse_train_kwargs(kwargs).options

    def default_callbacks(self, **train_kwargs: Any) -> dict[str, Callback]:
        """Callbacks that `train` adds by default, by name.

        An instance in `callbacks` replaces the default of its class;
        `callbacks={"nan_guard": None, "mine": MyCallback()}` removes one by its name.

        Parameters
        ----------
        **train_kwargs
            Keyword arguments of :meth:`train`, such as `early_stopping=True`.
        """
        from cellvae.train.callbacks.defaults import default_callbacks

        parsed = self.parse_train_kwargs(train_kwargs)
        run_dir = parsed.options.run_dir
        return default_callbacks(
            parsed.options,
            parsed.callbacks,
            state_dir=state_folder(self, parsed, None if run_dir is None else Path(run_dir)),
            run_dir=None if run_dir is None else Path(run_dir),
        )
