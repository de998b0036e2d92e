"""Public names and arguments of scvi-tools, for the test of which of them are here.

Writes `names/<version of scvi-tools>.json`. Run by hand with each version that is compared, 1.4.2
and 1.5.1, in an environment of its own: `python tests/interop/write_names.py`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mudata
import numpy as np
import scvi
import torch

MODELS = {
    "SCVI": scvi.model.SCVI,
    "SCANVI": scvi.model.SCANVI,
    "LinearSCVI": scvi.model.LinearSCVI,
    "PEAKVI": scvi.model.PEAKVI,
    "POISSONVI": scvi.external.POISSONVI,
    "AmortizedLDA": scvi.model.AmortizedLDA,
    "SOLO": scvi.external.SOLO,
    "TOTALVI": scvi.model.TOTALVI,
    "TOTALANVI": scvi.external.TOTALANVI,
    "MULTIVI": scvi.model.MULTIVI,
}
COMPARED_CLOSELY = ("scvi.criticism", "scvi.data", "scvi.distributions", "scvi.nn", "scvi.train")
"""Packages whose functions and classes are compared with their arguments and attributes."""
SETUP = {
    "SCVI": {"batch_key": "batch"},
    "SCANVI": {"batch_key": "batch", "labels_key": "labels", "unlabeled_category": "label_0"},
    "LinearSCVI": {"batch_key": "batch"},
    "PEAKVI": {"batch_key": "batch"},
    "POISSONVI": {"batch_key": "batch"},
    "AmortizedLDA": {},
    "TOTALVI": {"batch_key": "batch", "protein_expression_obsm_key": "protein_expression"},
    "TOTALANVI": {
        "batch_key": "batch",
        "protein_expression_obsm_key": "protein_expression",
        "labels_key": "labels",
        "unlabeled_category": "label_0",
    },
}
SET_BY_THE_MODEL = {
    "n_input",
    "n_regions",
    "n_batch",
    "n_labels",
    "n_continuous_cov",
    "n_cats_per_cov",
    "n_topics",
    "library_log_means",
    "library_log_vars",
    "use_size_factor_key",
    "module",
    "n_classes",
    "n_input_regions",
    "pyro_module",
    "classifier",
    "data_key",
    "labels_key",
    "n_input_genes",
    "n_input_proteins",
    "n_obs",
    "n_panel",
    "panel_key",
    "protein_batch_mask",
    "protein_background_prior_mean",
    "protein_background_prior_scale",
}
"""Arguments of networks and training plans that a model computes and users cannot give."""


def arguments(value: Any) -> list[str] | None:
    """Names of the arguments of a function, method or class; None for anything else."""
    if not callable(value):
        return None
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return None
    return [p.name for p in parameters if p.kind in named and p.name not in ("self", "cls")]


def defaults(value: Any) -> dict[str, Any]:
    """Defaults of the arguments of a method, as far as JSON has them."""
    if not callable(value):
        return {}
    found = {p.name: p.default for p in inspect.signature(value).parameters.values()}
    plain = (bool, int, float, str, type(None))
    return {name: default for name, default in found.items() if isinstance(default, plain)}


def members(owner: type) -> list[str]:
    """Public attributes that a class has from scvi-tools."""
    return [
        name
        for name in sorted(dir(owner))
        if not name.startswith("_")
        and any(name in vars(c) and c.__module__.startswith("scvi.") for c in owner.__mro__)
    ]


def lazy_names(module: ModuleType) -> list[str]:
    """Names that a module gives through its `__getattr__` alone."""
    function = vars(module).get("__getattr__")
    if function is None:
        return []
    found = re.findall(r'name == "([A-Za-z]\w*)"', inspect.getsource(function))
    return [name for name in found if name not in module.__all__]


def namespace(package: str, module: ModuleType) -> dict[str, Any]:
    """Public names of a module: those that it lists, and those that it loads when asked."""
    names: dict[str, Any] = dict.fromkeys(lazy_names(module))
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            continue
        names[name] = None
        if package in COMPARED_CLOSELY and callable(value):
            names[name] = {"arguments": arguments(value)}
            if inspect.isclass(value):
                names[name]["members"] = members(value)
    return dict(sorted(names.items()))


def packages() -> Iterator[tuple[str, ModuleType]]:
    """Packages of scvi-tools with a list of public names, as far as they can be imported."""
    yield "scvi", scvi
    for found in pkgutil.walk_packages(scvi.__path__, "scvi.", onerror=lambda name: None):
        if not found.ispkg or "._" in found.name:
            continue
        try:
            module = importlib.import_module(found.name)
        except ImportError:  # of Jax
            continue
        if hasattr(module, "__all__"):
            yield found.name, module


def trained(name: str) -> Any:
    """A small model after one epoch."""
    adata = scvi.data.synthetic_iid(batch_size=60, n_genes=12)
    if name == "SOLO":
        model = scvi.external.SOLO.from_scvi_model(trained("SCVI"))
    elif name == "MULTIVI":
        model = scvi.model.MULTIVI(several_modalities())
    else:
        MODELS[name].setup_anndata(adata, **SETUP[name])
        model = MODELS[name](adata)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model


def several_modalities() -> Any:
    """Cells with genes, regions and proteins, set up for MULTIVI."""
    mdata = scvi.data.synthetic_iid(
        batch_size=60, n_genes=12, n_proteins=5, n_regions=15, return_mudata=True
    )
    modalities = {
        "rna_layer": "rna",
        "atac_layer": "accessibility",
        "protein_layer": "protein_expression",
    }
    mdata = mudata.MuData({name: mdata[name] for name in modalities.values()})
    mdata.obs["batch"] = np.repeat(["batch_0", "batch_1"], 60)
    scvi.model.MULTIVI.setup_mudata(mdata, batch_key="batch", modalities=modalities)
    return mdata


def described_model(name: str) -> dict[str, Any]:
    """What users give to a model and ask of it."""
    model, kind = trained(name), MODELS[name]
    own_network = name in ("AmortizedLDA", "SOLO")
    network = [] if own_network else arguments(model._module_cls)
    # The classifier has a plan of its own, which the class does not name.
    plan = scvi.train.ClassifierTrainingPlan if name == "SOLO" else kind._training_plan_cls
    splitter = getattr(kind, "_data_splitter_cls", scvi.dataloaders.DataSplitter)
    own = {word for word in dir(kind) if not word.startswith("_")}
    return {
        "arguments": sorted({*arguments(kind), *network} - SET_BY_THE_MODEL),
        "methods": {word: arguments(getattr(kind, word)) for word in sorted(own)},
        "defaults": {
            word: found for word in sorted(own) if (found := defaults(getattr(kind, word)))
        },
        "attributes": sorted(vars(model).keys() - own),
        "plan_kwargs": sorted({*arguments(plan)} - SET_BY_THE_MODEL),
        "datasplitter_kwargs": sorted({*arguments(splitter)} - {"adata_manager", "datamodule"}),
        "history": sorted(model.history),
    }


def forwarded() -> dict[str, list[str]]:
    """Arguments that methods take through `**kwargs`."""
    contrast = arguments(scvi.model.base.DifferentialComputation.get_bayes_factors)
    groups = {"self", "idx1", "idx2", "mode", "delta"}
    return {
        "train": arguments(scvi.train.Trainer),
        "differential_expression": sorted({*contrast} - groups),
        "differential_accessibility": sorted({*contrast} - groups),
    }


def distribution_attributes() -> dict[str, list[str]]:
    """Attributes of distributions that are made from numbers."""
    one = torch.ones(2)
    made = {
        "NegativeBinomial": {"mu": one, "theta": one, "scale": one},
        "ZeroInflatedNegativeBinomial": {"mu": one, "theta": one, "zi_logits": one, "scale": one},
        "NegativeBinomialMixture": {"mu1": one, "mu2": one, "theta1": one, "mixture_logits": one},
        "Poisson": {"rate": one, "scale": one},
        "Normal": {"mu": one, "scale": one, "normal_mu": one},
        "BetaBinomial": {"total_count": one, "alpha": one, "beta": one},
    }
    return {
        name: sorted(w for w in vars(getattr(scvi.distributions, name)(**given)) if w[0] != "_")
        for name, given in made.items()
    }


def main() -> None:
    warnings.simplefilter("ignore")
    names = {
        "version": scvi.__version__,
        "namespaces": {package: namespace(package, module) for package, module in packages()},
        "models": {name: described_model(name) for name in MODELS},
        "forwarded": forwarded(),
        "distributions": distribution_attributes(),
        "settings": [name for name in dir(type(scvi.settings)) if not name.startswith("_")],
        "registry_keys": {
            name: getattr(scvi.REGISTRY_KEYS, name)
            for name in dir(scvi.REGISTRY_KEYS)
            if name.isupper() and isinstance(getattr(scvi.REGISTRY_KEYS, name), str)
        },
    }
    folder = Path(__file__).with_name("names")
    folder.mkdir(exist_ok=True)
    path = folder / f"{scvi.__version__}.json"
    text = json.dumps(names, indent=1, sort_keys=True)
    text = re.sub(r"\[[^][{}]*\]|\{[^][{}]*\}", lambda found: " ".join(found[0].split()), text)
    path.write_text(text + "\n")


if __name__ == "__main__":
    main()
