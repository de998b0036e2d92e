"""How Sphinx builds the documentation: without network, without running notebooks."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent

project = "cellvae"
author = "cellvae developers"
project_copyright = "cellvae developers"
release = version_of("cellvae")
version = release

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "decisions/README.md", "**.ipynb_checkpoints"]
default_role = "literal"
nitpicky = False

# Names of other projects are not linked: their lists would have to be fetched.

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_preprocess_types = False
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "sphinx_book_theme"
html_title = "cellvae"
html_static_path = ["_static"]
html_show_sourcelink = False
html_context = {"default_mode": "light"}
html_theme_options = {
    "logo": {"text": "cellvae"},
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "home_page_in_toc": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
}

# Pages that end with a list of the pages beside them, and how those are named.
LISTS = {"tutorials/index": "tutorials/0*.ipynb", "decisions": "decisions/0*.md"}


def copy_tutorials() -> None:
    """Put the notebooks where Sphinx looks for pages; git ignores the copies."""
    copies = HERE / "tutorials"
    notebooks = {path.name: path for path in (HERE.parent / "tutorials").glob("*.ipynb")}
    for stale in copies.glob("*.ipynb"):
        if stale.name not in notebooks:
            stale.unlink()
    for name, notebook in notebooks.items():
        # Links lead from the folder of the notebooks to that of the pages.
        (copies / name).write_text(notebook.read_text().replace("](../docs/", "](../"))


def write_shapes_plainly(app: Sphinx, what: str, name: str, *rest: object) -> None:
    """Escape the star of shapes such as [*samples, cells], which would begin emphasis."""
    lines = rest[-1]
    assert isinstance(lines, list)
    lines[:] = [re.sub(r"(?<=\[)\*(?=\w)", r"\\*", line) for line in lines]


def list_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """Add the list of pages where there are any: Sphinx warns of an empty one."""
    if found := sorted(HERE.glob(LISTS[page])) if page in LISTS else []:
        names = "\n".join(f"/{path.relative_to(HERE).with_suffix('')}" for path in found)
        source[0] += f"\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"


def load_public_names() -> None:
    """Load what the documented modules load at first use only, so that autodoc sees it."""
    for page in (HERE / "api").glob("*.md"):
        if page.stem != "index":
            module = import_module(f"cellvae.{page.stem}")
            listed = getattr(module, "__all__", ())
            vars(module).update({name: getattr(module, name) for name in listed})


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    copy_tutorials()
    load_public_names()
    app.connect("source-read", list_pages)
    app.connect("autodoc-process-docstring", write_shapes_plainly)
