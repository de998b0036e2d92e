"""Names for the shapes of tensors that every part of the package speaks of."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

Counts = Float[Tensor, "cells genes"]
Codes = Int[Tensor, "cells 1"]
PerCell = Float[Tensor, "cells"]
PerCellColumn = Float[Tensor, "cells 1"]
Scalar = Float[Tensor, ""]
CellNumbers = Int[Tensor, "cells"]
LatentSample = Float[Tensor, "*samples cells latent"]
