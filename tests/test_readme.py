import re
from pathlib import Path

import pytest

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


def test_every_flag_of_the_readme_exists():
    import convert.__main__
    import convert.corpus
    import edge.__main__
    import edge.profile
    import edge.report
    import edge.soak
    import edge.study
    import train.__main__
    import train.conditions

    known = "".join(
        module.build_parser().format_help()
        for module in (
            convert.__main__,
            convert.corpus,
            edge.__main__,
            edge.profile,
            edge.report,
            edge.soak,
            edge.study,
            train.__main__,
            train.conditions,
        )
    )
    for line in re.findall(r"python -m (?:train|edge|convert)\b[^#|`\n]*", README):
        for flag in re.findall(r"--[a-z-]+", line):
            assert flag in known, line


def test_nothing_in_the_repository_is_larger_than_10_mb():
    import subprocess

    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = files.stdout.splitlines()
    assert names
    for name in names:
        assert (ROOT / name).stat().st_size < 10_000_000, name
