"""Names, folders and files become images in [0, 1], or one clear error."""

import gzip
import hashlib
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import FashionMNIST

from srcsnn.datasets import check_images, load_images
from srcsnn.errors import ConfigError, DatasetError

RANDOM = np.random.default_rng(0)


def save_image(path: Path, size=(5, 4), mode="RGB") -> np.ndarray:
    """Writes an image of the given height, width and mode; returns its pixels."""
    shape = size if mode == "L" else (*size, 3)
    pixels = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def make_folder(root: Path, suffix=".png", mode="RGB") -> dict[str, np.ndarray]:
    """A folder of two classes, two images each, for training and testing."""
    return {
        name: save_image(root / name, mode=mode)
        for name in (
            f"{split}/{kind}/{number}{suffix}"
            for split in ("train", "test")
            for kind in ("cat", "dog")
            for number in (0, 1)
        )
    }


def real_data(name: str) -> Path:
    """A folder of the real data, or the test is skipped."""
    root = os.environ.get("SRCSNN_DATA")
    if not root:
        pytest.skip("SRCSNN_DATA is not set")
    path = Path(root) / name
    if not path.exists():
        pytest.skip(f"SRCSNN_DATA has no {name}")
    return path


# Names


def test_digits_are_scaled_enlarged_and_split():
    train, test = load_images("digits", "train"), load_images("digits", "test")
    assert train.images.shape == (1348, 1, 28, 28)
    assert test.images.shape == (449, 1, 28, 28)
    assert train.images.dtype == torch.float32
    assert train.labels.dtype == torch.int64
    check_images(train.images, shape=(1, 28, 28))
    original = load_digits()
    assert test.labels.tolist() == original.target[3::4].tolist()
    assert sorted([*train.labels.tolist(), *test.labels.tolist()]) == sorted(original.target)
    assert train.classes == tuple("0123456789")
    # 28 = 3.5 * 8: pixel 1 of a row is centred on 1.5 / 3.5 - 0.5 < 0, so it repeats the border
    assert test.images[0, 0, 0, 0] == original.images[3, 0, 0] / 16


def test_unknown_name_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'minst' \(did you mean 'mnist'\?\).*cifar10.*folder"):
        load_images("minst", "test")


def test_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="'validation'; right would be 'train' or 'test'"):
        load_images("digits", "validation")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
    ],
)
def test_absent_data_tells_where_it_looked_and_downloads_nothing(tmp_path, name, folder):
    with pytest.raises(DatasetError) as error:
        load_images(name, "train", root=tmp_path)
    assert str(tmp_path / folder) in str(error.value)
    assert "--download" in str(error.value)
    assert ("class folders" in str(error.value)) == (name == "cifar10")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A server on the loopback interface that has a Fashion-MNIST of four images."""
    files = tmp_path / "served"
    files.mkdir()
    resources = []
    for part in ("train", "t10k"):
        for kind, shape in (("images-idx3", (4, 28, 28)), ("labels-idx1", (4,))):
            header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
            path = files / f"{part}-{kind}-ubyte.gz"
            body = np.arange(np.prod(shape), dtype=np.uint8) % 10
            path.write_bytes(gzip.compress(header + body.tobytes()))
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            resources.append((path.name, digest))
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *words):
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=files)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(FashionMNIST, "resources", resources)
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(FashionMNIST, "mirrors", [address])
        yield asked
        server.shutdown()


def test_data_is_downloaded_when_asked_for_and_only_then(tmp_path, mirror):
    root = tmp_path / "data"
    with pytest.raises(DatasetError, match="--download"):
        load_images("fashion-mnist", "train", root=root)
    assert not mirror
    found = load_images("fashion-mnist", "train", root=root, download=True)
    assert found.images.shape == (4, 1, 28, 28)
    assert found.labels.tolist() == [0, 1, 2, 3]
    assert len(set(mirror)) == 4
    mirror.clear()
    load_images("fashion-mnist", "test", root=root, download=True)
    assert not mirror  # what is there is not fetched again


def test_a_failed_download_is_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens there
    expected = f"not be downloaded to {tmp_path}: .*refused"
    with pytest.raises(DatasetError, match=expected) as error:
        load_images("fashion-mnist", "train", root=tmp_path, download=True)
    assert "\n" not in str(error.value)


def test_root_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SRCSNN_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match=f"there is no {tmp_path}"):
        load_images("mnist", "test")
    monkeypatch.delenv("SRCSNN_DATA")
    with pytest.raises(DatasetError, match=r"not told where it is.*SRCSNN_DATA"):
        load_images("mnist", "test")


def test_damaged_torchvision_files_are_reported(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x01\0\0")
    with pytest.raises(DatasetError, match="incomplete or damaged; ask for the download"):
        load_images("mnist", "test", root=tmp_path)


def write_idx(path: Path, array: np.ndarray) -> None:
    """The format of MNIST's files: two zeros, type 8 (bytes), dimensions, sizes, bytes."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
    path.write_bytes(head + array.tobytes())


def test_mnist_layout_is_read_through_torchvision(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = RANDOM.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        write_idx(raw / f"{part}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(6, dtype=np.uint8))
    found = load_images("fashion-mnist", "test", root=tmp_path)
    assert torch.equal(found.images[:, 0], torch.from_numpy(pixels).float() / 255)
    assert found.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.classes[0] == "T-shirt/top"


def test_real_mnist_has_its_known_counts():
    root = real_data("MNIST").parent
    test = load_images("mnist", "test", root=root)
    check_images(test.images, shape=(1, 28, 28))
    # the class counts of the test set, as published with it
    assert test.labels.bincount().tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


def test_real_cifar10_copy_is_read_and_said_to_be_lossy():
    test = load_images(str(real_data("cifar10-jpeg")), "test")
    check_images(test.images, shape=(3, 32, 32))
    assert test.labels.bincount().tolist() == [1000] * 10
    assert test.classes[0] == "airplane"
    assert "lossy JPEG copy" in test.note


# Folders


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_folder_is_read_in_order_with_its_pixels(tmp_path, mode):
    pixels = make_folder(tmp_path / "pets", mode=mode)
    found = load_images(str(tmp_path / "pets"), "test")
    names = ["cat/0", "cat/1", "dog/0", "dog/1"]
    expected = np.stack([pixels[f"test/{name}.png"] for name in names])
    expected = expected[:, None] if mode == "L" else expected.transpose(0, 3, 1, 2)
    assert torch.equal(found.images, torch.from_numpy(expected.copy()).float() / 255)
    assert found.images.is_contiguous()
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert (found.classes, found.name, found.note) == (("cat", "dog"), "pets", "")


def test_jpeg_folder_says_that_it_is_lossy(tmp_path):
    make_folder(tmp_path, suffix=".jpg")
    assert "lossy JPEG" in load_images(str(tmp_path), "train").note


def test_one_jpeg_among_others_is_noted_too(tmp_path):
    make_folder(tmp_path)
    save_image(tmp_path / "train" / "dog" / "9.jpeg")
    assert "lossy JPEG" in load_images(str(tmp_path), "train").note
    assert load_images(str(tmp_path), "test").note == ""


@pytest.mark.parametrize(("size", "mode"), [((5, 5), "RGB"), ((5, 4), "L")])
def test_first_odd_image_is_named(tmp_path, size, mode):
    make_folder(tmp_path)
    for kind in ("cat", "dog"):
        save_image(tmp_path / "train" / kind / "5.png", size=size, mode=mode)
    with pytest.raises(DatasetError) as error:
        load_images(str(tmp_path), "train")
    height, width = size
    assert f"cat/5.png is {'grey' if mode == 'L' else 'RGB'} {height}x{width}" in str(error.value)
    assert "cat/0.png, is RGB 5x4" in str(error.value)


def test_mode_that_has_no_plain_channels_is_refused(tmp_path):
    make_folder(tmp_path)
    with Image.open(tmp_path / "train/dog/1.png") as image:
        image.convert("RGBA").save(tmp_path / "train/dog/1.png")
    with pytest.raises(DatasetError, match=r"dog/1\.png has the mode RGBA; right would be L"):
        load_images(str(tmp_path), "train")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0, 30, 0.6])
def test_corrupt_image_is_named(tmp_path, suffix, kept):
    make_folder(tmp_path, suffix=suffix)
    file = tmp_path / "train" / "dog" / f"0{suffix}"
    data = file.read_bytes()
    file.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(DatasetError, match=f"dog/0{suffix} cannot be decoded"):
        load_images(str(tmp_path), "train")


def test_different_classes_of_the_two_parts_are_named(tmp_path):
    make_folder(tmp_path)
    save_image(tmp_path / "train" / "eel" / "0.png")
    with pytest.raises(DatasetError, match="different classes; only one of them has eel"):
        load_images(str(tmp_path), "test")


def test_folder_without_parts_says_what_is_in_it(tmp_path):
    save_image(tmp_path / "cat" / "0.png")
    with pytest.raises(DatasetError, match="no train/ in it but cat; right would be train/ and"):
        load_images(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("classes", "why"),
    [((), "holds no folders"), (("cat", "eel"), r"no image in cat, eel; .* \.png")],
)
def test_folder_without_images_is_refused(tmp_path, classes, why):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for kind in classes:
            (tmp_path / split / kind).mkdir()
    with pytest.raises(DatasetError, match=why) as error:
        load_images(str(tmp_path), "train")
    assert str(error.value).count(str(tmp_path / "train")) == 1


# Files


def write_file(path: Path, **arrays: np.ndarray) -> str:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return str(path)


PIXELS = RANDOM.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
LABELS = np.array([0, 2, 1, 0])


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".hdf5"])
def test_file_holds_both_parts(tmp_path, suffix):
    path = write_file(
        tmp_path / f"mine{suffix}",
        train_images=PIXELS,
        train_labels=LABELS,
        test_images=PIXELS[:2],
        test_labels=LABELS[:1].repeat(2),
    )
    train, test = load_images(path, "train"), load_images(path, "test")
    assert torch.equal(
        train.images, torch.from_numpy(PIXELS.transpose(0, 3, 1, 2).copy()).float() / 255
    )
    assert train.labels.tolist() == [0, 2, 1, 0]
    assert len(test.images) == 2
    assert train.classes == test.classes == ("0", "1", "2")
    assert (train.name, train.note) == ("mine", "")


def test_single_set_serves_both_parts_and_says_so(tmp_path):
    path = write_file(tmp_path / "one.npz", images=PIXELS, labels=LABELS)
    train, test = load_images(path, "train"), load_images(path, "test")
    assert torch.equal(train.images, test.images)
    assert "same for training and testing" in train.note


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (PIXELS[..., 0], (4, 1, 5, 6)),
        (PIXELS[..., :1], (4, 1, 5, 6)),
        (PIXELS, (4, 3, 5, 6)),
        (PIXELS.transpose(0, 3, 1, 2), (4, 3, 5, 6)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.float16, ">f4"])
def test_layouts_and_dtypes(tmp_path, array, shape, dtype):
    values = array if dtype == np.uint8 else (array / 255).astype(dtype)
    path = write_file(tmp_path / "some.npz", images=values, labels=LABELS)
    images = load_images(path, "test").images
    assert images.dtype == torch.float32
    assert images.shape == shape
    # images [n, c, 1, 2] is pixel (1, 2) in every layout; half precision is the coarsest
    expected = torch.from_numpy(PIXELS[:, 1, 2, : shape[1]].copy()).float() / 255
    torch.testing.assert_close(images[:, :, 1, 2], expected, rtol=0, atol=5e-4)


FLOATS = (PIXELS / 255).astype(np.float32)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (FLOATS * 255, LABELS, r"values from \S+ to \S+, outside \[0, 1\].*look like 0\.\.255"),
        ((FLOATS - 0.5) / 0.25, LABELS, r"values from -\S+ to \S+, outside.*standard deviation"),
        (FLOATS * 1e4, LABELS, r"outside \[0, 1\]; scale"),
        (np.where(FLOATS > 0.9, np.nan, FLOATS), LABELS, "NaN or infinite"),
        (np.where(FLOATS > 0.9, np.inf, FLOATS), LABELS, "NaN or infinite"),
        (PIXELS.astype(np.int64), LABELS, "images are int64; right would be uint8"),
        (PIXELS[:0], LABELS[:0], "there are no images"),
        (PIXELS[..., :2], LABELS, r"shape \(\S+ \S+ \S+ 2\); right would be"),
        (PIXELS[:, :3], LABELS, "either axis may be the channels"),
        (PIXELS[0, 0], LABELS, r"shape \(6, 3\); right would be \(N, H, W\)"),
        (PIXELS, LABELS[:3], r"labels have the shape \(3,\); right would be \(4,\)"),
        (PIXELS, np.eye(4), r"labels have the shape \(4, 4\)"),
        (PIXELS, LABELS.astype(float), "labels are float64; right would be integers"),
        (PIXELS, LABELS - 1, "labels go down to -1"),
        (PIXELS, (LABELS - 1).astype(np.uint32), "labels go up to 4294967295"),
        (PIXELS // 255, LABELS, "images are uint8 from 0 to 1; right would be uint8 from 0 to 255"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_bad_arrays_are_refused_by_name_of_file(tmp_path, suffix, images, labels, message):
    path = write_file(tmp_path / f"bad{suffix}", images=images, labels=labels)
    with pytest.raises(DatasetError, match=message) as error:
        load_images(path, "test")
    assert str(error.value).startswith(path)


def test_missing_arrays_list_those_there_are(tmp_path):
    path = write_file(tmp_path / "part.npz", train_images=PIXELS, train_labels=LABELS, x=LABELS)
    assert len(load_images(path, "train").images) == 4
    with pytest.raises(DatasetError, match=r"no test_images .* but train_images, train_labels, x"):
        load_images(path, "test")


def test_pickled_objects_in_a_file_are_not_loaded(tmp_path):
    objects = np.array([{"a": 1}] * 4, dtype=object)
    path = write_file(tmp_path / "objects.npz", images=PIXELS, labels=objects)
    with pytest.raises(DatasetError, match=r"objects\.npz holds pickled objects, .* not.* run"):
        load_images(path, "test")


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("content", [b"", b"no archive at all", None])
def test_damaged_files_are_refused(tmp_path, suffix, content):
    path = write_file(tmp_path / f"damaged{suffix}", images=PIXELS, labels=LABELS)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2] if content is None else content)
    with pytest.raises(DatasetError, match=f"damaged{suffix} is .*(get it again|completely)"):
        load_images(path, "test")


def test_a_group_in_the_place_of_images_is_named(tmp_path):
    with h5py.File(tmp_path / "groups.h5", "w") as file:
        file.create_group("images")
        file["labels"] = LABELS
    with pytest.raises(DatasetError, match=r"groups\.h5: its images or labels are a group"):
        load_images(str(tmp_path / "groups.h5"), "test")


def test_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DatasetError, match=r"unknown kind of file; right would be \.npz, \.h5"):
        load_images(str(tmp_path / "data.csv"), "test")


# The check at the door


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_images_in_range_pass_with_their_bounds(dtype):
    check_images(torch.tensor([0.0, 1.0], dtype=dtype).reshape(2, 1, 1, 1), shape=(1, 1, 1))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 28, 28), r"shape \(1, 28, 28\); right would be \(N, C, H, W\)"),
        (torch.zeros(0, 1, 28, 28), "there are no images"),
        (torch.zeros(2, 3, 28, 28), "images are 3x28x28 .*, the network takes 1x28x28"),
        (torch.zeros(2, 1, 32, 32), "images are 1x32x32 .*, the network takes 1x28x28"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), "are torch.uint8; right would be floats"),
        (torch.full((2, 1, 28, 28), torch.nan), "NaN or infinite"),
        (torch.full((2, 1, 28, 28), 1.0001), "from 1.0001 to 1.0001"),
    ],
)
def test_the_check_at_the_door(images, message):
    with pytest.raises(DatasetError, match=message):
        check_images(images, shape=(1, 28, 28))
