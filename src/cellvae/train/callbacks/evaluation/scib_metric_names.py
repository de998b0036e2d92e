"""Metrics of scib-metrics by name: the scores that each is made of, and the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from cellvae.errors import InvalidOptionError, did_you_mean

BIO_METRICS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "isolated_labels": {"isolated_labels": "Isolated labels"},
        "nmi_ari_cluster_labels_kmeans": {"nmi": "KMeans NMI", "ari": "KMeans ARI"},
        "silhouette_label": {"asw_label": "Silhouette label"},
        "clisi_knn": {"clisi": "cLISI"},
    }
)
BATCH_METRICS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "bras": {"bras": "BRAS"},
        "silhouette_batch": {"asw_batch": "Silhouette batch"},
        "ilisi_knn": {"ilisi": "iLISI"},
        "kbet_per_label": {"kbet": "KBET"},
        "graph_connectivity": {"graph_connectivity": "Graph connectivity"},
        "pcr_comparison": {"pcr": "PCR"},
    }
)
"""Metrics of scib-metrics, the scores here that each is made of, and what these are logged as."""
DEFAULT_BIO_METRICS = (
    "isolated_labels",
    "nmi_ari_cluster_labels_kmeans",
    "silhouette_label",
    "clisi_knn",
)
DEFAULT_BATCH_METRICS = (
    "bras",
    "ilisi_knn",
    "kbet_per_label",
    "graph_connectivity",
    "pcr_comparison",
)
UNAVAILABLE_METRICS: Mapping[str, str] = MappingProxyType(
    {
        "nmi_ari_cluster_labels_leiden": "use nmi_ari_cluster_labels_kmeans",
        "sbee": "use bras",
    }
)
"""Metrics of scib-metrics that are not here and not among its defaults, and what to use."""
SCIB_METRICS_PACKAGE: Mapping[str, str] = MappingProxyType(
    {"asw_label": "silhouette_label", "asw_batch": "silhouette_batch"}
)
"""Scores that scib-metrics has under other names."""


def select_scib_metrics(
    given: Any, known: Mapping[str, Mapping[str, str]], default: Sequence[str], caller: str
) -> dict[str, str]:
    """Requested scores and the names under which they are logged, in the order of the table.

    Raises
    ------
    InvalidOptionError
        If there is no such metric, or one is to have options of its own.
    """
    if given is None or given is False:
        return {}
    requested: Any = dict.fromkeys(default, True) if given is True else given
    if is_dataclass(given) and not isinstance(given, type):
        requested = asdict(given)
    if isinstance(requested, str):
        requested = {requested: True}
    if not isinstance(requested, Mapping):
        requested = dict.fromkeys(requested, True)
    for name, value in requested.items():
        if name not in known and (value or name not in UNAVAILABLE_METRICS):
            hint = (
                f" For {name}, {UNAVAILABLE_METRICS[name]}." if name in UNAVAILABLE_METRICS else ""
            )
            raise InvalidOptionError(
                f"Expected {caller} among {', '.join(known)}; got '{name}'."
                f"{hint or did_you_mean(str(name), known)}"
            )
        if not isinstance(value, bool | np.bool_):
            raise InvalidOptionError(
                f"Expected {caller} to be True or False for '{name}'; got {value!r:.80}. Metrics "
                "have no options here; cellvae.evaluation has them as functions."
            )
    return {
        score: title
        for name, scores in known.items()
        if requested.get(name)
        for score, title in scores.items()
    }
