"""What scvi-tools keeps in `scvi.utils`, and what to use in its place."""

from __future__ import annotations

from typing import Any

from cellvae.errors import missing_name_error

__all__: list[str] = []

ATTRIBUTIONS = (
    "SCANVI.predict(ig_interpretability=True) attributes each prediction to genes by integrated "
    "gradients"
)
INSTEAD = {
    "FastSHAP": ATTRIBUTIONS,
    "Surrogate": ATTRIBUTIONS,
    "attrdict": "registries here are read by attribute and by key alike",
    "track": "use tqdm or rich.progress",
    "is_package_installed": "use importlib.util.find_spec",
    "dependencies": "an error names the package that is missing and how to install it",
    "error_on_missing_dependencies": (
        "an error names the package that is missing and how to install it"
    ),
    "unsupported_if_adata_minified": "methods that need counts say so of minified cells",
    "mlflow_logger": "use train(logger=lightning.pytorch.loggers.MLFlowLogger(...))",
}
"""Parts of scvi-tools that are not here, and what to use in their place."""


def __getattr__(name: str) -> Any:
    raise missing_name_error("cellvae.utils", name, INSTEAD, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
