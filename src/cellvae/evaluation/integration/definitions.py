"""Definitions of the scores of a latent space, with papers and packages that agree."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from cellvae.evaluation.integration.scib import scib_version

LUECKEN = "Luecken et al. 2022"
DEFINITIONS: MappingProxyType[str, str] = MappingProxyType(
    {
        "knn_label_accuracy": "fraction of cells with the most common label of their k neighbours",
        "knn_label_f1": "macro F1 score of the most common label of k neighbours",
        "ilisi": (
            "LISI of batches (Korsunsky et al. 2019), median scaled to 0..1; 90 neighbours with "
            "the cell itself, perplexity 30, as in scib-metrics 0.5 and 0.6"
        ),
        "clisi": (
            "LISI of labels (Korsunsky et al. 2019), median scaled to 0..1; 90 neighbours with "
            "the cell itself, perplexity 30, as in scib-metrics 0.5 and 0.6"
        ),
        "asw_batch": (
            f"silhouette of batches within labels, 1 - |width| ({LUECKEN}); Euclidean, nearest "
            "batch, as silhouette_batch of scib-metrics"
        ),
        "bras": (
            "batch removal adapted silhouette (Rautenstrauch, Ohler 2025); cosine, mean of all "
            "other batches, as in scib-metrics from 0.5.5 on"
        ),
        "asw_label": f"silhouette of labels, scaled to 0..1 ({LUECKEN}); Euclidean",
        "isolated_labels": (
            f"silhouette of the labels of the fewest batches ({LUECKEN}), as in scib-metrics"
        ),
        "nmi": "normalised mutual information of labels and k-means clusters",
        "ari": "adjusted Rand index of labels and k-means clusters",
        "graph_connectivity": (
            f"fraction of the cells of a label in its largest connected part, mean ({LUECKEN}); k "
            "neighbours either way, where scib-metrics follows them one way"
        ),
        "pcr": "fraction of the variance of the latent that batches do not explain (regression)",
    }
)
"""Definition of each score of this package."""


def definitions_of(names: Sequence[str]) -> dict[str, str]:
    """Definition of each score; for those of scib-metrics, with its version.

    Parameters
    ----------
    names
        Names of scores, such as `"ilisi"` or `"scib_ilisi"`.
    """
    version = scib_version()
    return {
        name: f"{name.removeprefix('scib_')} of scib-metrics {version}"
        if name.startswith("scib_")
        else DEFINITIONS[name]
        for name in names
    }
