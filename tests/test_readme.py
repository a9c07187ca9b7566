import importlib
import re
from pathlib import Path

import pytest

from edge import tables
from edge.__main__ import COMMANDS
from train import results

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [table for table in results.TABLES if table is not results.demo])
def test_the_tables_are_those_of_the_result_files(table):
    assert f"<!-- table: {table.__name__} -->\n{table()}\n<!-- end -->" in README


def test_the_model_card_is_that_of_the_shipped_model():
    assert (ROOT / "edge/models/emodb.md").read_text(encoding="utf-8") == results.model_card()


def test_the_transcript_is_what_the_demo_prints():
    def labels(text):  # percentages may differ by one between runtimes
        return re.sub(r"\d+%", "", text)

    assert labels(results.demo()) in labels(README)


def test_the_tree_names_every_module():
    tree = README.split("## What is where")[1].split("## Sources")[0]
    for package in ("edge", "train", "convert"):
        for path in (ROOT / package).glob("*.py"):
            assert path.stem in ("__init__", "__main__") or path.name in tree, path


def test_every_flag_of_the_readme_is_one_of_its_command(capsys):
    known = {}
    for name, rest in re.findall(r"python -m ((?:train|edge|convert)[.a-z]*)([^#|`\n]*)", README):
        command = next(iter(rest.split()), "")
        if name == "edge" and command in COMMANDS:
            name = f"edge.{command}"
        for flag in re.findall(r"--[a-z-]+", rest):
            if name not in known:
                module = importlib.import_module(name if "." in name else f"{name}.__main__")
                with pytest.raises(SystemExit):
                    module.main(["--help"])
                shown = capsys.readouterr().out
                known[name] = re.findall(r"^  (?:-., )?(--[a-z-]+)", shown, re.MULTILINE)
            assert flag in known[name], name + rest


def test_nothing_in_the_repository_is_larger_than_10_mb():
    import subprocess

    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = files.stdout.splitlines()
    assert names
    for name in names:
        assert (ROOT / name).stat().st_size < 10_000_000, name


@pytest.mark.parametrize("path", sorted(results.RESULTS.glob("*-*.json")), ids=lambda p: p.stem)
def test_a_report_is_whole(path):
    report = results.load(path)
    folds = report["folds"].values()
    assert all(value is not None for fold in folds for value in fold.values())
    assert report["uar_mean"] == pytest.approx(sum(fold["uar"] for fold in folds) / len(folds))


def test_a_study_without_a_room_has_a_dash_for_it(monkeypatch):
    study = tables.load("study.json")
    for gate in study["gate"].values():
        del gate["room"]
    monkeypatch.setattr(tables, "load", lambda name: study)
    rows = [line.split(" | ") for line in tables.gate().splitlines() if line.startswith("| ")]
    column = rows[0].index("found in a room % (clips missed)")
    assert {row[column] for row in rows[1:]} == {"-"}
