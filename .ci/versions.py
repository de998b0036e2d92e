"""Print the Python and the versions of the main packages of an environment, in one line."""

import platform
from importlib.metadata import PackageNotFoundError, version

NAMES = ["torch", "lightning", "numpy", "scipy", "pandas", "anndata", "scanpy", "zarr", "h5py"]


def version_of(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


print(f"Python {platform.python_version()}, {', '.join(map(version_of, NAMES))}")
