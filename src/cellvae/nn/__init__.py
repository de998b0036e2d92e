"""Building blocks of the networks: encoders, decoders and classifiers, in torch only."""

from cellvae.errors import missing_name_error
from cellvae.nn.classifier import Classifier
from cellvae.nn.decoders.count_decoder import CountParameters, DecoderSCVI
from cellvae.nn.decoders.gene_protein_decoder import DecoderTOTALVI
from cellvae.nn.decoders.linear_decoder import LinearDecoder
from cellvae.nn.decoders.normal_decoder import NormalDecoder
from cellvae.nn.encoder import Encoder
from cellvae.nn.fc_layers import FCLayers
from cellvae.nn.gene_protein_encoder import EncoderTOTALVI

__all__ = [
    "Classifier",
    "CountParameters",
    "DecoderSCVI",
    "DecoderTOTALVI",
    "Encoder",
    "EncoderTOTALVI",
    "FCLayers",
    "LinearDecoder",
    "LinearDecoderSCVI",
    "NormalDecoder",
]

LinearDecoderSCVI = LinearDecoder
"""Name of the linear decoder in scvi-tools."""
INSTEAD = {
    "Decoder": "NormalDecoder gives a distribution",
    "Embedding": "use torch.nn.Embedding",
    "MultiDecoder": "use FCLayers",
    "MultiEncoder": "use Encoder",
    "one_hot": "use torch.nn.functional.one_hot",
}
"""Names of scvi-tools that cellvae does not have, with an alternative for each."""


def __getattr__(name: str) -> object:
    raise missing_name_error("cellvae.nn", name, INSTEAD, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
