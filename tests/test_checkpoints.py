"""Checkpoints are read without running code, fit or are refused, and come back as they were."""

import argparse
import errno
import hashlib
import json
import os
import pickle
import struct
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from srcsnn.checkpoints import (
    check_output,
    load_checkpoint,
    load_into,
    save_checkpoint,
    save_new,
    versions,
)
from srcsnn.errors import CheckpointError, SrcsnnError
from srcsnn.files import check_target, json_text, write_atomically, write_json


class Net(nn.Module):
    """A small network with a convolution, batch statistics (integers among them) and a layer."""

    def __init__(self, hidden: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, hidden, 3)
        self.norm = nn.BatchNorm2d(hidden)
        self.head = nn.Linear(hidden, 2)


def make_net(seed: int = 0, hidden: int = 3) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(hidden)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def read(path: Path):
    return torch.load(path, weights_only=True)


def refused(path: Path) -> str:
    """The message with which the file is refused."""
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    return str(error.value)


def zeroed_head(checkpoint) -> Net:
    """The network of the checkpoint with one of its tensors changed."""
    net = Net()
    load_into(checkpoint, net)
    with torch.no_grad():
        net.head.weight.zero_()
    return net


# Reading


def plain(net, path):
    torch.save(net.state_dict(), path)


def legacy(net, path):
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)


def wrapped(key):
    def write(net, path):
        torch.save({"epoch": 3, key: net.state_dict(), "best": torch.tensor(0.5)}, path)

    return write


def parallel(net, path):
    torch.save({"state_dict": nn.DataParallel(net).state_dict()}, path)


def as_safetensors(net, path):
    safetensors.torch.save_file(net.state_dict(), path)


FORMS = [
    (plain, None, ""),
    (legacy, None, ""),
    (wrapped("state_dict"), "state_dict", ""),
    (wrapped("model_state_dict"), "model_state_dict", ""),
    (wrapped("model"), "model", ""),
    (wrapped("net"), "net", ""),
    (parallel, "state_dict", "module."),
    (as_safetensors, None, ""),
]


@pytest.mark.parametrize(("write", "wrapper", "prefix"), FORMS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
def test_every_form_is_read_whatever_its_name(tmp_path, write, wrapper, prefix, suffix):
    net, path = make_net(), tmp_path / f"net{suffix}"
    write(net, path)

    checkpoint = load_checkpoint(path)

    assert (checkpoint.wrapper, checkpoint.prefix) == (wrapper, prefix)
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.format == ("safetensors" if write is as_safetensors else "torch")
    expected = net.state_dict()
    assert set(checkpoint.state_dict) == set(expected)
    assert all(torch.equal(checkpoint.state_dict[key], expected[key]) for key in expected)
    if write is not as_safetensors:  # which orders tensors in its own way
        assert list(checkpoint.state_dict) == list(expected)


def test_safetensors_keep_the_order_of_the_file(tmp_path):
    path = tmp_path / "net.safetensors"
    as_safetensors(make_net(), path)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(load_checkpoint(path).state_dict) == [key for key in header if key[0] != "_"]


def test_prefix_of_only_some_keys_stays(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "net.pt")
    checkpoint = load_checkpoint(tmp_path / "net.pt")
    assert checkpoint.prefix == ""
    assert list(checkpoint.state_dict) == ["module.a", "b"]


def test_missing_file_and_folder(tmp_path):
    assert "there is no checkpoint" in refused(tmp_path / "none.pt")
    assert "is a folder" in refused(tmp_path)


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 50
NOT_CHECKPOINTS = {
    "empty": (b"", "is empty"),
    "text": (b"epoch,loss\n1,0.5\n", "is not a checkpoint: it looks like text"),
    "web page": (b"<!DOCTYPE html><html>404</html>", "looks like a web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid 1", "git lfs pull"),
    "png": (PNG, "looks like a PNG image"),
    "random": (np.random.default_rng(0).bytes(4000), "is not a checkpoint"),
    "one byte": (b"\0", "is not a checkpoint"),
    "pickle": (pickle.dumps({"a": 1}, protocol=2), "not a checkpoint but another kind of pickle"),
    "new pickle": (pickle.dumps([1.0] * 99, protocol=4), "not a checkpoint but another kind of"),
}


@pytest.mark.parametrize("kind", NOT_CHECKPOINTS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_file_that_is_no_checkpoint_is_told_what_it_is(tmp_path, kind, suffix):
    content, message = NOT_CHECKPOINTS[kind]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    assert message in refused(path)


def test_other_zip_archive_is_refused(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    assert "another kind of zip archive" in refused(tmp_path / "arrays.npz")


@pytest.mark.parametrize("write", [plain, legacy, as_safetensors])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path, write, share):
    path = tmp_path / "net.pt"
    write(make_net(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "truncated or damaged" in refused(path)


@pytest.mark.parametrize("sums", [True, False])
def test_damaged_weights_are_seen_where_the_file_has_their_sum(tmp_path, sums):
    path = tmp_path / "net.pt"
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(sums)
    try:
        torch.save(make_net().state_dict(), path)
    finally:
        torch.serialization.set_crc32_options(before)
    load_checkpoint(path)
    weights = make_net().conv.weight.detach().numpy().tobytes()
    data = path.read_bytes()
    assert data.count(weights) == 1
    path.write_bytes(data.replace(weights, weights[:-1] + bytes([weights[-1] ^ 1])))
    if sums:
        assert "truncated or damaged" in refused(path)
    else:
        load_checkpoint(path)


def test_tensors_without_values_are_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"conv.weight": torch.empty(2, 1, 3, 3, device="meta")}, path)
    assert "conv.weight (meta tensor, without values)" in refused(path)


@pytest.mark.parametrize("write", [plain, legacy, as_safetensors])
def test_damaged_bytes_never_end_in_another_error(tmp_path, write):
    path = tmp_path / "net.pt"
    write(make_net(), path)
    data = path.read_bytes()
    random = np.random.default_rng(0)
    outcomes = []
    for _ in range(150):
        damaged = np.frombuffer(data, dtype=np.uint8).copy()
        damaged[random.integers(0, len(data), 20)] = random.integers(0, 256, 20)
        path.write_bytes(damaged.tobytes())
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            outcomes.append(str(error))
    assert len(outcomes) > 75  # damage to the numbers themselves does not show


@pytest.mark.parametrize("length", [99_999_999, 60, 20])
def test_safetensors_with_a_wrong_header_are_refused(tmp_path, length):
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{" * 60)
    assert "truncated or damaged" in refused(path)


class Attack:
    """Would create a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_malicious_checkpoint_runs_nothing(tmp_path, zipped, protocol):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    torch.save(
        {"state_dict": make_net().state_dict(), "args": Attack(trace)},
        path,
        _use_new_zipfile_serialization=zipped,
        pickle_protocol=protocol,
    )
    message = refused(path)
    assert not trace.exists()
    if protocol == 2:  # torch does not get to the call in the newer one
        assert "posix.mkdir" in message
        assert "may be malicious" in message
        assert "weights_only=False" not in message


def test_later_pickle_protocol_is_not_called_truncated(tmp_path):
    torch.save(make_net().state_dict(), tmp_path / "net.pt", pickle_protocol=4)
    assert "Right would be torch.save with its own pickle_protocol" in refused(tmp_path / "net.pt")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_bare_pickle_runs_nothing(tmp_path, protocol):
    path, trace = tmp_path / "evil.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Attack(trace), protocol=protocol))
    refused(path)
    assert not trace.exists()


def test_attack_of_the_tests_does_work(tmp_path):
    pickle.loads(pickle.dumps(Attack(tmp_path / "trace")))  # noqa: S301
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_module_is_refused_with_the_way_on(tmp_path, zipped):
    path = tmp_path / "whole.pt"
    torch.save(nn.Sequential(nn.Linear(2, 2)), path, _use_new_zipfile_serialization=zipped)
    message = refused(path)
    assert "whole pickled network (torch.nn.modules.container.Sequential" in message
    assert "torch.save(model.state_dict(), 'whole-weights.pt')" in message


def test_wrapped_whole_module_is_refused_with_the_way_on(tmp_path):
    path = tmp_path / "run.pt"
    torch.save({"epoch": 1, "model": nn.Sequential(nn.Linear(2, 2))}, path)
    assert "torch.save(checkpoint[\"model\"].state_dict(), 'run-weights.pt')" in refused(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_refused_class_is_named_and_the_advice_works(tmp_path, zipped, monkeypatch):
    path = tmp_path / "run.pt"
    net = make_net()
    payload = {"model_state_dict": net.state_dict(), "args": argparse.Namespace(lr=0.1)}
    torch.save(payload, path, _use_new_zipfile_serialization=zipped)

    message = refused(path)

    assert "argparse.Namespace" in message
    lines = [line.strip() for line in message.splitlines()[1:]]
    assert len(lines) == 2
    monkeypatch.chdir(tmp_path)
    exec("\n".join(lines), {"torch": torch})  # noqa: S102
    resaved = load_checkpoint(tmp_path / "run-weights.pt")
    assert torch.equal(resaved.state_dict["head.weight"], net.head.weight)


def test_torchscript_archive_is_refused_and_the_advice_works(tmp_path, monkeypatch):
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, its files are still about
        torch.jit.script(nn.Sequential(nn.Linear(2, 2))).save(path)
    message = refused(path)
    assert "TorchScript archive" in message
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(message.splitlines()[1].strip(), {"torch": torch})  # noqa: S102
    assert set(load_checkpoint(tmp_path / "script-weights.pt").state_dict) == {"0.weight", "0.bias"}


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"epoch": 3, "lr": 0.1}, "holds no weights: its entries are epoch (int), lr (float)"),
        (
            {"net": {"w": torch.ones(2)}, "ema": {"w": torch.ones(2)}, "epoch": 3},
            "more than one state dict: net, ema",
        ),
        (
            {"net": {"w": torch.ones(2), "version": 3}, "ema": {"w": torch.ones(2)}},
            "more than one state dict: net, ema",
        ),
        (
            {"net": {"weights": {"w": torch.ones(2)}}, "net_ema": {"w": torch.ones(2)}},
            "more than one state dict: net, net_ema",
        ),
        ({0: {"w": torch.ones(2)}, 1: {"w": torch.ones(2)}}, "more than one state dict: 0, 1"),
        ({0: {"w": torch.ones(2)}}, "0 (dict with tensors in it)"),
        ({}, "it is an empty dict"),
        ({"net": {"a": torch.ones(1), "b": 3}}, "net (dict with tensors in it)"),
        ({"model": {}}, "model (dict)"),
        ({"model": {"model": {"a": torch.ones(1)}}}, "model (dict)"),
        (torch.ones(3), "holds a Tensor; right would be a dict of tensors"),
        ([torch.ones(3)], "holds a list"),
        ({"a": torch.ones(1), "meta": {"b": torch.ones(1)}}, "meta (dict)"),
        ({"model": {"a": torch.ones(1), "n": 3}}, "n (int)"),
        ({0: torch.ones(1)}, "0 (a key that is no text)"),
        ({"a": torch.ones(2, 2).to_sparse()}, "a (torch.sparse_coo tensor)"),
        (
            {"model": {"a": torch.ones(1)}, "state_dict": {"b": torch.ones(1)}},
            "more than one state dict: state_dict, model",
        ),
    ],
)
def test_payload_without_plain_weights_says_what_it_holds(tmp_path, payload, message):
    path = tmp_path / "odd.pt"
    torch.save(payload, path)
    assert message in refused(path)


def test_empty_safetensors_are_refused(tmp_path):
    safetensors.torch.save_file({}, tmp_path / "none.safetensors")
    assert "holds no weights" in refused(tmp_path / "none.safetensors")


# Loading into a network


def saved(tmp_path, state, name="net.pt"):
    torch.save(state, tmp_path / name)
    return load_checkpoint(tmp_path / name)


def refused_by(net, checkpoint) -> str:
    """The message with which the network refuses the checkpoint, and stays as it was."""
    before = {key: bits(value) for key, value in net.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_into(checkpoint, net)
    assert {key: bits(value) for key, value in net.state_dict().items()} == before
    return str(error.value)


@pytest.mark.parametrize(("write", "wrapper", "prefix"), FORMS)
def test_network_gets_the_weights(tmp_path, write, wrapper, prefix):
    net, other = make_net(0), make_net(1)
    write(net, tmp_path / "net")
    load_into(load_checkpoint(tmp_path / "net"), other)
    expected = net.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in other.state_dict().items())


def test_half_precision_loads_by_value(tmp_path):
    checkpoint = saved(tmp_path, make_net().half().state_dict())
    net = make_net(1)
    load_into(checkpoint, net)
    assert net.conv.weight.dtype == torch.float32
    assert torch.equal(net.conv.weight, checkpoint.state_dict["conv.weight"].float())


def test_all_that_does_not_fit_is_listed_at_once(tmp_path):
    state = make_net().state_dict()
    del state["conv.bias"], state["norm.bias"]
    state["extra.weight"] = torch.ones(1)
    state["other.weight"] = torch.ones(2, 5)
    state["head.weight"] = torch.ones(2, 4)
    state["head.bias"] = torch.ones(2, dtype=torch.int32)

    lines = refused_by(make_net(), saved(tmp_path, state)).splitlines()

    assert lines[1:] == [
        "2 missing (the network has them, the file does not):",
        "  conv.bias (3,)",
        "  norm.bias (3,)",
        "2 unexpected (the file has them, the network does not):",
        "  extra.weight (1,)",
        "  other.weight (2, 5)",
        "1 of another shape:",
        "  head.weight is (2, 4) in the file, (2, 3) in the network",
        "1 of another kind:",
        "  head.bias is torch.int32 in the file, torch.float32 in the network",
    ]
    assert "--arch" not in lines[0]


def test_wrong_architecture_is_suspected_when_little_fits(tmp_path):
    checkpoint = saved(tmp_path, make_net(hidden=8).state_dict())
    message = refused_by(make_net(), checkpoint)
    assert "only 2 of its 9 tensors do" in message  # the head's bias and the count of batches
    assert "--arch" in message
    other = saved(tmp_path, {"features.0.weight": torch.ones(1)})
    assert "only 0 of its 1 tensors do" in refused_by(make_net(), other)


@pytest.mark.parametrize("before", ["", "module."])
@pytest.mark.parametrize("prefix", ["model.", "_orig_mod."])
def test_a_common_prefix_is_taken_off_and_put_back(tmp_path, before, prefix):
    prefix = before + prefix
    state = {prefix + key: value for key, value in make_net().state_dict().items()}
    checkpoint = saved(tmp_path, state)
    changed = zeroed_head(checkpoint)
    assert torch.equal(changed.conv.weight, state[f"{prefix}conv.weight"])
    save_checkpoint(tmp_path / "out.pt", checkpoint, changed, {})
    after = read(tmp_path / "out.pt")
    assert list(after) == list(state)
    assert not after[f"{prefix}head.weight"].any()
    assert bits(after[f"{prefix}conv.weight"]) == bits(state[f"{prefix}conv.weight"])


@pytest.mark.parametrize("prefix", ["", "model."])
def test_counts_of_batches_may_be_missing_and_stay_so(tmp_path, prefix):
    state = {prefix + key: value for key, value in make_net().state_dict().items()}
    del state[f"{prefix}norm.num_batches_tracked"]
    checkpoint = saved(tmp_path, state)
    save_checkpoint(tmp_path / "out.pt", checkpoint, zeroed_head(checkpoint), {})
    assert list(read(tmp_path / "out.pt")) == list(state)
    del state[f"{prefix}norm.weight"]
    message = refused_by(make_net(), saved(tmp_path, state))
    assert "norm.weight (3,)" in message
    assert "num_batches_tracked" not in message


def test_a_prefix_is_no_excuse_for_other_keys(tmp_path):
    state = {f"model.{key}": value for key, value in make_net().state_dict().items()}
    del state["model.head.bias"]
    message = refused_by(make_net(), saved(tmp_path, state))
    assert "model.head.weight" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_named(tmp_path, value, dtype):
    state = make_net().to(dtype).state_dict()
    state["conv.weight"][0, 0, 0, 0] = value
    state["norm.running_var"][:2] = value
    message = refused_by(make_net(), saved(tmp_path, state))
    assert f"conv.weight (1 of 27, {torch.float32})" in message
    assert "norm.running_var (2 of 3" in message
    assert "head" not in message


def test_values_too_large_for_the_network_are_refused(tmp_path):
    state = make_net().state_dict()
    state["head.bias"][0] = 1e6  # half precision ends at 65504
    message = refused_by(make_net().half(), saved(tmp_path, state))
    assert "head.bias (1 of 2, torch.float16)" in message


# Saving


def test_only_the_changed_weights_differ_in_the_output(tmp_path):
    net = nn.DataParallel(make_net())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sum(weights.sum() for weights in net.parameters()).backward()
    optimizer.step()
    before = {
        "epoch": 7,
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "shared": net.state_dict()["module.head.weight"],  # the same memory as the weight
        "history": [0.1, 0.2],
    }
    torch.save(before, tmp_path / "in.pt")
    checkpoint = load_checkpoint(tmp_path / "in.pt")

    save_checkpoint(tmp_path / "out.pt", checkpoint, zeroed_head(checkpoint), {})

    after = read(tmp_path / "out.pt")
    assert list(after) == list(before)
    assert (after["epoch"], after["history"]) == (7, [0.1, 0.2])
    assert type(after["model"]) is OrderedDict
    assert after["model"]._metadata == before["model"]._metadata
    assert list(after["model"]) == list(before["model"])
    for key, value in before["model"].items():
        expected = torch.zeros(2, 3) if key == "module.head.weight" else value
        assert bits(after["model"][key]) == bits(expected), key
    assert bits(after["shared"]) == bits(before["shared"])
    momentum = [
        state["state"][0]["momentum_buffer"] for state in (before["optimizer"], after["optimizer"])
    ]
    assert bits(momentum[0]) == bits(momentum[1])


@pytest.mark.parametrize(("write", "wrapper", "prefix"), FORMS)
def test_unchanged_network_comes_back_bit_for_bit(tmp_path, write, wrapper, prefix):
    suffix = ".safetensors" if write is as_safetensors else ".pt"
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write(make_net(), source)
    checkpoint = load_checkpoint(source)
    net = Net()
    load_into(checkpoint, net)

    save_checkpoint(target, checkpoint, net, {})

    again = load_checkpoint(target)
    assert (again.wrapper, again.prefix) == (wrapper, prefix)
    assert list(again.payload) == list(checkpoint.payload)
    for key, value in checkpoint.state_dict.items():
        assert bits(again.state_dict[key]) == bits(value)
        assert again.state_dict[key].dtype == value.dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_unchanged_elements_keep_the_bits_of_another_dtype(tmp_path, dtype):
    state = make_net().double().state_dict()
    state = {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()
    }
    if dtype == torch.float64:
        state["head.weight"] += 1e-12  # what float32 cannot hold
        state["conv.weight"] += 1e-12
    checkpoint = saved(tmp_path, state)
    net = Net()
    load_into(checkpoint, net)
    with torch.no_grad():
        net.head.weight[0, 0] = 2.0

    save_checkpoint(tmp_path / "out.pt", checkpoint, net, {})

    after = read(tmp_path / "out.pt")
    assert bits(after["conv.weight"]) == bits(state["conv.weight"])
    assert after["head.weight"].dtype == dtype
    assert after["head.weight"][0, 0] == 2.0
    assert bits(after["head.weight"].reshape(-1)[1:]) == bits(state["head.weight"].reshape(-1)[1:])


def test_parameters_and_memory_format_stay(tmp_path):
    net = make_net(hidden=3).to(memory_format=torch.channels_last)
    state = dict(net.state_dict(keep_vars=True))
    state["conv.weight"] = nn.Parameter(
        torch.rand(3, 2, 3, 3).to(memory_format=torch.channels_last)
    )
    checkpoint = saved(tmp_path, state)
    changed = Net()
    changed.conv = nn.Conv2d(2, 3, 3)
    load_into(checkpoint, changed)
    with torch.no_grad():
        changed.conv.weight += 1

    save_checkpoint(tmp_path / "out.pt", checkpoint, changed, {})

    after = read(tmp_path / "out.pt")["conv.weight"]
    assert isinstance(after, nn.Parameter)
    assert after.stride() == state["conv.weight"].stride()
    assert torch.equal(after, changed.conv.weight)


def test_what_was_read_is_not_changed_by_saving(tmp_path):
    plain(make_net(), tmp_path / "in.pt")
    checkpoint = load_checkpoint(tmp_path / "in.pt")
    before = bits(checkpoint.payload["head.weight"])
    save_checkpoint(tmp_path / "out.pt", checkpoint, zeroed_head(checkpoint), {})
    assert bits(checkpoint.payload["head.weight"]) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_safetensors_differ_only_in_the_bytes_of_the_changed_tensor(tmp_path, dtype):
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    state = make_net().to(dtype).state_dict()
    safetensors.torch.save_file(state, source, metadata={"origin": "elsewhere", "format": "pt"})
    checkpoint = load_checkpoint(source)

    save_checkpoint(target, checkpoint, zeroed_head(checkpoint), {})

    before, after = source.read_bytes(), target.read_bytes()
    length = int.from_bytes(before[:8], "little")
    header = json.loads(before[8 : 8 + length])
    begin, end = (8 + length + offset for offset in header["head.weight"]["data_offsets"])
    assert after[:begin] == before[:begin]
    assert after[begin:end] == bytes(end - begin)
    assert after[end:] == before[end:]
    assert header["__metadata__"]["origin"] == "elsewhere"


def test_safetensors_changed_on_disk_meanwhile_are_refused(tmp_path):
    source = tmp_path / "in.safetensors"
    as_safetensors(make_net(), source)
    checkpoint = load_checkpoint(source)
    as_safetensors(make_net(1), source)
    with pytest.raises(CheckpointError, match="changed since it was read"):
        save_checkpoint(tmp_path / "out.safetensors", checkpoint, make_net(), {})
    assert not (tmp_path / "out.safetensors").exists()


def test_provenance_lies_beside_and_says_what_came_from_what(tmp_path):
    plain(make_net(), tmp_path / "in.pt")
    checkpoint = load_checkpoint(tmp_path / "in.pt")
    target = tmp_path / "out.pt"

    save_checkpoint(
        target, checkpoint, make_net(1), {"seed": 3, "config": {"b": 1.5, "a": Path("x")}}
    )

    text = (tmp_path / "out.pt.json").read_text()
    record = json.loads(text)
    assert record["seed"] == 3
    assert record["config"] == {"a": "x", "b": 1.5}
    assert record["input_sha256"] == checkpoint.sha256
    assert record["output_sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert set(record["versions"]) == {"python", "torch", "snntorch", "numpy", "srcsnn"}
    assert record["created_utc"].endswith("+00:00")
    assert list(record) == sorted(record)
    assert text.startswith('{\n  "config"')


def test_versions_are_those_that_run():
    assert versions()["torch"] == torch.__version__.partition("+")[0]


def test_provenance_that_json_cannot_hold_leaves_nothing_half_written(tmp_path):
    with pytest.raises(TypeError):
        save_new(tmp_path / "out.pt", make_net(), {"bad": object()})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("existing", ["out.pt", "out.pt.json"])
def test_existing_file_is_kept_unless_asked(tmp_path, existing):
    (tmp_path / existing).write_bytes(b"precious")
    with pytest.raises(CheckpointError, match=f"{existing} is there already"):
        save_new(tmp_path / "out.pt", make_net(), {})
    assert (tmp_path / existing).read_bytes() == b"precious"
    assert [each.name for each in tmp_path.iterdir()] == [existing]

    save_new(tmp_path / "out.pt", make_net(), {}, overwrite=True)
    assert list(load_checkpoint(tmp_path / "out.pt").state_dict) == list(Net().state_dict())


@pytest.mark.parametrize("write", [plain, as_safetensors])
def test_input_is_overwritten_only_when_asked(tmp_path, write):
    path = tmp_path / ("net.pt" if write is plain else "net.safetensors")
    write(make_net(), path)
    before = path.read_bytes()
    checkpoint = load_checkpoint(path)
    net = zeroed_head(checkpoint)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in (path, tmp_path / "link" / path.name):
        with pytest.raises(CheckpointError, match="is the checkpoint that was read"):
            save_checkpoint(name, checkpoint, net, {})
    assert path.read_bytes() == before

    save_checkpoint(path, checkpoint, net, {}, overwrite=True)
    assert not load_checkpoint(path).state_dict["head.weight"].any()


@pytest.mark.parametrize(
    ("write", "name", "right"),
    [(plain, "out.safetensors", "not end"), (as_safetensors, "out.pt", "must end")],
)
def test_suffix_of_the_other_format_is_refused(tmp_path, write, name, right):
    write(make_net(), tmp_path / "in")
    checkpoint = load_checkpoint(tmp_path / "in")
    with pytest.raises(CheckpointError, match=rf"{right} .*in \.safetensors"):
        check_output(tmp_path / name, checkpoint)


def test_folder_that_is_missing_or_a_file_is_refused_before_any_work(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no folder .*none; create it first"):
        check_output(tmp_path / "none" / "out.pt")
    with pytest.raises(CheckpointError, match="it is a folder"):
        check_output(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file, not a folder"):
        save_new(tmp_path / "file" / "out.pt", make_net(), {})


def test_a_pipe_is_no_file_to_write_to_even_when_asked_to_overwrite(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="it is a device or a pipe"):
        check_output(tmp_path / "pipe", overwrite=True)


def test_folder_that_is_not_writable_is_refused(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(CheckpointError, match="is not writable"):
        save_new(folder / "out.pt", make_net(), {})


def test_refusal_of_the_system_is_a_checkpoint_error(tmp_path, monkeypatch):
    # for users who may write anywhere, and for file systems that only say so when written to
    def refuse(file):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(CheckpointError, match=r"out\.pt: Read-only file system; nothing was"):
        save_new(tmp_path / "out.pt", make_net(), {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_network_that_the_file_cannot_hold_is_not_saved(tmp_path, value):
    plain(make_net().half(), tmp_path / "in.pt")
    checkpoint = load_checkpoint(tmp_path / "in.pt")
    net = zeroed_head(checkpoint)
    with torch.no_grad():
        net.head.bias[1] = value
    with pytest.raises(CheckpointError, match=r"head\.bias \(1 of 2, torch\.float16\)"):
        save_checkpoint(tmp_path / "out.pt", checkpoint, net, {})
    assert not (tmp_path / "out.pt").exists()


def test_network_of_other_shape_is_not_saved(tmp_path):
    plain(make_net(), tmp_path / "in.pt")
    with pytest.raises(CheckpointError, match="does not fit"):
        save_checkpoint(
            tmp_path / "out.pt", load_checkpoint(tmp_path / "in.pt"), make_net(hidden=4), {}
        )


@pytest.mark.parametrize("name", ["new.pt", "new.safetensors"])
def test_new_network_is_saved_with_provenance(tmp_path, name):
    net = make_net()
    save_new(tmp_path / name, net, {"seed": 1})
    checkpoint = load_checkpoint(tmp_path / name)
    assert checkpoint.format == ("torch" if name == "new.pt" else "safetensors")
    assert all(
        torch.equal(checkpoint.state_dict[key], value) for key, value in net.state_dict().items()
    )
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["output_sha256"] == checkpoint.sha256
    assert "input_sha256" not in record


def test_new_network_with_nan_is_not_saved(tmp_path):
    net = make_net()
    with torch.no_grad():
        net.head.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"head\.bias"):
        save_new(tmp_path / "new.pt", net, {})
    assert not list(tmp_path.iterdir())


# Atomic files


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), SrcsnnError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
def test_interrupted_writing_leaves_the_old_file_and_no_other(tmp_path, raised, seen):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half of the new")
        raise raised

    with pytest.raises(seen):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_name_shows_the_old_content_until_all_is_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen = []

    def write(file):
        file.write(b"new")
        file.flush()
        seen.append(path.read_bytes())

    with open(path, "rb") as reader:
        write_atomically(path, write)
        assert reader.read() == b"old"  # it was replaced, not written over
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "ours", lambda file: file.write(b"x"))
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_symbolic_link_stays_one(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert check_target(tmp_path / "link", overwrite=True) == (tmp_path / "real").resolve()
    write_atomically(tmp_path / "link", lambda file: file.write(b"new"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_json_is_sorted_readable_and_strict(tmp_path):
    write_json(tmp_path / "a.json", {"z": [float("inf"), 1], "a": ("ä", True)})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": ["ä", True], "z": [None, 1]}
    assert text.index('"a"') < text.index('"z"')
    assert text == json_text({"z": [float("inf"), 1], "a": ("ä", True)})


@pytest.mark.parametrize(
    "number",
    [np.float64(0.98), np.float32(0.5), np.int64(7), np.bool_(True), np.linspace(0, 1, 5)],
)
def test_numpy_numbers_beside_the_weights_are_kept(tmp_path, number):
    net = make_net()
    torch.save({"state_dict": net.state_dict(), "best": number}, tmp_path / "in.pt")
    save_checkpoint(tmp_path / "out.pt", load_checkpoint(tmp_path / "in.pt"), make_net(1), {})
    kept = load_checkpoint(tmp_path / "out.pt").payload["best"]
    assert type(kept) is type(number)
    assert kept.dtype == number.dtype
    np.testing.assert_array_equal(kept, number)


def test_an_array_of_objects_runs_nothing_of_theirs(tmp_path):
    array = np.array([Mine()], dtype=object)
    torch.save({"state_dict": make_net().state_dict(), "best": array}, tmp_path / "in.pt")
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        load_checkpoint(tmp_path / "in.pt")


class Mine:
    """Of a class that torch does not rebuild."""


def test_names_of_bytes_that_are_no_text_are_spelt_out(tmp_path):
    write_json(tmp_path / "a.json", {"input": os.fsdecode(b"bad\xffname.pt")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"input": "bad\\udcffname.pt"}


def test_a_file_that_is_replaced_keeps_who_may_read_it(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(0o600)
    write_json(path, 1)
    assert path.stat().st_mode & 0o777 == 0o600
