import json
import os
import pickle
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import nir
import numpy as np
import pytest
import torch

from srcsnn.cli import main
from srcsnn.models import paper_mnist
from srcsnn.training import initialize

CONFIG = """steps = 20
coefficient = 8.0
thresholds = [0.5, 0.5]
decay = 0.9
inc = 1e-3
dec = 5e-4
max_rate_hz = 500.0
"""


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A folder with a checkpoint, a small data set and a configuration."""
    folder = tmp_path_factory.mktemp("night")
    torch.save({"epoch": 3, "state_dict": initialize(paper_mnist, 0).state_dict()},
               folder / "model.pt")  # fmt: skip
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = np.arange(40) % 10
    np.savez(folder / "data.npz", train_images=images, train_labels=labels,
             test_images=images[:20], test_labels=labels[:20])  # fmt: skip
    (folder / "mine.toml").write_text(CONFIG)
    return folder


def command(*words):
    """Runs the command line in this process; gives its exit code."""
    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in words])
    return exit_.value.code


def sleep_words(folder, *more, checkpoint="model.pt", output="slept.pt"):
    return ["sleep", folder / checkpoint, "--arch", "paper-mnist", "--data", folder / "data.npz",
            "--config", folder / "mine.toml", "-o", folder / output, *more]  # fmt: skip


def test_sleep_info_evaluate_and_inspect(night, capsys):
    assert command(*sleep_words(night, "--raster", night / "run.h5")) == 0
    assert "conv2" in capsys.readouterr().out
    slept = torch.load(night / "slept.pt", weights_only=True)
    before = torch.load(night / "model.pt", weights_only=True)
    assert slept["epoch"] == 3
    assert list(slept["state_dict"]) == list(before["state_dict"])
    assert not torch.equal(
        slept["state_dict"]["conv1.weight"], before["state_dict"]["conv1.weight"]
    )
    assert torch.equal(slept["state_dict"]["fc1.weight"], before["state_dict"]["fc1.weight"])
    origin = json.loads((night / "slept.pt.json").read_text())
    assert origin["config"]["steps"] == 20
    assert len(origin["input_sha256"]) == 64

    common = ["--arch", "paper-mnist", "--data", night / "data.npz"]
    words = ["info", night / "model.pt", *common, "--config", night / "mine.toml"]
    assert command(*words) == 0
    assert "10 x 26 x 26" in capsys.readouterr().out

    words = ["evaluate", night / "model.pt", night / "slept.pt", *common, "-o", night / "r.json",
             "--figure", night / "r.png", "--distortions", "gn"]  # fmt: skip
    assert command(*words) == 0
    result = json.loads((night / "r.json").read_text())
    assert [len(one["cells"]) for one in result["checkpoints"]] == [7, 7]
    assert (night / "r.png").exists()
    capsys.readouterr()

    assert command("inspect", night / "run.h5", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in found["layers"]] == ["input", "conv1", "conv2"]
    assert found["steps_valid"] == 20
    assert command("inspect", night / "run.h5") == 0


def test_data_and_settings_may_have_one_name(night, monkeypatch):
    monkeypatch.chdir(night)
    common = ["model.pt", "--arch", "paper-mnist", "--data", "digits", "--config", "digits"]
    assert command("sleep", *common, "-o", "named.pt", "--set", "steps=2") == 0
    assert command("export", *common, "-o", "named.nir") == 0


def test_what_is_read_is_never_written_to(night, capsys):
    data, own = night / "data.npz", night / "mine.toml"
    before = data.read_bytes(), own.read_bytes(), (night / "model.pt").read_bytes()
    evaluation = ["evaluate", night / "model.pt", "--arch", "paper-mnist", "--data", data]
    for words in (
        sleep_words(night, "--save-config", night / "model.pt", output="y.pt"),
        sleep_words(night, "--raster", data, output="y.pt"),
        sleep_words(night, output="mine.toml"),
        [*evaluation, "-o", data],
    ):
        assert command(*words, "--overwrite") == 2
        assert "give each a file of its own" in capsys.readouterr().err
    assert (data.read_bytes(), own.read_bytes(), (night / "model.pt").read_bytes()) == before


def test_export_writes_what_other_simulators_read(night, tmp_path, monkeypatch, capsys):
    words = ["export", night / "model.pt", "--arch", "paper-mnist", "--data", night / "data.npz"]
    assert command(*words, "-o", tmp_path / "auto.nir") == 0
    assert "steps of 1 ms" in capsys.readouterr().out
    for seed, alike in ((0, True), (1, False)):  # other spikes, other thresholds
        assert command(*words, "-o", tmp_path / f"{seed}.nir", "--seed", seed) == 0
        one, other = (
            nir.read(tmp_path / name).nodes["conv1.neurons"].v_threshold
            for name in ("auto.nir", f"{seed}.nir")
        )
        assert np.array_equal(one, other) == alike
    own = ["--config", night / "mine.toml", "--set", "dt_s=0.0005"]
    assert command(*words, "-o", tmp_path / "own.nir", *own) == 0
    graph = nir.read(tmp_path / "own.nir")
    assert {"conv1", "conv1.neurons", "conv2", "conv2.neurons"} < set(graph.nodes)
    assert float(graph.metadata["dt_s"]) == 0.0005
    assert command(*words, "-o", tmp_path / "own.nir") == 2
    assert "is there already" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "nir", None)
    assert command(*words, "-o", tmp_path / "x.nir") == 2
    assert 'pip install "srcsnn[nir]"' in capsys.readouterr().err


def test_nothing_is_overwritten_unless_asked(night, capsys):
    words = sleep_words(night, output="model.pt")
    assert command(*words) == 1
    assert "overwrite" in capsys.readouterr().err


class Malice:
    def __reduce__(self):
        return os.system, ("touch executed",)


def write_bad_checkpoint(kind, path):
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "malicious":
        path.write_bytes(pickle.dumps(Malice()))
    elif kind == "other network":
        torch.save({"layer.weight": torch.zeros(2, 2)}, path)
    elif kind == "not finite":
        state = paper_mnist().state_dict()
        state["conv1.weight"][0] = float("nan")
        torch.save(state, path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "bad.pt"),
        ("empty", "empty"),
        ("text", "bad.pt"),
        ("malicious", "bad.pt"),
        ("other network", "conv1.weight"),
        ("not finite", "conv1.weight"),
    ],
)
def test_a_bad_checkpoint_fails_in_words(night, tmp_path, monkeypatch, capsys, kind, message):
    monkeypatch.chdir(tmp_path)
    write_bad_checkpoint(kind, night / "bad.pt")
    assert command(*sleep_words(night, checkpoint="bad.pt", output="no.pt")) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
    assert not (night / "no.pt").exists()
    assert not (tmp_path / "executed").exists()
    (night / "bad.pt").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "treshold=[1]"], "did you mean 'thresholds'"),
        (["--set", "thresholds=[1.0]"], "1 given for 2 spiking layers"),
        (["--set", "inc=-1"], "inc = -1"),
        (["--set", "max_rate_hz=99999"], "lower max_rate_hz"),
        (["--arch", "paper-mnits"], "did you mean 'paper-mnist'"),
        (["--data", "mnits"], "did you mean 'mnist'"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_wrong_use_exits_with_2(night, capsys, words, message):
    assert command(*sleep_words(night, *words, output="no.pt")) == 2
    assert message in capsys.readouterr().err
    assert not (night / "no.pt").exists()


def test_labels_that_fit_no_class_name_the_file(night, tmp_path, capsys):
    images = np.zeros((4, 28, 28), np.uint8)
    np.savez(tmp_path / "eleven.npz", images=images, labels=np.array([0, 1, 2, 10]))
    words = ["--arch", "paper-mnist", "--data", tmp_path / "eleven.npz"]
    assert command("evaluate", night / "model.pt", *words) == 1
    error = capsys.readouterr().err
    assert f"model.pt on file {tmp_path}/eleven.npz: labels from 0 to 10 for 10 classes" in error
    assert error.startswith("error: ")  # no progress bar in a file


def test_the_version_is_shown(capsys):
    assert command("--version") == 0
    assert capsys.readouterr().out == f"srcsnn {version('srcsnn')}\n"


def test_what_is_logged_is_not_part_of_the_output(night):
    words = sleep_words(night, "--raster", night / "logged.h5", output="logged.pt")
    done = run(*words)
    assert done.returncode == 0
    assert "recording" in done.stderr
    assert "recording" not in done.stdout


def test_a_file_that_is_no_raster_fails_in_words(night, capsys):
    assert command("inspect", night / "mine.toml") == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(night, place):
    words = ["inspect", str(night / "nowhere.h5")]
    words.insert(place, "--debug")
    with pytest.raises(ValueError, match="nowhere"):
        main(words)


def run(*words, **options):
    return subprocess.run(
        [sys.executable, "-c", "from srcsnn.cli import main; main()", *map(str, words)],
        capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom srcsnn.cli import main\ntry: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'h5py', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "srcsnn demo" in done.stdout


def test_help_breaks_paragraphs_where_the_terminal_ends(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    assert command("sleep", "--help") == 0
    told = capsys.readouterr().out
    assert "Without --config, the settings are found in the network: a firing rate" in told
    assert "the labels are not used." in told


def test_ctrl_c_leaves_a_readable_raster_and_says_so(night, tmp_path):
    raster = tmp_path / "run.h5"
    words = sleep_words(night, "--raster", raster, "--set", "steps=1000000", output="no.pt")
    # Jobs in the background of some shells are deaf to Ctrl-C, and so are their children.
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{hears}; from srcsnn.cli import main; main()", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    part = Path(f"{raster}.part")
    deadline = time.monotonic() + 60
    while not part.exists() or part.stat().st_size < 100_000:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in error
    assert "run.h5 holds the spikes of" in error
    assert "Traceback" not in error
    assert not (night / "no.pt").exists()
    done = run("inspect", raster)
    assert done.returncode == 0
    assert "aborted" in done.stdout


@pytest.mark.parametrize("raster", ["model.pt", "new.pt", "new.pt.json"])
def test_a_raster_on_top_of_a_checkpoint_is_refused_before_sleep(night, capsys, raster):
    before = (night / "model.pt").read_bytes()
    assert command(
        "sleep", night / "model.pt", "--arch", "paper-mnist", "--data", "digits", "--config",
        "digits", "-o", night / "new.pt", "--raster", night / raster, "--overwrite",
    ) == 2  # fmt: skip
    assert "give each a file of its own" in capsys.readouterr().err
    assert (night / "model.pt").read_bytes() == before
    assert not (night / "new.pt").exists()


def test_another_spelling_of_the_input_is_still_overwritten_when_asked(night, capsys):
    torch.save(torch.load(night / "model.pt", weights_only=True), night / "twice.pt")
    words = sleep_words(night, "--overwrite", checkpoint="twice.pt", output="../x/twice.pt")
    words = [str(word).replace("/../x/", f"/../{night.name}/") for word in words]
    assert command(*words) == 0, capsys.readouterr().err


def test_options_of_recording_without_a_raster_are_wrong_use(night, capsys):
    assert command(
        "sleep", night / "model.pt", "--arch", "paper-mnist", "--data", "digits", "--config",
        "digits", "-o", night / "new.pt", "--counts-only",
    ) == 2  # fmt: skip
    assert "--raster" in capsys.readouterr().err


def test_counts_and_figure_in_one_file_are_refused(night, capsys):
    assert command(
        "evaluate", night / "model.pt", "--arch", "paper-mnist", "--data", "digits",
        "-o", night / "same.png", "--figure", night / "same.png",
    ) == 2  # fmt: skip
    assert "both the counts and the figure" in capsys.readouterr().err


def test_a_checkpoint_given_twice_is_wrong_use(night, capsys):
    twice = night / "model.pt"
    assert command("evaluate", twice, twice, "--arch", "paper-mnist", "--data", "digits") == 2
    assert "model.pt; name each checkpoint once" in capsys.readouterr().err


def test_ctrl_c_before_the_work_begins_is_told_in_words(night, monkeypatch, capsys):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("srcsnn.checkpoints.load_checkpoint", interrupt)
    assert command(*sleep_words(night, output="no.pt")) == 1
    assert capsys.readouterr().err.startswith("error: interrupted")


def test_ctrl_c_keeps_what_a_search_has_tried(night, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("srcsnn.tuning.tryout.evaluate", interrupted)
    words = ["tune", night / "model.pt", "--arch", "paper-mnist", "--data", night / "data.npz"]
    assert command(*words, "-o", tmp_path / "tuned", "--workers", "1") == 1
    assert "study.db keeps what was tried" in capsys.readouterr().err
    assert (tmp_path / "tuned" / "study.db").exists()
    monkeypatch.undo()
    assert command(*words, "-o", tmp_path / "tuned", "--workers", "1", "--minutes", "0") == 1
    assert "no settings were tried within 0 minutes" in capsys.readouterr().err


def test_tune_decides_by_training_images_alone(night, tmp_path, capsys):
    data = dict(np.load(night / "data.npz"))
    data["test_images"] = data["test_images"][::-1].copy()
    np.savez(tmp_path / "other.npz", **data)
    for folder, images in ("first", night / "data.npz"), ("second", tmp_path / "other.npz"):
        words = ["tune", night / "model.pt", "--arch", "paper-mnist", "--data", images,
                 "-o", tmp_path / folder, "--trials", "4", "--workers", "1", "--distortions", "gn",
                 "--clean-loss", "100", "--set", "steps=5"]  # fmt: skip
        assert command(*words) == 0
    out = capsys.readouterr().out
    assert "4 settings tried" in out
    first, second = tmp_path / "first", tmp_path / "second"
    assert (first / "config.toml").read_bytes() == (second / "config.toml").read_bytes()
    told = [json.loads((each / "result.json").read_text()) for each in (first, second)]
    assert told[0]["results"] != told[1]["results"]  # the test images did differ
    assert ("fitted alone" in told[0]["results"]) == (told[0]["fit_images"] > 0)
    assert (first / "search.png").stat().st_size > 5000
    assert command(*words, "-o", first) == 0
    assert "nothing new was tried" in capsys.readouterr().out
    assert command(*words, "-o", first, "--study", second / "study.db") == 2
    assert "is of the study" in capsys.readouterr().err
    (first / "study.db").unlink()  # what is left there may be of anything
    assert command(*words, "-o", first) == 2
    assert "result.json is there, but not" in capsys.readouterr().err
    slept = torch.load(first / "tuned.pt", weights_only=True)
    before = torch.load(night / "model.pt", weights_only=True)
    assert slept["epoch"] == 3
    assert list(slept["state_dict"]) == list(before["state_dict"])
    assert not torch.equal(
        slept["state_dict"]["conv2.weight"], before["state_dict"]["conv2.weight"]
    )


def test_layers_are_named_with_commas_and_shown_by_info(night, capsys):
    words = ["info", night / "model.pt", "--arch", "paper-mnist", "--data", night / "data.npz"]
    assert command(*words, "--set", "layers=conv1, fc1") == 0
    told = capsys.readouterr().out
    assert "fc1" in told
    assert "fc2" not in told
    assert command(*words, "--set", "layers=conv7") == 1
    assert "conv7" in capsys.readouterr().err
    assert command(*words, "--set", "thresholds=[1.0]") == 2
    assert "thresholds is found by auto; to set it yourself" in capsys.readouterr().err


def test_images_without_labels_can_sleep_but_not_be_evaluated(night, capsys):
    data = night / "images.npz"
    np.savez(data, images=np.load(night / "data.npz")["train_images"])
    common = ["--arch", "paper-mnist", "--data", data]
    words = [night / "model.pt", *common]
    assert command("sleep", *words, "--config", night / "mine.toml", "-o", night / "u.pt") == 0
    assert command("evaluate", *words) == 1
    assert "the images came without labels" in capsys.readouterr().err
    assert command("train", *common, "-o", night / "v.pt", "--epochs", 1) == 1
    assert "the images came without labels" in capsys.readouterr().err
