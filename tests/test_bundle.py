"""Bundles: what python -m convert --bundle packs, and what the device refuses."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from convert import bundle
from edge.bundle import MANIFEST, unzipped_model
from edge.card import sha256
from edge.errors import ModelError
from edge.model import Model, default_model

ROOT = Path(__file__).parent.parent


@pytest.fixture
def packed(tmp_path):
    """A bundle of the shipped model under a name of its own."""
    model = tmp_path / "mine.int8.tflite"
    shutil.copy(default_model(), model)
    card = json.loads(default_model().with_suffix(".json").read_text())
    card["file"]["name"] = model.name
    model.with_suffix(".json").write_text(json.dumps(card))
    path = tmp_path / "mine.zip"
    bundle.write(path, model)
    return path


def repacked(path, change):
    """Write the bundle anew after ``change(contents)``."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def relisted(path, change):
    """The same, changing the list of files."""

    def changed(contents):
        manifest = json.loads(contents[MANIFEST])
        change(manifest)
        contents[MANIFEST] = json.dumps(manifest).encode()

    return repacked(path, changed)


def test_a_bundle_answers_like_its_model(packed):
    model = Model(packed)
    assert model.card.file.name == "mine.int8.tflite"
    rows = np.random.default_rng(0).normal(size=(model.card.n_rows, model.card.frontend.n_features))
    rows = rows.astype(np.float32)
    np.testing.assert_array_equal(model.logits(rows), Model().logits(rows))


def test_unzipped_it_runs_with_its_own_model(packed, tmp_path):
    folder = tmp_path / "unzipped"
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)
    (folder / "edge" / "clips" / "clips.json").read_text()
    assert [p.name for p in sorted((folder / "edge" / "models").iterdir())] == [
        "mine.int8.json",
        "mine.int8.tflite",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "edge", "--demo", "--json"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    here = subprocess.run(
        [sys.executable, "-m", "edge", "--demo", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[1:-1] == here.stdout.splitlines()[1:-1]
    assert unzipped_model(folder) == folder / "edge/models/mine.int8.tflite"
    assert unzipped_model(tmp_path) is None


def test_the_same_content_makes_the_same_bytes(packed):
    first = packed.read_bytes()
    bundle.write(packed, packed.with_name("mine.int8.tflite"))
    assert packed.read_bytes() == first


def test_a_package_is_packed_whole(tmp_path):
    package = tmp_path / "a.half.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Manifest.json").write_text("{}")
    (package / "Data" / "weight.bin").write_bytes(b"123")
    package.with_suffix(".json").write_text("{}")
    bundle.write(tmp_path / "a.zip", package)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        manifest = json.loads(archive.read(MANIFEST))
    assert manifest["model"] == "edge/models/a.half.mlpackage"
    listed = {name for name in manifest["files"] if name.startswith("edge/models/")}
    assert listed == {
        "edge/models/a.half.mlpackage/Manifest.json",
        "edge/models/a.half.mlpackage/Data/weight.bin",
        "edge/models/a.half.json",
    }


MODEL = "edge/models/mine.int8.tflite"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.update({MODEL: c[MODEL][:-1] + b"!"}), f"SHA-256 of {MODEL} differs"),
        (lambda c: c.update({"edge/audio.py": b""}), "SHA-256 of edge/audio.py differs"),
        (lambda c: c.pop(MODEL), f"{MODEL} is missing from the bundle"),
        (lambda c: c.pop(MANIFEST), "no bundle.json in it; expected a bundle"),
        (lambda c: c.update({"extra.py": b""}), "extra.py does not belong to the bundle"),
        (lambda c: c.update({"../outside": b""}), "'../outside' would leave"),
        (lambda c: c.update({"/etc/outside": b""}), "'/etc/outside' would leave"),
        (lambda c: c.update({"edge/../../outside": b""}), "'edge/../../outside' would leave"),
        (lambda c: c.update({"C:\\outside": b""}), "would leave"),
        (lambda c: c.update({MANIFEST: b"["}), "bundle.json is damaged"),
        (lambda c: c.update({MANIFEST: b"[]"}), "bundle.json is damaged"),
    ],
)
def test_a_bundle_with_a_wrong_file_is_refused(packed, change, text):
    with pytest.raises(ModelError) as error:
        Model(repacked(packed, change))
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.update(format=2), "a bundle of format 2, this program knows 1; update"),
        (lambda m: m.update(format="1"), "bundle.json is damaged"),
        (lambda m: m.pop("model"), "bundle.json is damaged"),
        (lambda m: m.update(model="../mine.tflite"), "'../mine.tflite' would leave"),
        (lambda m: m.update(model="edge/models/other.tflite"), "other.tflite is missing"),
        (lambda m: m["files"].update({"../x": sha256(b"")}), "'../x' would leave"),
    ],
)
def test_a_bundle_with_a_wrong_list_is_refused(packed, change, text):
    with pytest.raises(ModelError) as error:
        Model(relisted(packed, change))
    assert text in str(error.value)


def test_nothing_is_written_outside_of_the_bundle_s_folder(packed, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    before = sorted(p for p in tmp_path.rglob("*"))
    with pytest.raises(ModelError):
        Model(repacked(packed, lambda c: c.update({"../outside": b"x"})))
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_what_cannot_be_unpacked_is_refused(packed):
    with zipfile.ZipFile(packed) as archive:
        offset = archive.getinfo(MANIFEST).header_offset
    content = bytearray(packed.read_bytes())
    content[offset + 30 + len(MANIFEST)] = 0xFF  # no kind of block begins like that
    packed.write_bytes(content)
    with pytest.raises(ModelError, match="not a readable zip file"):
        Model(packed)


def test_a_damaged_list_is_no_news_until_the_model_is_needed(packed, tmp_path):
    folder = tmp_path / "unzipped"
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)
    (folder / MANIFEST).write_text("[")
    for arguments, code, text in [(["--help"], 0, ""), (["--demo"], 1, "bundle.json is damaged")]:
        done = subprocess.run(
            [sys.executable, "-m", "edge", *arguments],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code
        assert text in done.stderr
        assert done.stderr.count("\n") == code


def test_what_is_no_zip_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no such bundle"):
        Model(tmp_path / "absent.zip")
    (tmp_path / "a.zip").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="not a readable zip file"):
        Model(tmp_path / "a.zip")
