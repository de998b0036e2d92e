"""Building blocks of the networks: torch only."""

from cellvae.nn.classifier import Classifier
from cellvae.nn.decoder import CountParameters, DecoderSCVI
from cellvae.nn.dense import FCLayers
from cellvae.nn.encoder import Encoder
from cellvae.nn.linear_decoder import LinearDecoder
from cellvae.nn.normal_decoder import NormalDecoder

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
