"""Models: one file each, one line of the table each."""

from cellvae.estimator.model import Model
from cellvae.model.amortized_lda import AmortizedLDA
from cellvae.model.linear_scvi import LinearSCVI
from cellvae.model.models import MODELS, register
from cellvae.model.multivi import MULTIVI
from cellvae.model.peakvi import PEAKVI
from cellvae.model.poissonvi import POISSONVI
from cellvae.model.scanvi import SCANVI
from cellvae.model.scvi import SCVI
from cellvae.model.solo import SOLO
from cellvae.model.totalanvi import TOTALANVI
from cellvae.model.totalvi import TOTALVI
from cellvae.scvi.missing_models import missing_model_error
from cellvae.train.options.default_epochs import get_max_epochs_heuristic

__all__ = [
    "MODELS",
    "MULTIVI",
    "PEAKVI",
    "POISSONVI",
    "SCANVI",
    "SCVI",
    "SOLO",
    "TOTALANVI",
    "TOTALVI",
    "AmortizedLDA",
    "LinearSCVI",
    "Model",
    "get_max_epochs_heuristic",
    "register",
]


def __getattr__(name: str) -> object:
    raise missing_model_error("cellvae.model", name, MODELS)


def __dir__() -> list[str]:
    return sorted(__all__)
