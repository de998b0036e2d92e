"""What the committed files say, and what they must not say."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]

# Written in parts, since this file is searched too.
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("python" + "hosted", "org"),
        ("download", "pytorch", "org"),
        ("conda", "anaconda", "org"),
    )
)
MACHINE_PATHS = tuple("/" + "/".join((*parts, "")) for parts in (("home",), ("root",), ("tmp",)))
MACHINE_PATHS += tuple("/" + "/".join((*parts, "")) for parts in (("Users",), ("work",), ("opt",)))
PATH = re.compile(r"(?<![\w.~-])(?:" + "|".join(map(re.escape, MACHINE_PATHS)) + ")")


def tracked_files() -> list[Path]:
    """Files that git knows or would add."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: the files that belong to the project are not known")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return sorted({path for path in paths if path.is_file()})


def text_of(path: Path) -> str:
    """Text of a file, empty for one that is not text."""
    content = path.read_bytes()
    return "" if b"\0" in content else content.decode(errors="replace")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    """Version by package; a line that pins no version raises."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {canonical(name): version for name, version in pairs}


def declared_requirements(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    requirements = (Requirement(line) for line in lines)
    return [requirement for requirement in requirements if requirement.name != "cellvae"]


def test_no_file_names_a_package_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in tracked_files()
        for host in REGISTRIES
        if host in text_of(path)
    ]
    assert found == []


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked_files()
        if (match := PATH.search(text_of(path)))
    ]
    assert found == []


def test_no_file_is_larger_than_two_megabytes() -> None:
    large = {path.relative_to(ROOT): path.stat().st_size for path in tracked_files()}
    assert {path: size for path, size in large.items() if size > 2 * 2**20} == {}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/index.md"])
def test_links_and_pictures_of_a_page_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'src="([^"]+)"', text)
    near = [target for target in targets if "://" not in target]
    folder = (ROOT / page).parent
    missing = [t for t in near if not (folder / t).exists() and not (folder / f"{t}.md").exists()]
    assert missing == []


def test_the_pins_of_the_tests_are_plain_versions_that_the_project_allows() -> None:
    pinned = pins(ROOT / "constraints" / "ci.txt")
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pinned.values())
    for requirement in declared_requirements("test", "dev", "docs"):
        version = pinned[canonical(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} with {version}"


def test_the_oldest_versions_that_are_tried_are_the_lower_bounds_of_the_project() -> None:
    pinned = pins(ROOT / "constraints" / "lowest.txt")
    bounds = {
        canonical(requirement.name): next(iter(requirement.specifier)).version
        for requirement in declared_requirements()
    }
    # Older builds of torch bring gigabytes of CUDA libraries, so one version of it serves all runs.
    pinned.pop("torch"), bounds.pop("torch")
    assert {name: Version(pinned[name]) for name in bounds} == {
        name: Version(bound) for name, bound in bounds.items()
    }
