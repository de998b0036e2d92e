"""Text about a model: its options, its set-up, and how far it has been trained."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellvae.estimator.base_model import BaseModel

# Options that are always shown; others are shown if they are not the default.
MAIN_OPTIONS = ("n_latent", "n_hidden", "n_layers", "gene_likelihood", "dispersion")


def summary(model: BaseModel) -> str:
    """Options, set-up and training of a model, one line each."""
    registration = model.registration
    setup = registration.keys.to_json()
    options = {
        f.name: getattr(model.config, f.name)
        for f in fields(model.config)
        if f.name in MAIN_OPTIONS or getattr(model.config, f.name) != f.default
    }
    features = ", ".join(f"{len(axis):,} {axis.name}" for axis in registration.axes.values())
    shape = f"{registration.n_cells:,} cells x {features}"
    lines = [
        f"{type(model).__name__} model of {shape}",
        f"  options: {join_pairs(options)}",
        f"  set up:  {join_pairs(setup) if setup else 'counts in X'}",
    ]
    if registration.modality_cells:
        counts = registration.modality_cells.items()
        lines.append(f"  counts:  {', '.join(f'{n:,} cells of {name}' for name, n in counts)}")
    lines.append(f"  trained: {describe_training(model)}")
    if model.minified_data_type is not None:
        lines.append(f"  cells:   minified, {model.minified_data_type}")
    return "\n".join(lines)


def describe_training(model: BaseModel) -> str:
    """Number of epochs that a model has been trained for, and the best one."""
    if not model.is_trained:
        return "no"
    text = f"{len(model.history.epochs)} epochs"
    report = model.training_report
    if report is not None and report.best_score is not None:
        text += f", best epoch {report.best_epoch} ({report.monitor} {report.best_score:.2f})"
    return text


def join_pairs(values: dict[str, Any]) -> str:
    """Names and values as keyword arguments: `n_latent=10, n_hidden=128`."""
    return ", ".join(f"{name}={value!r}" for name, value in values.items())
