"""Options of totalVI, and the sizes of its network that follow from the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cellvae.core.options import Options, check_kwargs, check_value, option
from cellvae.errors import InvalidOptionError
from cellvae.model.components.count_features import Where


@dataclass(frozen=True, kw_only=True)
class TOTALVIConfig(Options):
    """Options of totalVI.

    Parameters
    ----------
    n_latent
        Dimensions of the latent space.
    gene_dispersion
        Whether the inverse dispersion of genes differs by `"gene"`, `"gene-batch"` or
        `"gene-label"`.
    protein_dispersion
        The same for proteins: `"protein"`, `"protein-batch"` or `"protein-label"`.
    gene_likelihood
        Distribution of the counts of genes.
    latent_distribution
        `"normal"`, or `"ln"` for a logistic normal latent (fractions that sum to one).
    empirical_protein_background_prior
        Whether the prior of the background of proteins starts from an estimate from the data; None:
        if there are more than ten proteins. It is learned either way.
    override_missing_proteins
        Whether a protein without counts in all cells of a panel is taken as measured there.
    missing_proteins
        Proteins that were not measured, by panel: `{"batch_2": ["CD4", "CD8"]}`. In panels that are
        not named, and without this option, those without counts in all cells.
    n_hidden
        Width of the hidden layers.
    n_layers_encoder, n_layers_decoder
        Hidden layers of encoder and decoder.
    dropout_rate_encoder, dropout_rate_decoder
        Probabilities that a feature is dropped in encoder and decoder.
    log_variational
        Whether the encoder reads log(1 + x) of the features of a cell x.
    encode_covariates
        Whether the encoder reads batch and covariates too.
    use_observed_lib_size
        Whether the library size of a cell is the sum of its gene counts; otherwise it is a latent
        variable. Size factors, if they are used, take precedence.
    use_size_factor_key
        Whether library sizes are the size factors that were set up; None: if there are any.
    use_batch_norm, use_layer_norm
        Which layers have batch and layer normalization.
    extra_encoder_kwargs
        Further options of :class:`~cellvae.nn.EncoderTOTALVI`, of which there are none.
    extra_decoder_kwargs
        `{"activation_function_bg": "exp"}`: the function that makes the standard deviation of the
        background positive, `"softplus"` by default (`"exp"` in files of scvi-tools before 1.2).
    """

    n_latent: int = option(20, at_least=1, at_most=65_536)
    gene_dispersion: Literal["gene", "gene-batch", "gene-label"] = "gene"
    protein_dispersion: Literal["protein", "protein-batch", "protein-label"] = "protein"
    gene_likelihood: Literal["zinb", "nb"] = "nb"
    latent_distribution: Literal["normal", "ln"] = "normal"
    empirical_protein_background_prior: bool | None = None
    override_missing_proteins: bool = False
    missing_proteins: Mapping[str, Any] | None = None
    n_hidden: int = option(256, at_least=1, at_most=65_536)
    n_layers_encoder: int = option(2, at_least=1, at_most=128)
    n_layers_decoder: int = option(1, at_least=1, at_most=128)
    dropout_rate_encoder: float = option(0.2, at_least=0, at_most=0.999)
    dropout_rate_decoder: float = option(0.2, at_least=0, at_most=0.999)
    log_variational: bool = True
    encode_covariates: bool = True
    use_observed_lib_size: bool = True
    use_size_factor_key: bool | None = None
    use_batch_norm: Where = "both"
    use_layer_norm: Where = "none"
    extra_encoder_kwargs: Mapping[str, Any] | None = None
    extra_decoder_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for panel, names in (self.missing_proteins or {}).items():
            if isinstance(names, str) or not all(isinstance(name, str) for name in names):
                raise InvalidOptionError(
                    f"Expected missing_proteins to have a list of names for panel '{panel}'; got "
                    f"{names!r}."
                )
        check_kwargs(dict(self.extra_encoder_kwargs or {}), (), "extra_encoder_kwargs")
        given = dict(self.extra_decoder_kwargs or {})
        check_kwargs(given, ("activation_function_bg",), "extra_decoder_kwargs")
        for word, value in given.items():
            check_value(word, value, Literal["exp", "softplus"], {})

    @property
    def background_activation(self) -> Literal["exp", "softplus"]:
        """Function that makes the standard deviation of the background positive."""
        given = self.extra_decoder_kwargs or {}
        activation: Literal["exp", "softplus"] = given.get("activation_function_bg", "softplus")
        return activation


@dataclass(frozen=True, kw_only=True)
class TOTALVISizes:
    """Sizes of the network that follow from the data."""

    n_genes: int
    n_proteins: int
    n_batch: int = 1
    n_labels: int = 1
    n_cats_per_cov: tuple[int, ...] = ()
    n_continuous: int = 0
    size_factor: bool = False
    n_panels: int = 1
    measured: tuple[tuple[bool, ...], ...] | None = None
    """Which proteins were measured in which panel, [panels, proteins]; None for all in all."""
