"""Building blocks of the networks: torch only."""

from cellvae.nn.decoder import CountParameters, DecoderSCVI
from cellvae.nn.dense import FCLayers
from cellvae.nn.encoder import Encoder

__all__ = ["CountParameters", "DecoderSCVI", "Encoder", "FCLayers"]
