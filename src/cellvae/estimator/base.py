"""Model: assembles data, network, training and files; what users hold in their hands."""

from __future__ import annotations

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from cellvae.contracts import Module, Rows
from cellvae.core.folders import check_output_folder
from cellvae.core.log import warn
from cellvae.core.options import check_kwargs, from_kwargs
from cellvae.data import Registration, Split, cell_indices
from cellvae.data.batches.shuffling import as_index_tensor
from cellvae.data.setup.fields import Field
from cellvae.data.setup.keys import check_is_anndata, store_keys, stored_keys
from cellvae.data.setup.minified import (
    MinifiedType,
    drop_count_fields,
    minified_record,
    read_minified,
)
from cellvae.data.storage.fingerprint import fingerprint
from cellvae.data.storage.memory import ColumnRows
from cellvae.errors import (
    CellvaeError,
    DataMismatchError,
    DataWarning,
    FileFormatError,
    InvalidOptionError,
    NotSetUpError,
    NotTrainedError,
)
from cellvae.estimator.device import pick_device
from cellvae.estimator.minify import (
    check_has_counts,
    check_minified_by,
    minify,
    refuse_minified,
)
from cellvae.estimator.model_io import ModelFolder, SavedModel, read_model
from cellvae.estimator.resume import state_folder
from cellvae.estimator.run_report import write_report
from cellvae.estimator.summary import print_setup_tables, summary
from cellvae.estimator.training_run import run_training, search_inputs
from cellvae.scvi.attribute_aliases import ScviToolsNames
from cellvae.scvi.export_model import export_scvi_model
from cellvae.scvi.files import check_other_format, is_scvi_model, remove_other_format
from cellvae.scvi.import_model import load_scvi_model
from cellvae.scvi.network_attributes import add_network_attributes
from cellvae.scvi.registry import (
    AnnDataManager,
    data_registry,
    get_from_registry,
    get_setup_arg,
    get_state_registry,
    get_var_names,
    load_registry,
    make_registry,
    view_registry,
    view_setup_args,
)
from cellvae.settings import settings
from cellvae.train.records.history import History
from cellvae.train.records.training_report import TrainingReport

if TYPE_CHECKING:
    from anndata import AnnData
    from lightning.pytorch import Callback
    from numpy.typing import NDArray

    from cellvae.inference.protocols import CellChoice
    from cellvae.train.options.train_kwargs import ParsedTrainKwargs
    from cellvae.train.resume.optimizer_carryover import OptimizerCarryover
    from cellvae.train.search.learning_rate_search import LearningRateSearch

M = TypeVar("M", bound="Model")

ANNDATA_WRITE_KWARGS = (
    "as_dense",
    "compression",
    "compression_opts",
    "convert_strings_to_categoricals",
)
"""Arguments of `AnnData.write_h5ad` that `save` hands on."""


class Model(ScviToolsNames):
    """Base of all models: an estimator on cells of an AnnData.

    A subclass gives its options (`Config`), the words of its set-up (`Keys`), its kind of batch
    (`Batch`), its columns (:meth:`fields`) and its network (:meth:`build`), and lists its
    abilities.
    """

    Config: ClassVar[type]
    Keys: ClassVar[type]
    Batch: ClassVar[type]

    config: Any
    registration: Registration
    module: Module[Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # Editors and `help` show the options of the model, which its Config alone declares.
        keyword = inspect.Parameter.KEYWORD_ONLY
        options = [
            inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type)
            for f in fields_of(cls.Config)
        ]
        data = inspect.Parameter("adata", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        cls.__signature__ = inspect.Signature([data, *options])  # type: ignore[attr-defined]

    def __init__(self, adata: AnnData, **config: Any) -> None:
        name = type(self).__name__
        chosen: Any = from_kwargs(type(self).Config, config, f"{name}()")
        keys = stored_keys(adata, name, type(self).Keys)
        if keys is None:
            raise NotSetUpError(
                f"Expected an AnnData that was set up for {name}; this one was not. "
                f"Call {name}.setup_anndata(adata, ...) first."
            )
        refuse_minified(adata, "make a model")
        with warnings.catch_warnings():
            # What is odd but allowed was told when the data were set up.
            warnings.simplefilter("ignore", DataWarning)
            registration = Registration.of(adata, keys, self.fields(keys))
        if self.expects_counts(chosen) and not registration.integers:
            warn(
                "Expected raw counts; got values that are not whole numbers. If the counts are in "
                f"a layer, name it: {name}.setup_anndata(adata, layer=...).",
                DataWarning,
            )
        self.assemble(registration, chosen, self.build(registration, chosen))
        self.attach(adata, new=False)
        self.init_from_data(self.module, self.rows_of_model())

    def assemble(self, registration: Registration, config: Any, module: Module[Any]) -> None:
        """Put together a model that has no cells yet."""
        self.registration = registration
        self.config = config
        self.module = module.eval()
        add_network_attributes(module, config, registration)
        self._adata: AnnData | None = None
        self.rows: ColumnRows[Any] | None = None
        self.fingerprint = ""
        self.cell_names: Any = None
        self.split: Split | None = None
        self.history = History()
        self.training_report: TrainingReport | None = None
        self.carryover: OptimizerCarryover | None = None
        self.is_trained = False

    def attach(self, adata: AnnData, *, new: bool) -> None:
        """Make the cells of an AnnData the model's own.

        Raises
        ------
        DataMismatchError
            If its genes or categories are not those of the model.
        """
        self.rows = self.read(adata, new=new)
        self.fingerprint = fingerprint(self.rows)
        self._adata, self.cell_names = adata, adata.obs_names

    @property
    def adata(self) -> AnnData | None:
        """Cells of the model; None where it was loaded without.

        Another AnnData can be assigned. It is checked as one given to a method is: genes are
        matched by name, categories by value, and `setup_anndata` need not be called; nothing in it
        is changed. The split of earlier training stays as it was.

        Raises
        ------
        InvalidDataError
            If something else is assigned, or values are there that no model can use.
        UnknownKeyError
            If a column or layer is not there.
        DataMismatchError
            If genes or categories are not those of the model. It keeps the cells that it had.
        """
        return self._adata

    @adata.setter
    def adata(self, adata: AnnData) -> None:
        check_is_anndata(adata)
        self.attach(adata, new=True)

    @classmethod
    def register(cls, adata: AnnData, keys: Any) -> None:
        """Check the data that keys point to, and store the keys in the AnnData."""
        Registration.of(adata, keys, drop_count_fields(cls.fields(keys), minified_record(adata)))
        store_keys(adata, cls.__name__, keys)

    @staticmethod
    @abstractmethod
    def fields(keys: Any) -> tuple[Field, ...]:
        """Columns that the model reads."""

    @staticmethod
    @abstractmethod
    def build(registration: Registration, config: Any) -> Module[Any]:
        """Network for these data and options."""

    @staticmethod
    def expects_counts(config: Any) -> bool:
        """Whether the likelihood is one of whole numbers."""
        return True

    @staticmethod
    def init_from_data(module: Any, rows: Any) -> None:
        """Take constants of the network from the data; most models have none."""

    def required_callbacks(self) -> Sequence[Callback]:
        """Callbacks that training this model needs, whatever the user's own; most need none."""
        return ()

    def train_defaults(self, words: Mapping[str, Any]) -> dict[str, Any]:
        """Words of `train` that this model has by default, before what the user gave.

        Parameters
        ----------
        words
            What the user gave.
        """
        return {}

    def training_labels(self) -> NDArray[np.int64] | None:
        """Label of each of the model's cells, -1 where unknown; None for a model without labels."""
        return None

    # Cells

    def read(self, adata: AnnData, *, new: bool) -> ColumnRows[Any]:
        """Rows of an AnnData, its genes and categories matched by name."""
        fields, batch_type = self.fields(self.registration.keys), type(self).Batch
        record = minified_record(adata)
        if record is None:
            return self.registration.read(adata, fields, batch_type, check_counts=new)
        check_minified_by(record, self.module)
        return read_minified(self.registration, adata, record, fields, batch_type, check_counts=new)

    def check_trained(self) -> None:
        """Refuse a model that has not been trained.

        Raises
        ------
        NotTrainedError
            If so.
        """
        if not self.is_trained:
            raise NotTrainedError(
                f"Expected a trained model; this {type(self).__name__} is not. Call train() first."
            )

    def rows_for(self, adata: AnnData | None) -> ColumnRows[Any]:
        """Cells to answer for, once the model has been trained.

        Raises
        ------
        NotTrainedError
            If it has not.
        DataMismatchError
            If genes or categories of `adata` are not those of the model, or no cells are given.
        """
        self.check_trained()
        return (
            self.rows_of_model()
            if adata is None or adata is self.adata
            else self.read(adata, new=True)
        )

    def rows_with_counts(self, adata: AnnData | None) -> Rows[Any]:
        """Cells as `rows_for` has them, with their counts.

        Raises
        ------
        NotTrainedError, DataMismatchError
            As `rows_for` does, or if the counts of a minified AnnData were dropped.
        """
        rows = self.rows_for(adata)
        check_has_counts(rows)
        return rows

    def rows_of_model(self) -> ColumnRows[Any]:
        """Cells that the model holds, read anew if the AnnData has other cells than it had.

        Raises
        ------
        DataMismatchError
            If it holds none, those that are there now do not fit the model, or their counts were
            changed.
        """
        if self.rows is None or self.adata is None:
            raise DataMismatchError("The model was loaded without cells. Give adata.")
        if not self.adata.obs_names.equals(self.cell_names):
            self.attach(self.adata, new=True)
        elif fingerprint(self.rows) != self.fingerprint:
            raise DataMismatchError(
                "The counts were changed in place after the model was made (normalised?). Keep raw "
                "counts in a layer, adata.layers['counts'] = adata.X.copy(), and name it in "
                "setup_anndata; or put the counts back."
            )
        return self.rows

    def cell_indices(self, adata: AnnData | None, indices: CellChoice) -> Tensor:
        """Numbers of the cells asked for, in the order asked."""
        whole = self.adata if adata is None else adata
        assert whole is not None
        return as_index_tensor(cell_indices(indices, whole))

    # Minified data

    @property
    def minified_data_type(self) -> MinifiedType | None:
        """What the model's AnnData holds in place of counts, or beside them; None for counts."""
        record = None if self.adata is None else minified_record(self.adata)
        return None if record is None else record.data_type

    def minify_adata(
        self,
        minified_data_type: MinifiedType = "latent_posterior_parameters",
        use_latent_qzm_key: str = "X_latent_qzm",
        use_latent_qzv_key: str = "X_latent_qzv",
        silent: bool = False,
    ) -> None:
        """Keep the latent posterior of each cell, and drop the counts.

        `model.adata` becomes a new AnnData, the one before stays as it is; without counts, its `X`
        and layers are sparse matrices without entries. Questions that need no counts are answered
        from the posterior as before, also after saving and loading; others are refused, and so is
        further training.

        Parameters
        ----------
        minified_data_type
            `"latent_posterior_parameters"`, or `"latent_posterior_parameters_with_counts"` to keep
            the counts too.
        use_latent_qzm_key, use_latent_qzv_key
            Entries of `adata.obsm` in which mean and variance of the posterior are kept. The sum
            of the counts is kept in `adata.obs["observed_lib_size"]`.
        silent
            Whether no progress is shown.

        Raises
        ------
        NotTrainedError
            If the model has not been trained.
        DataMismatchError
            If the counts were dropped already, or there are no cells.
        InvalidOptionError
            If the type does not exist, or both keys are the same.
        """
        small = minify(
            self, minified_data_type, use_latent_qzm_key, use_latent_qzv_key, silent=silent
        )
        self.attach(small, new=False)

    # Training

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
        signature = inspect.signature(Model.train).parameters
        words = {k: v for k, v in given.items() if v is not signature[k].default} | trainer_kwargs
        run_training(self, self.parse_train_kwargs(words))

    def parse_train_kwargs(self, words: Mapping[str, Any]) -> ParsedTrainKwargs:
        """What words of `train` ask for, where this model's own defaults stand for the others."""
        from cellvae.train.options.train_kwargs import parse_train_kwargs, to_kwargs

        own = self.train_defaults(words)
        if own:
            plan, given = own.pop("plan_kwargs", {}), dict(words)
            of_plan, of_trainer = given.get("plan_config"), given.get("trainer_config")
            given["plan_config"] = {**plan, **to_kwargs(of_plan, "plan_config")}
            given["trainer_config"] = {**own, **to_kwargs(of_trainer, "trainer_config")}
            words = given
        return parse_train_kwargs(
            words,
            progress_default=settings.progress_bar,
            loss_weights=[*self.module.loss_weights],
            learns_labels=self.training_labels() is not None,
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
        rows, cells, optimizer, chosen = search_inputs(self, batch_size, plan_kwargs, seed)
        return find_learning_rate(
            self.module,
            rows,
            cells,
            seed=chosen,
            batch_size=batch_size,
            optimizer=optimizer,
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
        rows, cells, optimizer, chosen = search_inputs(self, start, plan_kwargs, seed)
        return find_batch_size(
            self.module,
            rows,
            cells,
            seed=chosen,
            mode=mode,
            start=start,
            steps_per_trial=steps_per_trial,
            max_trials=max_trials,
            max_val=max_val,
            margin=margin,
            optimizer=optimizer,
            device=self.device,
        )

    def default_callbacks(self, **train_words: Any) -> dict[str, Callback]:
        """Callbacks that `train` adds by itself, by the names by which they can be left out.

        An instance given in `callbacks` replaces the default of its kind;
        `callbacks={"nan_guard": None, "mine": MyCallback()}` leaves one out.

        Parameters
        ----------
        **train_words
            Words of `train`, such as `early_stopping=True`.
        """
        from cellvae.train.callbacks.defaults import default_callbacks

        parsed = self.parse_train_kwargs(train_words)
        run_dir = parsed.options.run_dir
        return default_callbacks(
            parsed.options,
            parsed.callbacks,
            state_dir=state_folder(self, parsed, None if run_dir is None else Path(run_dir)),
            run_dir=None if run_dir is None else Path(run_dir),
        )

    @property
    def train_indices(self) -> np.ndarray | None:
        """Positions of the training cells; None before training."""
        return None if self.split is None else self.split.train

    @property
    def validation_indices(self) -> np.ndarray | None:
        """Positions of the validation cells; None before training."""
        return None if self.split is None else self.split.validation

    @property
    def test_indices(self) -> np.ndarray | None:
        """Positions of the test cells; None before training."""
        return None if self.split is None else self.split.test

    # Device

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.module.parameters()).device

    def to_device(self, device: str | int | torch.device) -> None:
        """Move the network to a device."""
        self.module.to(torch.device(device))

    # Files

    def save(
        self,
        dir_path: str | Path,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        *,
        format: Literal["cellvae", "scvi-tools"] = "cellvae",
        **anndata_write_kwargs: Any,
    ) -> None:
        """Save the model into a folder of JSON and safetensors files; nothing in them can run.

        Parameters
        ----------
        dir_path
            Folder, made if it is not there.
        prefix
            Beginning of the names of the files, for several models in one folder.
        overwrite
            Whether a model that is there is replaced, in one go.
        save_anndata
            Whether the cells are saved too.
        format
            `"scvi-tools"` writes a folder that scvi-tools 1.4 and 1.5 load, with the same weights.
        **anndata_write_kwargs
            Arguments of `AnnData.write_h5ad`, except for cells in backed mode.

        Raises
        ------
        InvalidOptionError
            If there is a model already and `overwrite` is False, there are no cells to save, or
            the path is a file.
        UnknownOptionError
            If a keyword is misspelt.
        """
        known = ("prefix", "overwrite", "save_anndata", "format", *ANNDATA_WRITE_KWARGS)
        check_kwargs(anndata_write_kwargs, known, "save()")
        folder = check_output_folder(dir_path, "dir_path")
        if save_anndata and self.adata is None:
            raise InvalidOptionError("save_anndata=True needs cells; the model was loaded without.")
        adata = self.adata if save_anndata else None
        if format not in ("cellvae", "scvi-tools"):
            raise InvalidOptionError(
                f"Expected format to be 'cellvae' or 'scvi-tools'; got {format!r}."
            )
        check_other_format(folder, prefix or "", format, overwrite=overwrite)
        if format == "scvi-tools":
            if is_scvi_model(folder, prefix or "") and not overwrite:
                raise InvalidOptionError(
                    f"{folder} holds a model of scvi-tools already. Give overwrite=True, or "
                    "another folder."
                )
            export_scvi_model(self, folder, prefix or "", adata)
            remove_other_format(folder, prefix or "", format)
            return
        ModelFolder(self, self.split, self.registration.n_cells).write(
            dir_path,
            self.history,
            prefix=prefix or "",
            overwrite=overwrite,
            adata=adata,
            anndata_words=anndata_write_kwargs,
        )
        remove_other_format(folder, prefix or "", format)
        if adata is not None and adata.isbacked:
            # Writing it closed its file, and the rows held on to that.
            self.attach(adata, new=False)

    @classmethod
    def load(
        cls: type[M],
        dir_path: str | Path,
        adata: AnnData | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
    ) -> M:
        """Model from a folder.

        Parameters
        ----------
        dir_path
            Folder that :meth:`save` or a checkpoint wrote, or scvi-tools. Nothing in a file is run;
            of scvi-tools' files the history is left out.
        adata
            Cells for the model; genes are matched by name. None for those saved with it, if any.
        accelerator, device
            Where the network is put; `"auto"` is a CUDA device if there is one.
        prefix
            Beginning of the names of the files.

        Raises
        ------
        FileFormatError
            If files are missing, damaged, or of another model or version.
        DataMismatchError
            If genes or categories of `adata` are not those of the model.
        """
        at = pick_device(accelerator, device)
        if is_scvi_model(dir_path, prefix or ""):
            return cast("M", load_scvi_model(cls, dir_path, adata, prefix or "", at))
        saved = read_model(dir_path, prefix or "")
        model = cls.from_saved(saved)
        model.to_device(at)
        cells = saved.adata() if adata is None else adata
        if cells is not None:
            model.attach(cells, new=True)
        return model

    @classmethod
    def convert_legacy_save(
        cls,
        dir_path: str | Path,
        output_dir_path: str | Path,
        overwrite: bool = False,
        prefix: str | None = None,
    ) -> None:
        """Save a model of scvi-tools, of whichever version, as this package does.

        Models of scvi-tools before 0.15, in three files, can also be loaded as they are.

        Parameters
        ----------
        dir_path
            Folder of the model of scvi-tools.
        output_dir_path
            Folder for the converted model; cells that were saved with it come along.
        overwrite
            Whether a model that is there is replaced.
        prefix
            Beginning of the names of the files, before and after.

        Raises
        ------
        FileFormatError
            If there is no such model, or its files are damaged.
        InvalidOptionError
            If there is a model already and `overwrite` is False.
        """
        cpu = torch.device("cpu")
        model = load_scvi_model(cls, dir_path, None, prefix or "", cpu)
        model.save(output_dir_path, prefix, overwrite, save_anndata=model.adata is not None)

    @classmethod
    def load_reference(cls: type[M], dir_path: str | Path, prefix: str = "") -> M:
        """Model from a folder, without the cells that may be there; on the CPU."""
        if is_scvi_model(dir_path, prefix):
            cpu = torch.device("cpu")
            return cast("M", load_scvi_model(cls, dir_path, None, prefix, cpu, with_cells=False))
        return cls.from_saved(read_model(dir_path, prefix))

    @classmethod
    def from_saved(cls: type[M], saved: SavedModel) -> M:
        """Model as it was saved, without cells; on the CPU.

        Raises
        ------
        FileFormatError
            If it is another model, or one that cannot be built.
        """
        where = saved.files.folder
        if saved.name != cls.__name__:
            raise FileFormatError(
                f"Expected a saved {cls.__name__} in {where}; got a {saved.name}. "
                f"Use {saved.name}.load or cellvae.load."
            )
        config = saved.config(cls.Config)
        registration = saved.registration(cls.Keys, cls.fields)
        model = cls.__new__(cls)
        try:
            with torch.device("meta"):
                module = cls.build(registration, config)
        except (CellvaeError, ValueError, KeyError, RuntimeError) as error:
            raise FileFormatError(
                f"The network that {where} describes cannot be built: {error}"
            ) from error
        model.assemble(registration, config, saved.load_weights_into(module))
        model.module.freeze(saved.frozen_weights(model.module))
        model.history, model.split, model.training_report = (
            saved.history(),
            saved.split(registration.n_cells),
            saved.report(),
        )
        model.is_trained = saved.is_trained
        return model

    # What it is

    report = write_report
    get_from_registry = get_from_registry
    get_state_registry = get_state_registry
    data_registry = data_registry
    get_setup_arg = get_setup_arg
    get_var_names = get_var_names
    view_registry = view_registry
    load_registry = classmethod(load_registry)
    view_setup_args = classmethod(view_setup_args)

    @property
    def registry(self) -> dict[str, Any]:
        """Everything that is known of the set-up, in the form of scvi-tools."""
        return make_registry(self)

    @property
    def adata_manager(self) -> AnnDataManager:
        """What the model reads from its AnnData, asked for as notebooks of scvi-tools do."""
        return AnnDataManager(self)

    @property
    def summary_string(self) -> str:
        """What the model is, what it reads, and how far it has been trained."""
        return summary(self)

    def __repr__(self) -> str:
        return summary(self)

    def view_anndata_setup(
        self, adata: AnnData | None = None, hide_state_registries: bool = False
    ) -> None:
        """Print what the model reads from its AnnData, and the categories that it knows.

        Parameters
        ----------
        adata
            Another AnnData to check against the model first.
        hide_state_registries
            Whether the tables of categories are left out.
        """
        if adata is not None:
            self.read(adata, new=True)
        print_setup_tables(
            type(self).__name__, self.registration, categories=not hide_state_registries
        )
