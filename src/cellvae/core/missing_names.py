"""Error for a name that a module does not have, with what to use in its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cellvae.errors import did_you_mean


def missing_name_error(
    module: str, name: str, instead: Mapping[str, str], public: Collection[str]
) -> AttributeError:
    """Error that `__getattr__` of a module raises: what to use, or the closest name.

    Parameters
    ----------
    module
        Name of the module.
    name
        Name that the module does not have.
    instead
        Names that scvi-tools has in the module of the same name, and what to use in their place.
    public
        Names that the module has.
    """
    text = f"module '{module}' has no attribute '{name}'"
    if name in instead:
        return AttributeError(f"{text}: {instead[name]}")
    close = did_you_mean(name, public)
    return AttributeError(f"{text}.{close}" if close else text)
