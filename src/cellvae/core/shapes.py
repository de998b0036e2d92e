"""Names for the shapes of tensors that every part of the package speaks of."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

Counts = Float[Tensor, "cells genes"]
CellNumbers = Int[Tensor, "cells"]
