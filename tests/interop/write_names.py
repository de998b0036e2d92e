"""Public names of scvi-tools' models, for the test of which of them are here, in `names.json`.

Run by hand, in an environment with scvi-tools==1.4.2: `python tests/interop/write_names.py`.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import scvi

MODELS = ("SCVI", "SCANVI", "LinearSCVI", "PEAKVI", "AmortizedLDA")


def words_of(value: Any) -> list[str] | None:
    """Names of the arguments of a method; None for what is none."""
    if not callable(value):
        return None
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(value).parameters.values()
    return [p.name for p in parameters if p.kind in named and p.name != "self"]


def main() -> None:
    models = {
        name: {
            word: words_of(getattr(getattr(scvi.model, name), word))
            for word in dir(getattr(scvi.model, name))
            if not word.startswith("_")
        }
        for name in MODELS
    }
    parts = {part: sorted(getattr(scvi, part).__all__) for part in ("data", "distributions", "nn")}
    parts["train"] = sorted(scvi.train.__all__)
    parts["settings"] = [name for name in dir(type(scvi.settings)) if not name.startswith("_")]
    path = Path(__file__).with_name("names.json")
    path.write_text(json.dumps({"models": models, "parts": parts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
