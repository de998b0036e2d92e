"""Scores of a latent space, computed from arrays."""

from cellvae.evaluation.integration.clusters import ClusterAgreement, cluster_agreement
from cellvae.evaluation.integration.connectivity import graph_connectivity
from cellvae.evaluation.integration.definitions import definitions_of
from cellvae.evaluation.integration.integration_scores import integration_scores
from cellvae.evaluation.integration.lisi import clisi, ilisi
from cellvae.evaluation.integration.pcr import pcr
from cellvae.evaluation.integration.silhouette import (
    asw_batch,
    asw_label,
    bras,
    isolated_labels,
    silhouette,
)
from cellvae.evaluation.label_transfer import knn_f1
from cellvae.evaluation.neighbours import batch_mixing, knn_accuracy

__all__ = [
    "ClusterAgreement",
    "asw_batch",
    "asw_label",
    "batch_mixing",
    "bras",
    "clisi",
    "cluster_agreement",
    "definitions_of",
    "graph_connectivity",
    "ilisi",
    "integration_scores",
    "isolated_labels",
    "knn_accuracy",
    "knn_f1",
    "pcr",
    "silhouette",
]


def __dir__() -> list[str]:
    return sorted(__all__)
