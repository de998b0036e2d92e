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
        batch_size: int = 128,
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
        """Train the model; a second call goes on from where the first ended.

        Whatever ends the run, an error or Ctrl-C too, the model can be used afterwards: with the
        best weights where something was monitored, else with the last finite ones; a further run
        that fails leaves the model as it was. `training_report` says what happened.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; by default 400, fewer above 20,000 cells.
        accelerator, devices
            Where to train, as in `lightning.Trainer`; `"auto"` is a CUDA device if there is one.
        train_size, validation_size
            Shares of the cells; by default 0.9 and the rest. What is left over is for testing.
        shuffle_set_split
            Whether cells are shuffled before they are divided.
        load_sparse_tensor
            Accepted for scvi-tools' sake: sparse counts are never made dense as a whole here.
        batch_size
            Cells per optimizer step.
        early_stopping
            Whether training stops when `early_stopping_monitor` (`"elbo_validation"`) has not
            improved by `early_stopping_min_delta` (0) for `early_stopping_patience` (45) checks,
            after `early_stopping_warmup_epochs` (0). The best weights are brought back unless
            `early_stopping_restore_best=False`. A metric's name or a callback work as well.
        datasplitter_kwargs
            `external_indexing=[train, validation, test]`, `drop_last`, `shuffle`, `num_workers`.
        plan_config, trainer_config
            Defaults for `plan_kwargs` and for the words of this call, as dictionary or dataclass.
        plan_kwargs
            `optimizer`, `optimizer_creator`, `lr`, `weight_decay`, `eps`, `update_only_decoder`,
            `fused_optimizer`, `n_epochs_kl_warmup` (half of the run, at most 400),
            `n_steps_kl_warmup`, `min_kl_weight`, `max_kl_weight`, `reduce_lr_on_plateau`,
            `lr_factor`, `lr_patience`, `lr_threshold`, `lr_scheduler_metric`, `lr_min`, `compile`,
            `compile_kwargs`, `on_step`.
            `lr`, `weight_decay`, `eps`, the lengths of the warm-up and `reduce_lr_on_plateau` can
            be given directly.
        datamodule
            Not supported yet.
        callbacks
            Lightning callbacks, such as :class:`~cellvae.train.SaveCheckpoint`; one, several, or a
            dictionary, in which `{"nan_guard": None}` leaves out a default one.
        seed
            Seed of split, order and noise; by default `settings.seed`, or that of the run before,
            or one that is drawn.
        resume
            `"auto"` goes on with an interrupted run if there is one, else starts anew, and keeps
            the state of the run on disk after every epoch. A path goes on with that state.
            `ckpt_path` means the same.
        run_dir
            Folder for everything that the run writes: state, checkpoints, logs.
        reset
            Whether earlier training is forgotten: new weights, split, optimizer and history.
        on_nan
            What happens where a loss or gradient is not finite; it never reaches the weights.
            `"stop_restore"` ends the run with the best or last finite weights and a warning,
            `"raise"` with an error; `"skip_batch"` leaves the step out; `"ignore"` looks away.
        on_interrupt
            Whether a run that Ctrl-C has ended (after its batch) returns, or raises
            KeyboardInterrupt. A second Ctrl-C aborts at once.
        **trainer_kwargs
            Further words of early stopping (`early_stopping_mode`, `_combine`, `_baseline`,
            `_patience_epochs`, `_stopping_threshold` ...), `lr_schedule="cosine"`,
            `accumulate={0: 4}`, `max_time="00:08:00:00"`, `check_val_every_n_epoch`,
            `steps_per_block` (optimizer steps that Lightning sees as one batch),
            `placement` (`"device"` or `"memory"`: where the cells are kept while a GPU learns from
            them), `capture_steps=True` (a GPU repeats a recorded step; not yet tried on one),
            `enable_checkpointing`, `checkpointing_monitor`, `learning_rate_monitor`,
            `enable_progress_bar`, `progress_bar_refresh_rate`, `simple_progress_bar`, `logger`,
            and any argument of `lightning.Trainer`.

        Raises
        ------
        UnknownOptionError
            If a keyword is misspelt, at any depth; before any data are read.
        InvalidOptionError
            If a value is not one that a keyword can take, or nothing measures what is monitored.
        ResumeError
            If the run to go on with had other cells, genes, categories or hyperparameters.
        TrainingError
            If the loss was not finite before anything was learned, or with `on_nan="raise"`.
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
        batch_size: int = 128,
        plan_kwargs: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> LearningRateSearch:
        """Search for a learning rate: the loss while the rate grows from tiny to huge.

        A copy of the network is trained; the model, its history and all random numbers stay as
        they are. After `found = model.lr_find()` comes
        `model.train(plan_kwargs={"lr": found.suggestion})`.

        Parameters
        ----------
        min_lr, max_lr, num_steps, mode
            Rates that are tried: from, to, how many, and how they grow.
        early_stop_threshold
            The search ends when the loss is this many times the smallest; None to go on.
        plot
            File for a figure of loss by rate.
        batch_size, plan_kwargs, seed
            As `train` takes them.

        Returns
        -------
        Rates, losses and a suggestion; `found.plot()` draws them.
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
            batch_size=batch_size,
            optimizer=options.optimizer,
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
        """Search for the largest batch that fits in memory, by training copies of the network.

        Parameters
        ----------
        mode
            `"power"` doubles the batch until it does not fit; `"binsearch"` then halves the
            interval in which the answer lies.
        start, max_val
            First and largest batch that is tried.
        steps_per_trial, max_trials
            Optimizer steps with each size, and how many sizes.
        margin
            Share that `"binsearch"` takes off where memory was the limit.
        plan_kwargs, seed
            As `train` takes them.
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
            device=self.device,
        )

    def _search_options(
        self, batch_size: int, plan_kwargs: Mapping[str, Any] | None, seed: int | None
    ) -> TrainOptions:
        """Options of the run that a search tries out."""
        kwargs: dict[str, Any] = {
            "batch_size": batch_size,
            "plan_kwargs": plan_kwargs or {},
            "early_stopping": False,
        }
        return self.parse_train_kwargs(kwargs if seed is None else kwargs | {"seed": seed}).options

    def default_callbacks(self, **train_kwargs: Any) -> dict[str, Callback]:
        """Callbacks that `train` adds by itself, by the names by which they can be left out.

        An instance given in `callbacks` replaces the default of its kind;
        `callbacks={"nan_guard": None, "mine": MyCallback()}` leaves one out.

        Parameters
        ----------
        **train_kwargs
            Words of `train`, such as `early_stopping=True`.
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
