"""Metrics that a search follows: their direction, and the callbacks that log scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.defaults import produced_metrics
from cellvae.train.callbacks.evaluation.integration_evaluation import IntegrationEvaluation
from cellvae.train.callbacks.evaluation.scib_callback import BATCH, BIO, TOTAL, ScibCallback
from cellvae.train.callbacks.evaluation.scib_metric_names import BATCH_METRICS, BIO_METRICS
from cellvae.train.options.callback_kwargs import callbacks_from_mapping
from cellvae.train.options.metric_names import canonical_name, check_monitor, metric_names

if TYPE_CHECKING:
    from cellvae.estimator.model import Model

PREFIX = "eval/"
BIO_TITLES = {title: name for name, titles in BIO_METRICS.items() for title in titles.values()}
BATCH_TITLES = {title: name for name, titles in BATCH_METRICS.items() for title in titles.values()}
PACKAGE_SCORES = ("KBET",)
"""Scores that only the package scib-metrics has."""


def search_metric_names(metric: Any) -> tuple[str, ...]:
    """Names of metrics, from one name or several.

    Raises
    ------
    InvalidOptionError
        If there are none, or something is no name.
    """
    names = (metric,) if isinstance(metric, str) else metric
    if (
        not isinstance(names, Sequence)
        or not names
        or not all(isinstance(name, str) and name for name in names)
    ):
        raise InvalidOptionError(
            f"Expected metric to be the name of a metric, or a list of names; got {metric!r:.100}."
        )
    return tuple(dict.fromkeys(names))


def score_callbacks(
    metrics: Sequence[str],
    model: Model,
    given: Sequence[Any] = (),
    *,
    every_n_epochs: int = 5,
    n_cells: int | None = 5_000,
    indices: Any = None,
    seed: int = 0,
) -> tuple[Any, ...]:
    """Callbacks that log the scores of integration among some metrics.

    `eval/<score>` is a score of :class:`~cellvae.train.IntegrationEvaluation`; names of
    scib-metrics, such as `"Total"`, are those of :class:`~cellvae.train.ScibCallback`. Batches and
    labels are those of the set-up.

    Parameters
    ----------
    metrics
        Names of metrics.
    model
        Model of the cells of the search.
    given
        Callbacks of the user, whose metrics need no other.
    every_n_epochs, n_cells, indices, seed
        As for these callbacks.

    Raises
    ------
    InvalidOptionError
        If there is no such score, or the set-up lacks a column for one.
    """
    missing = [name for name in metrics if name not in produced_metrics(given)]
    keys = model.registration.keys
    batch_key = getattr(keys, "batch_key", None)
    labels_key = getattr(keys, "labels_key", None)
    found: list[Any] = []
    scores = [name.removeprefix(PREFIX) for name in missing if name.startswith(PREFIX)]
    if scores:
        if batch_key is None and labels_key is None:
            raise InvalidOptionError(
                f"Expected batch_key or labels_key in the set-up, which '{PREFIX}{scores[0]}' needs"
                "; got none. Or give a callback that logs it: search_space={'callbacks': [...]}."
            )
        found.append(
            IntegrationEvaluation(
                batch_key,
                labels_key,
                metrics=scores,
                every_n_epochs=every_n_epochs,
                n_cells=n_cells,
                indices=indices,
                seed=seed,
                baseline=False,
            )
        )
    titles = [name for name in missing if name in (BIO, BATCH, TOTAL, *BIO_TITLES, *BATCH_TITLES)]
    if titles:
        all_bio, all_batch = {BIO, TOTAL} & {*titles}, {BATCH, TOTAL} & {*titles}
        bio: Any = [BIO_TITLES[name] for name in titles if name in BIO_TITLES]
        of_batches: Any = [BATCH_TITLES[name] for name in titles if name in BATCH_TITLES]
        found.append(
            ScibCallback(
                True if all_bio else bio or None,
                True if all_batch else of_batches or None,
                n_cells,
                indices,
                package="scib-metrics" if {*PACKAGE_SCORES} & {*titles} else "cellvae",
                every_n_epochs=every_n_epochs,
                seed=seed,
            )
        )
    return tuple(found)


def check_metrics(
    metrics: Sequence[str], model: Model, train_params: Any, callbacks: Sequence[Any]
) -> None:
    """Check that every metric of a search will be measured.

    Raises
    ------
    InvalidOptionError
        If one will not, with the closest name.
    """
    extra, parts = model.module.extra_metric_names, model.module.loss_parts
    own, _ = callbacks_from_mapping(train_params.get("callbacks"))
    produced = produced_metrics([*callbacks, *own])
    known = [
        *metric_names("validation", extra, parts),
        *metric_names("train", extra, parts),
        *produced,
    ]
    more_may_come = any(type(c).__module__.partition(".")[0] != "cellvae" for c in own)
    for name in metrics:
        if canonical_name(name, known) not in known:
            check_monitor(name, known, more_may_come=more_may_come)
