"""The commands that show a raster file."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from srcsnn.rasters import HDF5Recorder, LayerLayout, RasterLayout, RecordPolicy
from tests.test_cli import command

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    """Two runs of 40 steps: `a` fires in all, `b` in the first 30; the second has no `b`."""
    folder = tmp_path_factory.mktemp("rasters")
    layers = LayerLayout("a", (3, 8, 8), "conv"), LayerLayout("b", (10,), "linear")
    for name, recorded in ("first.h5", layers), ("second.h5", layers[:1]):
        with HDF5Recorder(folder / name) as recorder:
            recorder.begin(RasterLayout(recorded, 40, 1e-3))
            for step in range(40):
                for layer in recorded:
                    fires = layer.name == "a" or step < 30
                    recorder.record(layer.name, np.full(layer.shape, fires))
    return folder


def test_inspect_compares_two_files(rasters, capsys):
    files = [rasters / "first.h5", rasters / "second.h5"]
    assert command("inspect", *files) == 0
    told = capsys.readouterr().out
    assert "not recorded" in told
    assert f"warning: {files[1]}: a: 100 % of neurons fire in more than half of the steps" in told
    assert command("inspect", *files, "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in first["layers"]] == ["a", "b"]
    assert [layer["name"] for layer in second["layers"]] == ["a"]
    assert command("inspect", *files, "--layer", "b") == 0  # which only one of them has
    assert "not recorded" in capsys.readouterr().out


def test_long_names_are_shown_whole_and_sparklines_in_a_line(tmp_path, record, capsys):
    names = [f"stages.2.blocks.11.{'a_residual_branch.' * 4}{end}" for end in "ab"]
    layers = tuple(LayerLayout(name, (4,), "conv") for name in names)
    record(tmp_path / "run.h5", {name: np.ones((64, 4), bool) for name in names}, layers)
    assert command("inspect", tmp_path / "run.h5") == 0
    told = capsys.readouterr().out
    assert told.count("█" * 32) == 2
    column = "".join(line.split()[0] for line in told.splitlines() if line.strip())
    assert "".join(names) in column


def test_inspect_compares_before_and_after_a_step(rasters, capsys):
    words = ["inspect", rasters / "first.h5", "--layer", "b", "--at", 30]
    assert command(*words) == 0
    told = capsys.readouterr().out
    assert "warning: from 30: b: 0 spikes in all 10 steps" in told
    assert told.count("█") == 30  # one scale: before, a full block a step; after, none
    assert command(*words, "--json") == 0
    before, after = (part["layers"] for part in json.loads(capsys.readouterr().out))
    assert (before[0]["spikes"], before[0]["steps"]) == (300, 30)
    assert (after[0]["spikes"], after[0]["steps"]) == (0, 10)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["first.h5", "--layer", "c"], 2, "no layer 'c'; first.h5 has a, b"),
        (
            ["first.h5", "second.h5", "--layer", "c"],
            2,
            "no layer 'c'; first.h5 has a, b; second.h5 has a",
        ),
        (["first.h5", "second.h5", "--at", "3"], 2, "give it one file"),
        (["first.h5", "first.h5"], 2, "--at compares its parts"),
        (["first.h5", "./first.h5"], 2, "--at compares its parts"),
        (["first.h5", ""], 1, "is a folder"),
        ([""], 1, "is a folder"),
        (["first.h5", "--at", "40"], 2, "has no step from 40; its last is 39"),
    ],
)
def test_inspect_says_what_cannot_be_compared(rasters, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(rasters)
    assert command("inspect", *words) == code
    assert message in capsys.readouterr().err


WITHOUT = """
import sys
for name in ("torch", "snntorch", "isal", "scipy", "matplotlib", "sklearn", "pynwb"):
    sys.modules[name] = None
import numpy as np
from srcsnn.cli import main
from srcsnn.rasters import HDF5Recorder, LayerLayout, RasterLayout, open_raster
with HDF5Recorder(sys.argv[1]) as recorder:
    recorder.begin(RasterLayout((LayerLayout("x", (3, 9, 9), "conv"),), 20, 1e-3))
    for step in range(20):
        recorder.record("x", np.full((3, 9, 9), step % 2))
with open_raster(sys.argv[1]) as raster:
    assert raster["x"].spikes(1).all()
main(sys.argv[2:])
"""


@pytest.mark.parametrize("words", ["inspect run.h5", "view run.h5", "validate run.h5"])
def test_recording_and_showing_need_only_numpy_and_h5py(tmp_path, words):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "run.h5", *words.split()],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "run.h" in done.stdout


def test_an_error_needs_no_torch_either(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from srcsnn.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", "nowhere.h5"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "error: nowhere.h5: no such file\n")


def test_plot_draws_rasters_maps_and_weights(rasters, tmp_path, capsys):
    weights = {"a.weight": torch.ones(3, 1, 3, 3), "b.weight": torch.eye(10, 192)}
    torch.save(weights, tmp_path / "model.pt")
    torch.save({name: weight / 2 for name, weight in weights.items()}, tmp_path / "slept.pt")
    weights = ["--weights", tmp_path / "model.pt", tmp_path / "slept.pt"]
    for name, more in ("a.png", []), ("maps.svg", ["--maps"]), ("weights.pdf", weights):
        assert command("plot", rasters / "first.h5", "-o", tmp_path / name, *more) == 0
        assert (tmp_path / name).stat().st_size > 5000
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["first.h5", "-o", "x.gif"], 2, "ends in .png, .svg or .pdf"),
        (["first.h5", "-o", "first.h5"], 2, "both a file to read and the figure"),
        (["first.h5", "-o", "there.png"], 2, "is there already"),
        (["first.h5", "-o", "x.png", "--layer", "c"], 2, "no layer 'c'; there are a, b"),
        (["nowhere.h5", "-o", "x.png"], 1, "no such file"),
        (["first.h5", "-o", "x.png", "--maps", "--weights", "p.pt", "q.pt"], 2, "ask for one"),
        (["first.h5", "-o", "x.png", "--weights", "p.pt", "q.pt"], 1, "p.pt: has no b.weight"),
        (["second.h5", "-o", "x.png", "--weights", "p.pt", "q.pt"], 1, "a.weight is (3, 1, 3, 3)"),
        (["second.h5", "-o", "x.png", "--weights", "p.pt", "n.pt"], 1, "not finite numbers"),
    ],
)
def test_plot_says_what_is_wrong(rasters, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(rasters)
    Path("there.png").touch()
    torch.save({"a.weight": torch.ones(3, 1, 3, 3)}, "p.pt")
    torch.save({"a.weight": torch.ones(3, 1, 5, 5)}, "q.pt")
    torch.save({"a.weight": torch.full((3, 1, 3, 3), torch.nan)}, "n.pt")
    assert command("plot", *words) == code
    assert message in capsys.readouterr().err
    assert not Path("x.png").exists()


def test_view_writes_one_page_that_needs_nothing_else(rasters, tmp_path, capsys):
    page = tmp_path / "night.html"
    assert command("view", rasters / "first.h5", "-o", page) == 0
    assert f"{page}: 0." in capsys.readouterr().out
    text = page.read_text()
    assert 'id="bits-0-0"' in text
    elsewhere = r"(src|href)=\"(?!data:)|url\(|\bimport\b|https?://(?!www.w3.org/2000/svg)"
    assert not re.search(elsewhere, text)
    assert command("view", rasters / "first.h5", "-o", page, "--budget", 0, "--overwrite") == 0
    told = capsys.readouterr().out
    assert "spikes of 0 of 40 steps are in the page, of the rest counts" in told
    assert 'id="bits-0-0"' not in page.read_text()


def test_the_page_is_beside_the_file_if_no_other_place_is_named(rasters, tmp_path):
    raster = tmp_path / "run.h5"
    raster.write_bytes((rasters / "first.h5").read_bytes())
    assert command("view", raster) == 0
    assert (tmp_path / "run.html").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["first.h5", "-o", "there.png"], 2, "is there already"),
        (["first.h5", "-o", "first.h5"], 2, "both the raster to read and the page"),
        (["first.h5", "-o", "x.html", "--window", "3"], 2, "right would be two steps"),
        (["first.h5", "-o", "x.html", "--window", "40:50"], 2, "they go from 0 to 39"),
        (["first.h5", "-o", "x.html", "--window=-5:10"], 2, "they go from 0 to 39"),
        (["first.h5", "-o", "x.html", "--serve"], 2, "--serve writes no page"),
        (["first.h5", "-o", "x.html", "--budget", "inf"], 2, "less than or equal to"),
        (["nowhere.h5", "-o", "x.html"], 1, "no such file"),
        (["there.png", "-o", "x.html"], 1, "is empty"),
    ],
)
def test_view_says_what_is_wrong(rasters, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(rasters)
    Path("there.png").touch()
    assert command("view", *words) == code
    assert message in capsys.readouterr().err
    assert not Path("x.html").exists()


def test_a_port_that_is_taken_is_named(rasters, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert command("view", rasters / "first.h5", "--serve", "--port", port) == 1
    assert f"cannot serve at port {port}" in capsys.readouterr().err


@pytest.fixture
def bad_files(rasters, tmp_path):
    """Files that cannot be shown, by what is wrong with them and what is to be said of it."""
    whole = (rasters / "first.h5").read_bytes()
    (tmp_path / "truncated.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.h5").touch()
    (tmp_path / "foreign.h5").write_text("steps,neurons\n1,2\n")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    for name, change in ("newer.h5", (2, 0)), ("older.h5", (0, 9)):
        (tmp_path / name).write_bytes(whole)
        with h5py.File(tmp_path / name, "r+") as file:
            file.attrs["format_version"] = change
    return {
        "truncated.h5": "is cut short", "empty.h5": "is empty", "foreign.h5": "is not HDF5",
        "other.h5": "not a raster file", "newer.h5": "update srcsnn", "older.h5": "damaged",
        "nowhere.h5": "no such file", ".": "is a folder",
    }  # fmt: skip


SHOWING = (["inspect"], ["view"], ["plot", "-o", "x.png"], ["plot", "--maps", "-o", "maps.png"],
           ["view", "-o", "x.html"])  # fmt: skip


def test_bad_files_get_a_sentence_from_every_command(bad_files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for file, message in bad_files.items():
        for name, *more in SHOWING:
            assert command(name, file, *more) == 1
            told = capsys.readouterr().err
            assert message in told
            assert told.count("\n") == 1
    assert not Path("x.png").exists()
    assert not Path("x.html").exists()


def test_a_file_that_is_being_written_is_told_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with HDF5Recorder("run.h5") as recorder:
        recorder.begin(RasterLayout((LayerLayout("x", (40,), "linear"),), 600, 1e-3))
        for _ in range(600):
            recorder.record("x", np.ones(40, bool))
        for name, *more in SHOWING:
            words = [sys.executable, "-c", "from srcsnn.cli import main; main()", name]
            done = subprocess.run(
                [*words, "run.h5.part", *more], capture_output=True, text=True, check=False
            )
            assert done.returncode == 1
            assert "run.h5.part: is being written by another process" in done.stderr


def test_a_hundred_million_spikes_are_shown_in_little_memory(tmp_path, monkeypatch):
    """45,000 neurons for 10,000 steps are 450 MB as bytes; nothing ever holds them all."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    pool = random.random((512, 50, 30, 30), np.float32) < 0.225
    with HDF5Recorder("run.h5") as recorder:
        recorder.begin(RasterLayout((LayerLayout("x", (50, 30, 30), "conv"),), 10_000, 1e-3))
        for step in range(10_000):
            recorder.record("x", pool[step % 512])
    spikes = sum(int(pool[step % 512].sum()) for step in range(10_000))
    assert spikes > 10**8
    measure = (
        "import re, sys\n"
        "from srcsnn.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    status = open('/proc/self/status').read()\n"
        "    print(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1], file=sys.stderr)\n"
    )
    for name, *more in SHOWING:
        done = subprocess.run(
            [sys.executable, "-c", measure, name, "run.h5", *more],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert name != "inspect" or f"{spikes:,}" in done.stdout
        assert int(done.stderr.split()[-1]) < 300_000  # kB; Matplotlib alone takes 100,000


def test_parts_of_counts_alone_cannot_be_compared(tmp_path, capsys):
    with HDF5Recorder(tmp_path / "run.h5", RecordPolicy(counts_only=True)) as recorder:
        recorder.begin(RasterLayout((LayerLayout("x", (9,), "linear"),), 9, 1e-3))
        for _ in range(9):
            recorder.record("x", np.ones(9, bool))
    assert command("inspect", tmp_path / "run.h5", "--at", 4) == 2
    assert "has no spikes of x" in capsys.readouterr().err
    assert command("view", tmp_path / "run.h5") == 0
    assert "the page shows channels, not spikes" in capsys.readouterr().out


def test_what_is_not_in_the_file_itself_is_not_read(rasters, tmp_path, capsys):
    (tmp_path / "run.h5").write_bytes((rasters / "first.h5").read_bytes())
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        del file["layers/a"]
        file["layers/a"] = h5py.ExternalLink(rasters / "second.h5", "/layers/a")
    for name, *more in SHOWING:
        assert command(name, tmp_path / "run.h5", *more) == 1
        assert "a is a link to somewhere else" in capsys.readouterr().err
    assert command("validate", tmp_path / "run.h5") == 1
    assert "/layers/a: is a link to somewhere else" in capsys.readouterr().out


def test_names_cannot_move_the_cursor(tmp_path, capsys):
    """Of layers and of files, which on Linux need not be UTF-8 either."""
    path = tmp_path / os.fsdecode(b"r\xff\x1b[2J.h5")
    with HDF5Recorder(path) as recorder:
        recorder.begin(RasterLayout((LayerLayout("co\x1b[2Jnv", (9,), "linear"),), 9, 1e-3))
        for _ in range(9):
            recorder.record("co\x1b[2Jnv", np.ones(9, bool))
    assert command("inspect", path) == 0
    assert command("inspect", path, "--layer", "fc") == 2
    told, complained = capsys.readouterr()
    assert "r\ufffd\ufffd[2J.h5: complete" in told
    assert " co\ufffd[2Jnv " in told
    assert ".h5 has co\ufffd[2Jnv" in complained
    assert "\x1b[2J" not in told + complained
