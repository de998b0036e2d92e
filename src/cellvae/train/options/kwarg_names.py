"""Names of the keyword arguments of `train`, by the options that they set."""

from __future__ import annotations

import dataclasses

from cellvae.train.options.train_options import EarlyStoppingOptions

# Keyword arguments of plan_kwargs: those that keep their name as fields, and {argument: field}.
OPTIMIZER_KWARGS = (
    "optimizer",
    "optimizer_creator",
    "lr",
    "weight_decay",
    "eps",
    "update_only_decoder",
    "fused_optimizer",
)
PLATEAU_KWARGS = {
    "lr_factor": "factor",
    "lr_patience": "patience",
    "lr_threshold": "threshold",
    "lr_scheduler_metric": "metric",
    "lr_min": "minimum",
}
WARMUP_KWARGS = {
    "n_epochs_kl_warmup": "n_epochs",
    "n_steps_kl_warmup": "n_steps",
    "min_kl_weight": "minimum",
    "max_kl_weight": "maximum",
}
ADVERSARIAL_KWARGS = {
    "adversarial_classifier": "classifier",
    "scale_adversarial_loss": "scale",
}
OTHER_PLAN_KWARGS = (
    "reduce_lr_on_plateau",
    "compile",
    "compile_kwargs",
    "on_step",
    "on_epoch",
    "kl_weight",
)
SPLIT_KWARGS = ("train_size", "validation_size", "shuffle_set_split", "external_indexing")
LOADER_KWARGS = ("batch_size", "batch_size_per_device", "shuffle", "drop_last", "num_workers")
# Keyword arguments of plan_kwargs that train() has too, as for some models of scvi-tools.
TOP_LEVEL_PLAN_KWARGS = (
    "lr",
    "weight_decay",
    "eps",
    "n_epochs_kl_warmup",
    "n_steps_kl_warmup",
    "reduce_lr_on_plateau",
    "adversarial_classifier",
)
LABEL_KWARGS = ("n_samples_per_label",)
# Keyword arguments of scvi-tools' data loaders without effect: there are no worker processes.
IGNORED_LOADER_KWARGS = (
    "pin_memory",
    "persistent_workers",
    "load_sparse_tensor",
    "drop_dataset_tail",
    "prefetch_factor",
)
UNSUPPORTED_PRECISION = ("bf16-true", "16-true", "transformer-engine", "transformer-engine-float16")
"""Values of Lightning's `precision` that hold weights and counts in half precision or less."""
EARLY_STOPPING_KWARGS = {
    f"early_stopping_{field.name}": field.name for field in dataclasses.fields(EarlyStoppingOptions)
}
PROGRESS_KWARGS = {
    "enable_progress_bar": "enabled",
    "progress_bar_refresh_rate": "refresh_rate",
    "simple_progress_bar": "simple",
}
RUN_KWARGS = (
    "max_epochs",
    "seed",
    "accelerator",
    "devices",
    "num_nodes",
    "sync_batchnorm",
    "check_val_every_n_epoch",
    "learning_rate_monitor",
    "accumulate",
    "lr_schedule",
    "ema_decay",
    "on_nan",
    "on_interrupt",
    "resume",
    "run_dir",
    "reset",
    "steps_per_block",
    "capture_steps",
    "placement",
)
OTHER_KWARGS = (
    *(
        "early_stopping",
        "enable_checkpointing",
        "checkpointing_monitor",
        "callbacks",
        "load_sparse_tensor",
    ),
    *("plan_kwargs", "plan_config", "datasplitter_kwargs", "trainer_config", "log_save_dir"),
)


# Keyword arguments of scvi-tools and Lightning that have another name here.
MOVED_KWARGS = {
    "use_gpu": "Use accelerator='gpu' or accelerator='cpu'.",
    "check_nan_gradients": "Every run looks for them: see on_nan.",
    "save_checkpoint": "Use enable_checkpointing=True, or callbacks=[SaveCheckpoint(...)].",
}
