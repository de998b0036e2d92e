"""Figures of the shape of the code: `python tests/architecture/figures.py [checkout]`.

Prints a Markdown table of one checkout, so that two of them can be compared.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# Adapters of scipy's sparse routines and numba's cache.
ADAPTERS = ("sparsetools.py", "kernel_cache.py")

# Past participles without the ending -ed that are not also the base form of their verb.
IRREGULAR = """
    beaten begun bound built chosen dealt done drawn driven fed found given grown held
    kept known laid left made meant met parted said seen sent shown spoken
    taken told torn undone weighed worn written
"""
# Words that end like participles and are nouns, adjectives or imperatives of the field.
NOT_PARTICIPLES = frozenset(["embed", "embedding", "feed", "need", "red", "seed", "shed", "speed"])


def trees(package: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Each module and its syntax tree."""
    for path in sorted(package.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def is_participle(name: str) -> bool:
    """Whether a name is a single past participle."""
    word = name.strip("_")
    if "_" in word or word in NOT_PARTICIPLES or not word.islower():
        return False
    return word in IRREGULAR.split() or (word.endswith("ed") and len(word) > 3)


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a module."""
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            yield node


def is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method is read like an attribute."""
    names = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any(name.endswith(("property", ".setter")) for name in names)


def module_names(tree: ast.Module) -> set[str]:
    """Names that a module defines at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("__")}


def figures(checkout: Path) -> dict[str, str]:
    """Each figure by its name."""
    package = checkout / "src" / "cellvae"
    modules = [(path, tree) for path, tree in trees(package)]
    per_folder = Counter(path.parent for path, _ in modules if path.name != "__init__.py")
    places: defaultdict[str, list[Path]] = defaultdict(list)
    for path, tree in modules:
        if path.name != "__init__.py":
            for name in module_names(tree):
                places[name].append(path)
    twice = [name for name, paths in places.items() if len(paths) > 1]
    same_folder = [
        name for name, paths in places.items() if len({path.parent for path in paths}) < len(paths)
    ]
    stems = Counter(path.stem for path, _ in modules if path.name != "__init__.py")
    every = [(path, function) for path, tree in modules for function in functions(tree)]
    lengths = [function.end_lineno - function.lineno + 1 for _, function in every]  # type: ignore[operator]
    participles = [
        function.name
        for _, function in every
        if is_participle(function.name) and not is_property(function)
    ]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path, _ in modules}
    settings = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    ignored = sum(len(contract.get("ignore_imports", [])) for contract in contracts)
    names = checkout / "tests" / "architecture" / "public_names.txt"
    largest, most = per_folder.most_common(1)[0]
    longest = max(lines, key=lines.__getitem__)
    return {
        "modules": f"{len(modules):,}",
        "lines of `src`": f"{sum(lines.values()):,}",
        "most modules in a folder": f"{most} (`{largest.relative_to(package.parent)}`)",
        "folders with more than 12 modules": f"{sum(n > 12 for n in per_folder.values())}",
        "modules over 300 lines": f"{sum(n > 300 for n in lines.values())}",
        "longest module": f"{lines[longest]} lines (`{longest.relative_to(package.parent)}`)",
        "functions over 50 lines, with their docstrings": f"{sum(n > 50 for n in lengths)}",
        "functions over 50 lines of code": f"{sum(code_lines(f) > 50 for _, f in every)}",
        "import contracts": f"{len(contracts)}",
        "imports that contracts ignore": f"{ignored}",
        "module-level names defined in two or more modules": f"{len(twice)}",
        "of these in two modules of one folder": f"{len(same_folder)}",
        "names of files that stand in two or more folders": f"{sum(n > 1 for n in stems.values())}",
        "functions named by a bare past participle": f"{len(participles)}",
        "uses of private names of other packages": f"{len(private_uses(modules))}",
        "lines of `public_names.txt`": f"{len(names.read_text().splitlines()):,}",
    }


def private_uses(modules: list[tuple[Path, ast.Module]]) -> list[str]:
    """Private attributes and modules of other packages outside the adapters of these packages."""
    own = {"_replace", "_asdict", "_fields", "_make"}
    # Torch's own way to extend its distributions.
    own |= {"_get_checked_instance", "_validate_sample", "_extended_shape", "_validate_args"}
    for _, tree in modules:
        for node in ast.walk(tree):
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
    found = []
    for path, tree in modules:
        if path.stem.endswith("_adapter") or path.name in ADAPTERS:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                names = [node.attr]
            elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("cellvae"):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            else:
                continue
            private = [n for n in names if n.startswith("_") and not n.startswith("__")]
            found += [f"{path.name}:{node.lineno} {n}" for n in private if n not in own]
    return found


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from the first statement after its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return 0 if not body else function.end_lineno - body[0].lineno + 1  # type: ignore[operator]


if __name__ == "__main__":
    checkouts = [Path(argument) for argument in sys.argv[1:]] or [Path(__file__).parents[2]]
    columns = [figures(checkout) for checkout in checkouts]
    print("| |" + "".join(f" {checkout.resolve().name} |" for checkout in checkouts))
    print("|---|" + "---|" * len(checkouts))
    for name in columns[0]:
        print(f"| {name} |" + "".join(f" {column[name]} |" for column in columns))
