"""Building blocks of the networks: torch only."""

from cellvae.errors import missing_name_error
from cellvae.nn.classifier import Classifier
from cellvae.nn.decoders.count_decoder import CountParameters, DecoderSCVI
from cellvae.nn.decoders.linear_decoder import LinearDecoder
from cellvae.nn.decoders.normal_decoder import NormalDecoder
from cellvae.nn.encoder import Encoder
from cellvae.nn.fc_layers import FCLayers

__all__ = [
    "Classifier",
    "CountParameters",
    "DecoderSCVI",
    "Encoder",
    "FCLayers",
    "LinearDecoder",
    "LinearDecoderSCVI",
    "NormalDecoder",
]

LinearDecoderSCVI = LinearDecoder
"""Name that scvi-tools gives to the linear decoder."""
INSTEAD = {
    "Decoder": "NormalDecoder gives a distribution",
    "DecoderTOTALVI": "there is no TOTALVI yet",
    "EncoderTOTALVI": "there is no TOTALVI yet",
    "Embedding": "use torch.nn.Embedding",
    "MultiDecoder": "use FCLayers",
    "MultiEncoder": "use Encoder",
    "one_hot": "use torch.nn.functional.one_hot",
}
"""Parts of scvi-tools that are not here, and what to use in their place."""


def __getattr__(name: str) -> object:
    raise missing_name_error("cellvae.nn", name, INSTEAD, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
