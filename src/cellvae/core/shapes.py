"""Annotations of tensors that are used throughout the package."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

Counts = Float[Tensor, "cells genes"]
CellNumbers = Int[Tensor, "cells"]
