"""Building blocks of the networks: torch only."""

from cellvae.nn.decoder import CountParameters, DecoderSCVI
from cellvae.nn.dense import FCLayers
from cellvae.nn.encoder import Encoder
from cellvae.nn.linear_decoder import LinearDecoder

__all__ = ["CountParameters", "DecoderSCVI", "Encoder", "FCLayers", "LinearDecoder"]
