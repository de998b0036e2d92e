"""Errors for attributes that models of scvi-tools have and models here do not."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cellvae.errors import did_you_mean

ONE_SETUP = (
    "nothing is registered in a global table; model.registry and model.adata_manager tell what the "
    "model reads, and setup_anndata can be called again"
)
BY_NAME = "call get_normalized_expression or get_normalized_accessibility by its name"
SHAP = "use shap on model.module, or predict(ig_interpretability=True)"
RUN_OF_ITS_OWN = "a run has no name; give train(run_dir=...), and see model.training_report"
MUDATA = (
    "this model reads an AnnData; give that of the modality. TOTALVI, TOTALANVI and MULTIVI read "
    "MuData"
)
HISTORY = "model.history has the epochs of all training, those of the labels too"
ATTRIBUTES = {
    "_adata_manager": "use adata_manager",
    "_code_to_label": "use dict(enumerate(model.labels))",
    "_datamodule": "cells are given as an AnnData, which may be backed by a file",
    "_label_mapping": "use labels",
    "_model_summary_string": "use summary_string",
    "_module_cls": "the network is model.module; its class is type(model.module)",
    "_module_init_on_train": "the network is there before training: use module",
    "_module_kwargs": "use config",
    "_training_plan_cls": "options of training are arguments of train()",
    "_use_adversarial_classifier": "use module.adversarial",
    "deregister_manager": ONE_SETUP,
    "get_anndata_manager": ONE_SETUP,
    "register_manager": ONE_SETUP,
    "transfer_fields": ONE_SETUP,
    "update_setup_method_args": ONE_SETUP,
    "view_setup_method_args": ONE_SETUP,
    "id": ONE_SETUP,
    "get_normalized_function_name": BY_NAME,
    "get_normalized_function_name_": BY_NAME,
    "get_ranked_features": SHAP,
    "minify_mudata": MUDATA,
    "modalities": "use registration.keys.modalities",
    "prepare_query_mudata": MUDATA,
    "run_id": RUN_OF_ITS_OWN,
    "run_id_": RUN_OF_ITS_OWN,
    "run_name": RUN_OF_ITS_OWN,
    "run_name_": RUN_OF_ITS_OWN,
    "semisupervised_history_": HISTORY,
    "setup_annbatch": (
        "read the files with anndata.read_h5ad(path, backed='r') and give that to setup_anndata"
    ),
    "setup_datamodule": "cells are given as an AnnData, which may be backed by a file",
    "setup_mudata": MUDATA,
    "shap_adata_predict": SHAP,
    "shap_predict": SHAP,
    "trainer": "model.training_report and model.history tell how training went; callbacks see it",
    "unsupervised_history_": HISTORY,
}
"""Attributes of models of scvi-tools that no model here has, and what to use in their place."""


def no_attribute(
    owner: str, name: str, public: Collection[str], missing_methods: Mapping[str, str]
) -> AttributeError:
    """Error for an attribute that a model does not have.

    Parameters
    ----------
    owner
        Name of the model's class.
    name
        Name of the attribute.
    public
        Names of the attributes that exist.
    missing_methods
        What to use instead of methods that this model has in scvi-tools.
    """
    text = f"{owner} has no attribute '{name}'"
    instead = missing_methods.get(name) or ATTRIBUTES.get(name)
    if instead is not None:
        return AttributeError(f"{text}: {instead}.")
    if name.startswith("_"):
        return AttributeError(text)
    close = did_you_mean(name, [other for other in public if not other.startswith("_")])
    return AttributeError(f"{text}.{close}" if close else text)
