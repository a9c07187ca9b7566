"""From recordings to a live recognizer on a made-up corpus: train, resume, convert, stream."""

import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from convert import parity
from convert.__main__ import main as convert
from edge.card import Card
from edge.errors import SerError
from edge.frontend import LOG_MEL
from edge.model import Model, interpreter_module
from train import corpora, protocols
from train import run as training
from train.__main__ import main as train
from train.ablation import answers, heard_elsewhere
from train.dataset import corpus_features
from train.model import TimNet
from train.presets import PRESETS

ROOT = Path(__file__).parent.parent
SMALL = ["--n-blocks", "2", "--n-filters", "8", "--batch-size", "16", "--window-s", "0.5"]


def command(corpus, out, *more):
    return ["--data", str(corpus), *SMALL, "--epochs", "3", "--out", str(out), *more]


@pytest.fixture(scope="module")
def loso_run(tiny_emodb, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "loso"
    assert train(command(tiny_emodb, out, "--jobs", "2")) == 0
    return out


@pytest.fixture(scope="module")
def holdout_run(tiny_emodb, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "holdout"
    # Speaker 08's tones lie between those of the others, as a new voice's do among many.
    more = ["--protocol", "holdout", "--hold-out", "08", "--epochs", "60"]
    assert train(command(tiny_emodb, out, *more)) == 0
    return out


def result(run, fold):
    return json.loads((run / fold / "result.json").read_text())


def test_a_run_leaves_everything(loso_run):
    report = json.loads((loso_run / "report.json").read_text())
    assert list(report["folds"]) == ["speaker-03", "speaker-08", "speaker-09"]
    assert np.sum(report["confusion"]) == 42
    uars = [fold["uar"] for fold in report["folds"].values()]
    assert report["uar_mean"] == pytest.approx(np.mean(uars))
    assert report["command"].startswith("python -m train --n-blocks 2")
    assert str(loso_run) not in (loso_run / "report.json").read_text()
    settings = json.loads((loso_run / "settings.json").read_text())
    assert settings["preset"] == "timnet-live"
    for picture in ("curves.png", "confusion.png"):
        assert (loso_run / picture).read_bytes().startswith(b"\x89PNG")
    fold = loso_run / "speaker-03"
    history = result(loso_run, "speaker-03")["history"]
    assert [len(history[k]) for k in ("loss", "uar", "test_loss", "test_uar")] == [3, 3, 3, 3]
    card = Card.read(fold / "card.json")
    assert card.provenance["speakers"] == ["08", "09"]
    assert card.provenance["held_out_speakers"] == ["03"]
    assert card.n_rows == 22  # 0.5 s


def test_normalization_is_measured_on_training_clips_alone(loso_run):
    means = [Card.read(p).frontend.mean for p in sorted(loso_run.glob("*/card.json"))]
    assert len(set(means)) == 3


def test_a_run_that_was_stopped_goes_on_with_what_is_missing(loso_run, tiny_emodb, tmp_path, capfd):
    run = tmp_path / "run"
    shutil.copytree(loso_run, run)
    (run / "speaker-08" / "result.json").unlink()
    kept = run / "speaker-03" / "result.json"
    before = kept.stat().st_mtime_ns
    assert train(command(tiny_emodb, run, "--jobs", "1")) == 0
    assert kept.stat().st_mtime_ns == before
    assert "2 of 3 folds are done already" in capfd.readouterr().err
    first, again = result(loso_run, "speaker-08"), result(run, "speaker-08")
    np.testing.assert_allclose(again["history"]["loss"], first["history"]["loss"], rtol=1e-2)


def test_a_run_with_other_settings_is_not_mixed_in(loso_run, tiny_emodb, capsys):
    assert train(command(tiny_emodb, loso_run, "--seed", "5")) == 1
    assert "holds a run with other settings (seed: 0)" in capsys.readouterr().err


def test_a_run_does_not_go_on_with_another_corpus(loso_run, tiny_emodb, tmp_path, capsys):
    shutil.copytree(tiny_emodb, tmp_path / "emodb")
    (tmp_path / "emodb" / "wav" / "03a01Wa.wav").unlink()
    assert train(command(tmp_path / "emodb", loso_run)) == 1
    assert "holds a run with other settings (clips_sha256" in capsys.readouterr().err


@pytest.mark.parametrize(("jobs", "number"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
def test_a_stop_keeps_what_has_ended_and_leaves_no_worker(tiny_emodb, tmp_path, jobs, number):
    out = tmp_path / "run"
    arguments = [*command(tiny_emodb, out, "--jobs", jobs), "--epochs", "150"]
    process = subprocess.Popen(
        [sys.executable, "-m", "train", *arguments],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not list(out.glob("*/result.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    assert 1 <= len(list(out.glob("*/result.json"))) < 3
    assert not list(out.glob("progress-*"))
    while workers_of(process.pid):
        assert time.monotonic() < deadline, "workers outlive the run"
        time.sleep(0.05)


def test_a_stop_that_python_loses_ends_the_run_all_the_same(
    tiny_emodb, tmp_path, capsys, monkeypatch
):
    class Dropped:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def save(*arguments, real=training._save):
        numbers = real(*arguments)
        Dropped()
        return numbers

    monkeypatch.setattr(training, "_save", save)
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: None)
    out = tmp_path / "run"
    assert train(command(tiny_emodb, out, "--jobs", "1")) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert len(list(out.glob("*/result.json"))) == 1


def workers_of(session):
    """Return the processes of a session that still run (not those that only wait to be reaped)."""
    listed = subprocess.run(
        ["ps", "-s", str(session), "-o", "stat=,args="], capture_output=True, text=True, check=False
    )
    return [line for line in listed.stdout.splitlines() if line and not line.startswith("Z")]


def test_the_workers_of_a_dask_cluster_give_the_same_folds(loso_run, tiny_emodb, tmp_path):
    import distributed

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        out = tmp_path / "run"
        assert train(command(tiny_emodb, out, "--dask", cluster.scheduler_address)) == 0
        # Entries (task, from, to, ...): the folds went through this scheduler and were finished.
        finished = [entry for entry in cluster.scheduler.transition_log if entry[2] == "memory"]
        assert len(finished) >= 3
    for fold in ("speaker-03", "speaker-08", "speaker-09"):
        here, there = result(loso_run, fold), result(out, fold)
        np.testing.assert_allclose(there["history"]["loss"], here["history"]["loss"], rtol=1e-2)


def test_no_scheduler_is_one_clear_line(tiny_emodb, tmp_path, capsys, monkeypatch):
    import distributed

    def refuse(address, timeout):
        raise OSError(f"Timed out trying to connect to {address}")

    monkeypatch.setattr(distributed, "Client", refuse)
    assert train(command(tiny_emodb, tmp_path / "run", "--dask", "tcp://127.0.0.1:9")) == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err


def test_training_on_everybody_says_that_nobody_was_held_out(tiny_emodb, tmp_path, capfd):
    out = tmp_path / "run"
    assert train(command(tiny_emodb, out, "--protocol", "holdout")) == 0
    assert "uar_mean" not in json.loads((out / "report.json").read_text())
    assert convert([str(out), "--precision", "float32"]) == 0
    assert "training clips (the run held nobody out)" in capfd.readouterr().out
    with np.load(out / "model" / "windows.npz") as arrays:
        assert set(arrays["labels"]) == set(range(7))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--data", "/absent"], "/absent: no such folder; expected emodb there"),
        (["--hold-out", "03"], "--hold-out goes with --protocol holdout"),
        (["--window-s", "0.01"], "shorter than one frame"),
        (["--frontend", "published"], "timnet-live expects bands and, beside them, pitch"),
        (["--frontend", "stream"], "timnet-live expects bands and, beside them, pitch"),
        (["--protocol", "holdout", "--hold-out", "77"], "emodb has no speaker 77"),
    ],
)
def test_wrong_use_is_one_clear_line(tiny_emodb, tmp_path, capsys, arguments, text):
    assert train([*command(tiny_emodb, tmp_path / "run"), *arguments]) == 1
    errors = capsys.readouterr().err
    assert text in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--window-s", "nan"], "expected a number above 0, not nan"),
        (["--window-s", "0"], "expected a number above 0, not 0"),
        (["--seed", "-1"], "expected a whole number from 0 on, not -1"),
        (["--epochs", "many"], "expected a whole number from 1 to 1000000, not many"),
    ],
)
def test_a_wrong_number_is_one_clear_line(tiny_emodb, tmp_path, capsys, arguments, text):
    with pytest.raises(SystemExit):
        train([*command(tiny_emodb, tmp_path / "run"), *arguments])
    assert text in capsys.readouterr().err


def test_a_run_that_was_refused_or_stopped_before_a_fold_ended_blocks_nothing(tmp_path):
    path = tmp_path / "settings.json"
    asked = training.Settings("emodb", "", "loso", (), "timnet", {}, {}, 3.0, 1, 0)
    asked.write_or_compare(path)
    other = dataclasses.replace(asked, window_s=2.0)
    other.write_or_compare(path)
    (tmp_path / "speaker-03").mkdir()
    (tmp_path / "speaker-03" / "result.json").touch()
    other.write_or_compare(path)
    with pytest.raises(SerError, match=r"window_s: 2\.0"):
        asked.write_or_compare(path)


def test_speakers_whom_nobody_knows_are_not_adapted_to(tiny_emodb, tmp_path, monkeypatch):
    for clip in (tiny_emodb / "wav").glob("*.wav"):
        (tmp_path / "own" / clip.stem[5]).mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, tmp_path / "own" / clip.stem[5])
    corpus = corpora.load("folders", tmp_path / "own")
    config = dataclasses.replace(PRESETS["timnet-live"], speeds=(), n_noisy=0)
    settings = training.Settings(
        "folders", "", "sd10", (), "timnet-live", dataclasses.asdict(config), LOG_MEL.to_json(),
        0.5, 1, 0,
    )  # fmt: skip
    seen = []
    monkeypatch.setattr(training, "_results", lambda jobs, *_: seen.extend(jobs) or iter(()))
    (tmp_path / "run").mkdir()
    training.run(corpus, protocols.sd10(corpus), settings, tmp_path / "run", 1, None, Console())
    assert len(seen) == 10
    assert all(job.known is None for job in seen)
    assert all(len(set(job.train_speakers)) == len(job.train) for job in seen)


def test_a_taught_network_is_trained_from_recordings_and_keeps_nothing_of_the_teacher(
    tiny_emodb, tmp_path
):
    corpus = corpora.load("emodb", tiny_emodb)
    small = dict(speeds=(), n_noisy=0, n_blocks=1, n_filters=8)
    config = dataclasses.replace(PRESETS["timnet-live"], **small)
    settings = training.Settings(
        "emodb", "", "holdout", ("08",), "timnet-live", dataclasses.asdict(config),
        LOG_MEL.to_json(), 0.5, 2, 0,
    )  # fmt: skip
    folds = protocols.holdout(corpus, ("08",))
    training.run(corpus, folds, settings, tmp_path, 1, None, Console())
    trained = result(tmp_path, folds[0].name)
    assert len(trained["history"]["loss"]) == 2
    n_rows = Card.read(tmp_path / folds[0].name / "card.json").n_rows
    assert trained["n_parameters"] == TimNet(config, n_rows, LOG_MEL.n_features, 7).count_params()


def test_a_stored_network_is_asked_again(loso_run, tiny_emodb):
    corpus = corpora.load("emodb", tiny_emodb)
    fold = protocols.loso(corpus)[0]
    clips = list(corpus_features(corpus, LOG_MEL, 0))
    again = answers(loso_run / fold.name, [clips[i] for i in fold.test])
    before = [clip["probs"] for clip in result(loso_run, fold.name)["clips"]]
    np.testing.assert_allclose(again, before, atol=1e-3)
    # Elsewhere every clip is in a circumstance of its own, every time the same.
    heard = heard_elsewhere(corpus, LOG_MEL)
    heard_elsewhere.cache_clear()
    for clip, one, two in zip(clips, heard, heard_elsewhere(corpus, LOG_MEL), strict=True):
        np.testing.assert_array_equal(one[0].rows, two[0].rows)
        assert one[0].rows.shape == clip[0].rows.shape
        assert np.abs(one[0].rows - clip[0].rows).max() > 1
    elsewhere = answers(loso_run / fold.name, [heard[i] for i in fold.test])
    assert np.abs(elsewhere - again).max() > 0.01


def test_without_data_it_says_where_to_say(monkeypatch, capsys):
    monkeypatch.delenv("SER_DATA", raising=False)
    assert train([]) == 1
    assert "give --data DIR, or set SER_DATA" in capsys.readouterr().err


def test_all_four_precisions_answer_like_the_trained_model(holdout_run, tmp_path):
    assert convert([str(holdout_run), "--out", str(tmp_path), "--name", "tiny"]) == 0
    stored = json.loads((tmp_path / "tiny.parity.json").read_text())
    assert stored["checked_on"] == "held-out clips"
    with np.load(holdout_run / "model" / "windows.npz") as arrays:
        windows, logits = arrays["windows"], arrays["logits"]
    for precision in ("float32", "float16", "dynamic", "int8"):
        model = Model(tmp_path / f"tiny.{precision}.tflite")
        answers = np.stack([model.logits(rows) for rows in windows])
        limit = 1e-4 if precision == "float32" else 0.35
        assert np.abs(answers - logits).max() < limit, precision
        assert stored["models"][precision]["within"]
        # Lean: padding and products, nothing that only the layer's way of writing needs. Slices
        # take the pitch past the stem; the networks' answers are added.
        operators = stored["models"][precision]["operators"]
        allowed = {
            "ADD", "CONCATENATION", "CONV_2D", "DEQUANTIZE", "FULLY_CONNECTED", "LOGISTIC", "MUL",
            "PAD", "RESHAPE", "STRIDED_SLICE", "SUB", "TRANSPOSE",
        }  # fmt: skip
        assert set(operators) <= allowed, precision
        assert precision == "float16" or "DEQUANTIZE" not in operators
        # A block's output is laid out anew to be averaged.
        made_of = model.card.provenance["model"]
        n_networks = len(made_of["stems"])
        n_blocks = n_networks * 2 * made_of["n_blocks"]
        assert operators["TRANSPOSE"] == n_blocks
        # The bands as a picture, bands and channels side by side, the pitch of a frame's rows, the
        # window as frames where no stem is, all means of each network in a row, and the answer.
        assert operators["RESHAPE"] == n_blocks + n_networks + 5
    assert model.runtime.input["dtype"] == model.runtime.output["dtype"] == np.int8


def test_every_variant_converts_to_int8_without_falling_back_to_float(tmp_path):
    from convert.tflite import operators, to_tflite
    from train.model import TimNet
    from train.presets import PRESETS

    rng = np.random.default_rng(0)
    for name in ("timnet-live", "timnet-all", "timnet-td-self", "timnet-td-cross"):
        model = TimNet(PRESETS[name], 40, 39, 7)
        windows = rng.normal(size=(8, 40, 39)).astype("f4")
        model.save_deployed(str(tmp_path / name), windows)
        found = operators(to_tflite(tmp_path / name, "int8", windows))
        assert not {"QUANTIZE", "DEQUANTIZE", "SPACE_TO_BATCH_ND"} & set(found), name


def test_a_tflite_model_names_its_input_and_its_output_alone(holdout_run, tmp_path):
    assert convert([str(holdout_run), "--out", str(tmp_path), "--precision", "int8"]) == 0
    (path,) = tmp_path.glob("*.int8.tflite")
    interpreter = interpreter_module().Interpreter(str(path))
    both = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    named = [tensor["name"] for tensor in interpreter.get_tensor_details() if tensor["name"]]
    assert sorted(named) == sorted(tensor["name"] for tensor in both)
    signatures = interpreter.get_signature_list()
    assert signatures == {"serving_default": {"inputs": ["window"], "outputs": ["logits"]}}


def test_a_reader_who_leaves_early_gets_all_models_nevertheless(holdout_run, tmp_path, monkeypatch):
    def pipe_closed_at_the_first_path(*said, **how):
        if isinstance(said[0], Path):
            raise BrokenPipeError

    monkeypatch.setattr("convert.__main__.print", pipe_closed_at_the_first_path, raising=False)
    kinds = ["float32", "int8"]
    convert([str(holdout_run), "--out", str(tmp_path), "--precision", *kinds])
    assert sorted(p.name.split(".")[1] for p in tmp_path.glob("*.tflite")) == kinds


def test_a_model_that_strays_is_not_written(holdout_run, tmp_path, monkeypatch, capsys):
    strict = parity.Tolerance(prob_difference=0.0, agreement=1.0, uar_loss=0.0)
    monkeypatch.setitem(parity.TOLERANCES, "int8", strict)
    more = ["--out", str(tmp_path), "--precision", "float32", "int8"]
    assert convert([str(holdout_run), *more]) == 1
    assert "int8.tflite was not written, it strays too far" in capsys.readouterr().err
    assert [p.name for p in tmp_path.glob("*.tflite")] == ["emodb-timnet-live.float32.tflite"]


@pytest.mark.parametrize(("ahead", "within"), [(0.004, True), (0.03, False)])
def test_a_label_that_is_as_likely_is_as_good(ahead, within):
    probs = np.tile([0.5 - ahead / 2, 0.5 + ahead / 2], (4, 1))
    held_out = {"windows": probs[:, ::-1], "logits": np.log(probs), "owners": np.arange(4)}
    allowed = parity.Tolerance(prob_difference=0.1, agreement=1.0, uar_loss=0.0)
    card = dataclasses.replace(Model().card, temperature=1.0)
    found = parity.measure(lambda swapped: swapped, held_out, card, allowed)
    assert (found.agreement, found.within) == (0, within)


def test_a_run_of_many_models_asks_which(loso_run, tmp_path, capsys):
    assert convert([str(loso_run)]) == 1
    assert "holds 3 models; name one" in capsys.readouterr().err
    assert convert([str(tmp_path)]) == 1
    assert "no trained model here" in capsys.readouterr().err


def test_a_converted_model_hears_a_file(holdout_run, tmp_path):
    assert convert([str(holdout_run), "--out", str(tmp_path), "--precision", "int8"]) == 0
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    done = subprocess.run(
        [sys.executable, "-m", "edge", "--json", str(tmp_path / "a.wav"),
         "--model", str(tmp_path / "emodb-timnet-live.int8.tflite"), "--gate", "off"],
        cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["event"] for e in events] == [
        "start", "speech_start", *["estimate"] * 4, "utterance", "speech_end", "clip", "summary",
    ]  # fmt: skip
    assert events[-1]["heard_s"] == 1.0


def test_the_published_recipe_trains_and_converts_but_does_not_stream(tiny_emodb, tmp_path, capsys):
    out = tmp_path / "run"
    more = ["--frontend", "published", "--window-s", "0.5", "--protocol", "holdout",
            "--hold-out", "03", "--preset", "timnet-all"]  # fmt: skip
    assert train([*command(tiny_emodb, out), *more]) == 0
    assert convert([str(out), "--precision", "float32", "--name", "published"]) == 0
    from edge.__main__ import main as edge

    model = out / "model" / "tflite" / "published.float32.tflite"
    assert edge(["--demo", "--model", str(model)]) == 1
    assert "cannot be streamed" in capsys.readouterr().err


def test_a_core_ml_package_is_compared_and_its_operators_are_shown(holdout_run, tmp_path, capfd):
    more = ["--to", "coreml", "--precision", "half", "palette6", "--name", "tiny"]
    assert convert([str(holdout_run), "--out", str(tmp_path), *more]) == 0
    shown = capfd.readouterr().out
    assert "by coremltools alone" in shown
    if platform.system() != "Darwin":
        assert "Through Core ML itself: not run: needs macOS" in shown
    stored = json.loads((tmp_path / "tiny.coreml.parity.json").read_text())
    assert stored["models"]["half"]["prob_difference"] < 0.01
    assert stored["models"]["half"]["agreement"] == 1
    operators = stored["models"]["palette6"]["operators"]
    assert operators["transpose"] <= 6
    # A block's output in rows, to be averaged and for how it changes: two streams of two blocks in
    # each of two networks.
    assert operators["reshape"] <= 2 * 8 + 2 * 3
    for precision in ("half", "palette6"):
        package = tmp_path / f"tiny.{precision}.mlpackage"
        assert Card.read_for(package).file.precision == precision
    # Again, over what is there.
    assert convert([str(holdout_run), "--out", str(tmp_path), *more]) == 0
    assert not list(tmp_path.glob(".*"))


def test_models_that_hear_samples_come_from_a_run(holdout_run, tmp_path):
    assert convert([str(holdout_run), "--out", str(tmp_path), "--waveform", "--name", "tiny"]) == 0
    stored = json.loads((tmp_path / "tiny.waveform.parity.json").read_text())
    assert set(stored["models"]) == {"waveform", "waveform-coreml"}
    assert all(m["prob_difference"] < 1e-3 for m in stored["models"].values())


def test_a_bundle_made_from_a_run_hears_a_file(holdout_run, tmp_path):
    path = tmp_path / "tiny.zip"
    assert convert([str(holdout_run), "--bundle", str(path)]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.zip"]
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    done = subprocess.run(
        [sys.executable, "-m", "edge", "--json", str(tmp_path / "a.wav"),
         "--model", str(path), "--gate", "off"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.count('"estimate"') == 4


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--to", "coreml", "--precision", "int8"], "--to coreml has no int8; it has half"),
        (["--waveform", "--precision", "int8"], "--waveform is float32"),
        (["--bundle", "a.tar"], "expected a name that ends in .zip, not a.tar"),
        (["--bundle", "a.zip", "--out", "x"], "--bundle takes one --precision, and neither"),
    ],
)
def test_conversions_that_do_not_exist_are_wrong_use(tmp_path, capsys, arguments, text):
    with pytest.raises(SystemExit) as stopped:
        convert([str(tmp_path), *arguments])
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err
