"""Who imports whom, and what `import cellvae` costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "cellvae"
NEED_TRITON = (
    "cellvae.kernels.triton.count_log_prob_triton",
    "cellvae.kernels.triton.operator",
)

# Heavy packages of others are loaded once; before each module the package itself is forgotten,
# so that no module lives on what another one imported.
IMPORT_EACH_ALONE = """
import gc, importlib, json, sys, traceback
import anndata, jaxtyping, lightning.pytorch, safetensors.torch, torch, typer

gc.disable()
failed = {}
for name in json.loads(sys.argv[1]):
    for loaded in [module for module in sys.modules if module.partition(".")[0] == "cellvae"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except BaseException:
        failed[name] = traceback.format_exc()[-2000:]
print(json.dumps(failed))
"""


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def module_names() -> list[str]:
    """All modules but those that need Triton, which is only where a GPU is."""
    paths = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    names = (".".join(path.parts).removesuffix(".__init__") for path in paths)
    return sorted(name for name in names if name not in NEED_TRITON)


def test_the_import_contracts_of_pyproject_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    if not lint.exists():
        pytest.skip("import-linter is not installed: it comes with the dev extra")
    done = subprocess.run(
        [lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_every_module_imports_alone() -> None:
    names = module_names()
    assert "cellvae.errors" in names
    # Modules outside all cycles import in any order. A package is imported before its modules, so a
    # cycle is always entered by a package in it, which imports all of the cycle.
    entries = {
        min((m for m in cycle if name == m or name.startswith(f"{m}.")), key=len)
        for cycle in import_cycles(names)
        for name in cycle
    }
    assert entries and len(entries) < len(names) / 2
    assert json.loads(run_python(IMPORT_EACH_ALONE, json.dumps(sorted(entries)))) == {}
    run_python("import importlib, sys; [*map(importlib.import_module, sys.argv[1:])]", *names)


def import_cycles(names: list[str]) -> list[set[str]]:
    """Modules that import each other while they are imported, and packages of their modules."""
    import networkx

    graph = networkx.DiGraph()
    for name in names:
        graph.add_edges_from((name, imported) for imported in imports_of(name, {*names}))
    return [part for part in networkx.strongly_connected_components(graph) if len(part) > 1]


def imports_of(name: str, names: set[str]) -> set[str]:
    """Modules that a module imports when it is imported, its own package among them."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    tree = ast.parse(
        (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    )
    found = {name.rpartition(".")[0]}
    pending: list[ast.AST] = [*tree.body]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            pending += ast.iter_child_nodes(node)
    ancestors = {each.rsplit(".", n)[0] for each in found for n in range(each.count("."))}
    return (found | ancestors) & names - {name}


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("cellvae", {"torch", "numpy", "pandas"}),
        ("cellvae.model, cellvae.data, cellvae.settings, cellvae.cli.main", set()),
    ],
)
def test_importing_the_package_loads_nothing_heavy(modules: str, heavy: set[str]) -> None:
    loaded = set(run_python(f"import {modules}, sys; print(*sys.modules)").split())
    heavy = heavy | {"anndata", "lightning", "matplotlib", "pyro", "scanpy", "sklearn"}
    assert heavy.isdisjoint(loaded), heavy & loaded


def test_options_without_names_stay_in_the_files_that_translate_what_users_type() -> None:
    # save() passes keyword arguments on to AnnData's writer, as that of scvi-tools does.
    # Lightning's log(), hooks of callbacks and events of the user's own are handed on likewise.
    allowed = {"train/options/train_kwargs.py", "estimator/base_model.py"}
    allowed |= {"estimator/saving.py", "estimator/training.py"}
    allowed |= {"train/loop/epoch_metrics.py", "train/loop/training_plan.py"}
    allowed.add("train/run/interruption.py")
    # Flags of the command line come from the options of the model that was chosen.
    allowed.add("cli/train.py")
    # from_scvi_model() and from_totalvi_model() take the options of the model, as making one does.
    allowed |= {"model/scanvi.py", "model/solo.py", "model/totalanvi.py"}
    # Arguments of `setup_anndata` are those of the keys of the model.
    allowed.add("estimator/setup_method.py")
    # It warns of proteins that were not measured when a model is made.
    allowed.add("model/totalvi.py")
    # Options of importance weights come one by one, as in scvi-tools.
    allowed |= {
        "inference/expression/normalized_expression.py",
        "inference/accessibility/normalized_accessibility.py",
    }
    # What a file of scvi-tools calls inert objects with is dropped.
    allowed.add("pickles/stubs.py")
    # Arguments of decorated functions are checked against their annotations.
    allowed.add("core/options.py")
    # Options of a search, whose names Ray Tune and scvi-tools' autotune have.
    allowed |= {"tune/domains.py", "tune/ray_adapter.py", "tune/run_search.py"}
    # Arguments of scanpy's readers are handed on, as scvi-tools does.
    allowed.add("data/datasets/tenx.py")
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.arguments) and node.kwarg is not None
    }
    assert found <= allowed, found - allowed


def test_files_are_named_for_what_they_hold() -> None:
    vague = {"base", "common", "core", "helpers", "misc", "util", "utils"}
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path.stem in vague or (path.stem.startswith("_") and path.stem != "__init__")
    }
    # utils.py: the namespace of scvi-tools.
    assert found <= {"utils.py", "__main__.py"}


def test_nobody_writes_to_a_plan_or_the_facts_of_a_run_from_outside() -> None:
    owners = {"plan", "pl_module", "run", "facts", "step_loop", "loop", "train_loss_sums"}
    found = []
    for path in (PACKAGE / "train").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
                continue
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            if name in owners:
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {name}.{node.attr}")
    # A plan sets which losses its own sums leave out.
    assert [each for each in found if not each.startswith("train/loop/epoch_metrics.py")] == []
