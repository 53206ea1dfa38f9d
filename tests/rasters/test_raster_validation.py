"""Files that are as specified, files that are not, and what can be saved of them."""

import json
import shutil
import tracemalloc
from contextlib import suppress

import h5py
import numpy as np
import pytest

from srcsnn.errors import RasterError
from srcsnn.rasters import HDF5Recorder, LayerLayout, RasterLayout, RecordPolicy, open_raster
from srcsnn.rasters.salvage import repair
from srcsnn.rasters.validation import validate
from tests.test_cli import command

POLICIES = {
    "full": RecordPolicy(),
    "thin": RecordPolicy(every=3),
    "counts": RecordPolicy(counts_only=True),
    "thin counts": RecordPolicy(every=3, counts_only=True),
}


@pytest.fixture
def run(tmp_path, draw, record):
    """A finished file of 600 steps, and its spikes."""
    spikes = draw(600)
    record(tmp_path / "run.h5", spikes)
    return tmp_path / "run.h5", spikes


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("steps", [1, 255, 256, 700])
def test_what_the_recorder_writes_is_valid(tmp_path, draw, record, policy, steps):
    record(tmp_path / "run.h5", draw(steps), policy=policy)
    found = validate(tmp_path / "run.h5")
    assert found.violations == ()
    assert (found.version, found.layers, found.rows) == (
        (1, 0),
        6,
        len(range(0, steps, policy.every)),
    )


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_what_ended_early_is_valid(tmp_path, draw, record, policy):
    record(tmp_path / "stopped.h5", draw(50), policy=policy, steps_planned=90)
    with suppress(ZeroDivisionError), HDF5Recorder(tmp_path / "aborted.h5", policy) as recorder:
        recorder.begin(RasterLayout((LayerLayout("x", (9,), "linear"),), 90, 1e-3))
        for step in range(50):
            recorder.record("x", np.ones(9, bool))
            1 / (step < 40)
    for name in "stopped.h5", "aborted.h5":
        assert validate(tmp_path / name).violations == ()


def break_attribute(where, name, value):
    def change(file):
        file[where].attrs[name] = value

    return change


def drop(name):
    def change(file):
        del file[name]

    return change


def put(name, index, value):
    def change(file):
        file[name][index] = value(file[name][index]) if callable(value) else value

    return change


def replace(name, **options):
    """The same contents, stored in another way."""

    def change(file):
        stored = {"data": file[name][...]} | options
        del file[name]
        file.create_dataset(name, **stored)

    return change


def move_behind(name):
    """The same chunks, but behind the rows that count."""

    def change(file):
        rows = file[name][...]
        del file[name]
        options = {"chunks": (64, *rows.shape[1:]), "compression": "gzip"}
        moved = file.create_dataset(name, (6400, *rows.shape[1:]), rows.dtype, **options)
        moved[6400 - len(rows) :] = rows

    return change


X = "layers/features.0"
BREAKS = {
    "index": (break_attribute(X, "index", 7), "/layers: have indices"),
    "index type": (break_attribute(X, "index", 1.0), "/layers/features.0 attribute index: must be"),
    "kind": (break_attribute(X, "kind", "pool"), "kind: is 'pool'; it must be input or conv"),
    "bit order": (break_attribute(X, "bit_order", "big"), "bit_order: is 'big'"),
    "packing": (break_attribute(X, "packing", "layer"), "must be 'channel' for (5, 9, 11)"),
    "small packing": (break_attribute("layers/small", "packing", "channel"), "must be 'layer'"),
    "class": (break_attribute(X, "NX_class", "x"), "NX_class"),
    "signal": (break_attribute(X, "signal", "bits"), "signal"),
    "threshold": (break_attribute(X, "threshold", "low"), "threshold: must be a number, float64"),
    "infinite": (break_attribute(X, "decay", np.inf), "decay: is inf; it must be finite"),
    "shape": (break_attribute(X, "shape", [5, 9.0]), "shape: must be int64"),
    "wide": (break_attribute(X, "shape", [5, 9, 12]), "has rows [5, 13]; they must be"),
    "dt": (break_attribute("/", "dt_s", 0.0), "dt_s: is 0.0; it must be above 0"),
    "slow": (break_attribute("/", "dt_s", 1e10), "is 10000000000.0; it must be at most 1e+09"),
    "rare": (break_attribute("/", "every", 10**10), "every: is 10000000000; it must be at most"),
    "version": (break_attribute("/", "format_version", np.int32([1, 0])), "numbers, int64"),
    "big-endian": (break_attribute("/", "every", np.asarray(1, ">i8")), "must be a number, int64"),
    "NaN": (replace("provenance/config", data='{"a": NaN}'), "NaN is no number"),
    "shuffled": (replace(f"{X}/bits", compression="gzip", shuffle=True), "gzip) alone"),
    "empty": (break_attribute("/", "every", h5py.Empty("<i8")), "must be a number, int64"),
    "planned": (break_attribute("/", "steps_planned", 700), "is 600; a complete run has 700"),
    "every": (break_attribute("/", "every", 2), "/steps: there must be a dataset int64"),
    "created": (break_attribute("/", "created", "yesterday"), "not a time in ISO 8601, UTC"),
    "no zone": (break_attribute("/", "created", "2026-01-01T00:00:00"), "not a time"),
    "software": (break_attribute("/", "software", 3), "software: must be a text"),
    "steps": (lambda f: f.create_dataset("steps", data=[0]), "only to be there if every"),
    "provenance": (drop("provenance"), "/provenance/config: there must be a text"),
    "no JSON": (replace("provenance/config", data="{"), "is not JSON"),
    "no object": (replace("provenance/config", data="[1]"), "is not a JSON object"),
    "complete": (put("complete", 0, 0), "/complete: is 0, but the status is 'complete'"),
    "status": (put("status", (), b"done"), "is 'done', which means nothing"),
    "stopped": (put("status", (), b"stopped at step 6 of 9"), "but 600 steps were planned"),
    "aborted": (put("status", (), b"aborted at step 6: x"), "but 600 rows count"),
    "valid": (put("steps_valid", 0, 0), "/steps_valid: is 0; no row counts"),
    "too many": (put("steps_valid", 0, 900), "has 600 rows, fewer than the 900 that count"),
    "uncovered": (put("counts_rows", 0, 5), "does not cover the 600 rows of a closed file"),
    "wide status": (replace("status", data=np.bytes_(b"complete".ljust(300))), "300 bytes"),
    "no counts": (drop(f"{X}/counts_ct"), "there must be a dataset uint8 or uint16 or uint32"),
    "raw counts": (replace(f"{X}/counts_ct"), "must be chunked and compressed"),
    "counts type": (replace(f"{X}/counts_ct", dtype="i8", chunks=(64, 5), compression="gzip"),
                    "counts_ct: is int64, not"),
    "large chunks": (replace(f"{X}/bits", dtype="u1", chunks=(6000, 5, 13), compression="gzip",
                             data=np.zeros((60_000, 5, 13))), "262,144 are allowed"),
    "behind": (move_behind(f"{X}/bits"), "bits: has 0 chunks; its rows need 10"),
    "chunked totals": (replace(f"{X}/counts_n", chunks=(5, 9, 11)), "must be contiguous"),
    "second totals": (lambda f: f[X].create_dataset("counts_n_alt", data=1), "only to be there if"),
    "a spike": (put(f"{X}/bits", (300, 2, 4), lambda byte: byte ^ 16), "counts_ct: row 300: other"),
    "padding": (put(f"{X}/bits", (slice(4, 7), 2, 12), 128), "row 4 and 2 more: bits behind"),
    "a total": (put(f"{X}/counts_n", (1, 2, 3), 0), "counts_n: neuron 124 has 0, its rows hold"),
    "a count": (put(f"{X}/counts_ct", (17, 3), 255), "counts_ct: row 17: other numbers"),
    "no layer": (drop("layers"), "there must be a group with a layer"),
    "a stranger": (lambda f: f["layers"].create_dataset("x", data=1), "/layers/x: is not a group"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_every_violation_is_named(run, name):
    path, _ = run
    change, told = BREAKS[name]
    with h5py.File(path, "r+") as file:
        change(file)
    violations = validate(path).violations
    assert any(told in str(violation) for violation in violations), violations


def test_all_violations_are_told_at_once(run, capsys):
    path, _ = run
    with h5py.File(path, "r+") as file:
        for name in "kind", "software", "complete":
            BREAKS[name][0](file)
        BREAKS["a total"][0](file)
    assert command("validate", path) == 1
    assert len(capsys.readouterr().out.splitlines()) == 3  # contents of a sound layer only
    assert command("validate", path, "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["violations"]) == 3


def test_totals_where_only_counts_were_kept(tmp_path, draw, record):
    record(tmp_path / "run.h5", draw(90), policy=RecordPolicy(counts_only=True))
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file[f"{X}/counts_n"][2, 0, 0] += 1
    (violation,) = validate(tmp_path / "run.h5").violations
    assert "counts_n: channel 2 has" in str(violation)


def test_another_superblock_is_named(tmp_path, run):
    path, _ = run
    with h5py.File(path) as old, h5py.File(tmp_path / "new.h5", "w", libver="latest") as new:
        new.attrs.update(dict(old.attrs))
        for name in old:
            old.copy(name, new)
    told = [str(violation) for violation in validate(tmp_path / "new.h5").violations]
    assert any("superblock version" in text for text in told)


def test_validate_says_that_a_file_is_valid(run, capsys):
    path, _ = run
    assert command("validate", path) == 0
    assert capsys.readouterr().out == f"{path}: valid, format 1.0, 6 layers, 600 steps\n"


def killed(path, rows):
    """Makes of a finished file what a killed run leaves."""
    part = path.with_name(f"{path.name}.part")
    shutil.copy(path, part)
    with h5py.File(part, "r+") as file:
        file["steps_valid"][0] = rows
        file["complete"][0] = 0
        file["status"][()] = b"recording"
        file["counts_rows"][0] = -1
        for group in file["layers"].values():
            if "bits" in group:
                group["counts_n"][...] = 0
    return part


@pytest.mark.parametrize("every", [1, 3])
def test_what_a_killed_run_has_left_is_repaired(tmp_path, draw, record, capsys, every):
    spikes = draw(600)
    record(tmp_path / "whole.h5", spikes, policy=RecordPolicy(every=every), provenance={"a": [1]})
    part = killed(tmp_path / "whole.h5", 512 // every)
    before = part.read_bytes()
    assert validate(part).violations == ()
    assert command("repair", part, "-o", tmp_path / "run.h5") == 0
    rows = 512 // every
    step = (rows - 1) * every + 1
    told = f"{rows} steps saved, aborted at step {step}: killed while recording"
    assert told in capsys.readouterr().out
    assert part.read_bytes() == before
    assert validate(tmp_path / "run.h5").violations == ()
    with open_raster(tmp_path / "run.h5") as raster:
        assert raster.status == f"aborted at step {step}: killed while recording"
        assert raster.provenance == {"a": [1]}
        for name, values in spikes.items():
            kept = values[::every][:rows]
            assert np.array_equal(raster[name].spikes(), kept)
            assert np.array_equal(raster[name].neuron_counts(), kept.sum(axis=0))


def test_counts_of_a_killed_run_are_repaired(tmp_path, draw, record):
    spikes = draw(500)
    record(tmp_path / "run.h5", spikes, policy=RecordPolicy(counts_only=True))
    part = killed(tmp_path / "run.h5", 500)
    with h5py.File(part, "r+") as file:
        file["counts_rows"][...] = (256, 500)
        for group in file["layers"].values():
            group["counts_n_alt"][...] = group["counts_n"][...]
            group["counts_n"][...] = 0
    repair(part, tmp_path / "saved.h5")
    with open_raster(tmp_path / "saved.h5") as raster:
        for name, values in spikes.items():
            assert np.array_equal(raster[name].neuron_counts(), values.sum(axis=0))


def lose_chunk(path, name, row):
    """Damages a chunk so that it cannot be unpacked."""
    with h5py.File(path) as file:
        dataset = file[name]
        corner = (row // dataset.chunks[0] * dataset.chunks[0],) + (0,) * (dataset.ndim - 1)
        chunk = dataset.id.get_chunk_info_by_coord(corner)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * min(64, chunk.size))


def test_a_damaged_file_is_saved_up_to_the_damage(run, tmp_path, capsys):
    path, spikes = run
    lose_chunk(path, "layers/fc/bits", 300)
    assert command("repair", path) == 2
    assert "name the file to write with --output" in capsys.readouterr().err
    assert command("repair", path, "-o", tmp_path / "saved.h5") == 0
    told = "256 steps saved; 344 were lost, aborted at step 256: later steps were lost"
    assert told in capsys.readouterr().out
    with open_raster(tmp_path / "saved.h5") as raster:
        for name, values in spikes.items():
            assert np.array_equal(raster[name].spikes(), values[:256])


def test_a_step_that_its_counts_do_not_confirm_is_not_saved(run, tmp_path):
    path, spikes = run
    with h5py.File(path, "r+") as file:
        file[f"{X}/counts_ct"][100, 0] += 1
    saved = repair(path, tmp_path / "saved.h5")
    assert (saved.rows, saved.lost) == (100, 500)
    with open_raster(tmp_path / "saved.h5") as raster:
        assert np.array_equal(raster["fc"].spikes(), spikes["fc"][:100])


def test_nothing_is_written_if_nothing_is_wrong_or_nothing_can_be_saved(run, tmp_path, capsys):
    path, _ = run
    assert command("repair", path, "-o", tmp_path / "saved.h5") == 0
    assert "there is nothing to repair" in capsys.readouterr().out
    lose_chunk(path, "layers/fc/bits", 0)
    assert command("repair", path, "-o", tmp_path / "saved.h5") == 1
    assert "no step is whole in every layer" in capsys.readouterr().err
    with h5py.File(path, "r+") as file:
        file[X].attrs["shape"] = [5, 900_000, 1_100_000]
    with pytest.raises(RasterError, match="does not fit"):
        repair(path, tmp_path / "saved.h5")
    assert not (tmp_path / "saved.h5").exists()


def test_repair_writes_over_nothing(run, capsys):
    path, _ = run
    part = killed(path, 512)
    assert command("repair", part) == 2
    assert "is there already" in capsys.readouterr().err
    assert command("repair", part, "-o", part, "--overwrite") == 2
    assert "give each a file of its own" in capsys.readouterr().err
    assert command("repair", part, "--overwrite") == 0
    with open_raster(path) as raster:
        assert raster.steps_valid == 512


def test_bytes_overwritten_anywhere_give_a_valid_file_or_a_reason(run, tmp_path):
    path, _ = run
    whole, random = path.read_bytes(), np.random.default_rng(0)
    outcomes = []
    for _ in range(60):
        damaged = bytearray(whole)
        for at in random.integers(0, len(whole), 3):
            damaged[at : at + 8] = random.bytes(8)
        path.write_bytes(damaged)
        try:
            saved = repair(path, tmp_path / "saved.h5")
        except RasterError:
            outcomes.append("refused")
            continue
        outcomes.append("sound" if saved is None else "saved")
        assert validate(path if saved is None else tmp_path / "saved.h5").violations == ()
    assert {"refused", "saved"} <= set(outcomes)


def test_a_status_that_means_nothing_is_written_anew(run, tmp_path):
    path, _ = run
    with h5py.File(path, "r+") as file:
        file["status"][()] = b"done"
    assert (
        repair(path, tmp_path / "saved.h5").status == "aborted at step 600: killed while recording"
    )


def elsewhere(victim):
    """Ways to lead who reads or repairs a raster to another file."""

    def storage(file):
        del file["layers/fc/counts_n"]
        place = [(str(victim), 0, h5py.h5f.UNLIMITED)]
        file["layers/fc"].create_dataset("counts_n", (21,), "<u4", external=place)

    def link(file):
        del file["complete"]
        file["complete"] = h5py.ExternalLink(str(victim), "/complete")

    def virtual(file):
        del file["steps_valid"]
        layout = h5py.VirtualLayout((1,), "<i8")
        layout[:] = h5py.VirtualSource(str(victim), "steps_valid", (1,))
        file.create_virtual_dataset("steps_valid", layout)

    def status(file):
        del file["status"]
        file["status"] = h5py.ExternalLink(str(victim), "/status")

    return {"storage": storage, "link": link, "virtual": virtual, "status": status}


@pytest.mark.parametrize("way", elsewhere(""))
def test_no_other_file_is_read_or_written_to(run, tmp_path, way):
    path, _ = run
    victim = tmp_path / "victim.h5"
    shutil.copyfile(path, victim)
    before = victim.read_bytes()
    with h5py.File(path, "r+") as file:
        file["status"][()] = b"recording"
        elsewhere(victim)[way](file)
    assert "another file" in str(validate(path).violations[0]) or way in ("link", "status")
    assert len(validate(path).violations) == 1
    with pytest.raises(RasterError, match=r"cannot be repaired: .*(another file|somewhere else)"):
        repair(path, tmp_path / "saved.h5")
    with pytest.raises(RasterError), open_raster(path) as raster:
        [(layer.neuron_counts(), raster.status) for layer in raster.values()]
    assert victim.read_bytes() == before


def test_spikes_that_were_moved_are_not_called_repaired(run, tmp_path):
    path, _ = run
    with h5py.File(path, "r+") as file:
        packed = file["layers/fc/bits"][0]
        row = np.unpackbits(packed[0], bitorder="little")
        here, there = np.flatnonzero(row)[0], np.flatnonzero(row[:21] == 0)[0]
        row[[here, there]] = row[[there, here]]
        file["layers/fc/bits"][0] = np.packbits(row, bitorder="little")[None]
    assert "2 more differ" in str(validate(path)) or "1 more differ" in str(validate(path))
    with pytest.raises(RasterError, match="spikes of /layers/fc were moved to other neurons"):
        repair(path, tmp_path / "saved.h5")


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [("complete", (0,), "u1"), ("counts_rows", (2,), "u8"), ("counts_rows", (2**28,), "<i8"),
     ("provenance/config", (), "S1000000000"), ("status", (), "S1000000000"),
     ("layers/fc/bits", (600, 2**27, 9), "u1")],
)  # fmt: skip
def test_strange_datasets_cost_no_memory_and_no_other_error(run, tmp_path, name, shape, dtype):
    path, _ = run
    with h5py.File(path, "r+") as file:
        del file[name]
        chunks = {"chunks": (600, 1, 9), "compression": "gzip"} if len(shape) > 1 else {}
        file.create_dataset(name, shape, dtype, **chunks)
    tracemalloc.start()
    try:
        assert validate(path).violations
        with suppress(RasterError):
            repair(path, tmp_path / "saved.h5")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
