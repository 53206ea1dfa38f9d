"""The page in a real browser: Debian's Chromium, driven by Selenium."""

import csv
import errno
import http.client
import io
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import h5py
import numpy as np
import pytest

from srcsnn.rasters import HDF5Recorder, LayerLayout, RasterLayout, RecordPolicy, open_raster
from srcsnn.rasters.viewer import server, write_page

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromium-driver (Debian's packages)"
)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1500,950",
)  # fmt: skip
# Counts that the page shows, asked for in one go.
SHOWN = "const {layer, ...shown} = window.__state; return shown"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browse(chromium):
    """Opens an address, waits until the page is ready; at the end nothing may have gone wrong."""
    chromium.get_log("browser"), chromium.get_log("performance")

    def browse(address):
        chromium.get(str(address))
        until(lambda: chromium.execute_script("return window.__ready"))
        return chromium

    yield browse
    assert [entry["message"] for entry in chromium.get_log("browser")] == []
    for entry in chromium.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address = message["params"]["request"]["url"]
            assert not re.match(r"(https?|wss?|ftp)://(?!127\.0\.0\.1:)", address)


def until(happens, seconds=20):
    limit = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.fixture
def page(tmp_path):
    def page(path, **options):
        with open_raster(path) as raster, (tmp_path / "page.html").open("wb") as file:
            embedded = write_page(raster, file, **options)
        return f"file://{tmp_path / 'page.html'}", embedded

    return page


def keys(driver, *pressed):
    webdriver.ActionChains(driver).send_keys(*pressed).perform()


def shown(driver):
    driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0]))")
    return driver.execute_script(SHOWN)


def show(driver, **window):
    driver.execute_script("show(arguments[0])", window)
    return shown(driver)


def test_counts_of_every_layer_and_order_are_those_of_the_file(
    tmp_path, draw, record, browse, page
):
    spikes = draw(300)
    record(tmp_path / "run.h5", spikes)
    address, embedded = page(tmp_path / "run.h5")
    assert (embedded.steps, embedded.of) == (300, 300)
    driver = browse(address)
    buttons = driver.find_elements("css selector", "#layers button")
    assert [button.text.split("\n")[0] for button in buttons] == list(spikes)
    for button, (name, values) in zip(buttons, spikes.items(), strict=True):
        button.click()
        until(lambda name=name: driver.find_element("id", "name").text == name)
        for order in "ncr":
            keys(driver, order)
            state = shown(driver)
            assert state["spikes"] == values.sum()
            assert f"{values.sum():,} spikes" in driver.find_element("id", "window").text


@pytest.mark.parametrize("order", ["neuron", "channel", "rate"])
@pytest.mark.parametrize("channel", [None, 3])
def test_windows_count_what_they_show(tmp_path, draw, record, browse, page, order, channel):
    spikes = draw(700)["features.0"]
    record(tmp_path / "run.h5", {"x": spikes}, (LayerLayout("x", (5, 9, 11), "conv"),))
    driver = browse(page(tmp_path / "run.h5")[0])
    driver.execute_script("setChannel(arguments[0]); setOrder(arguments[1])", channel, order)
    chosen = spikes if channel is None else spikes[:, channel : channel + 1]
    trains = chosen.reshape(700, -1)
    if order == "channel":
        trains = chosen.sum(axis=(2, 3))
    elif order == "rate":
        trains = trains[:, np.argsort(-trains.sum(axis=0), kind="stable")]
    rows = trains.shape[1]
    random = np.random.default_rng(0)
    for _ in range(8):
        t0, t1 = sorted(random.choice(701, 2, replace=False).tolist())
        r0, r1 = sorted(random.choice(rows + 1, 2, replace=False).tolist()) if rows > 1 else (0, 1)
        state = show(driver, t0=t0, t1=t1, r0=r0, r1=r1)
        assert (state["t0"], state["t1"], state["r0"], state["r1"]) == (t0, t1, r0, r1)
        assert state["spikes"] == trains[t0:t1, r0:r1].sum()


def test_the_cross_hair_reads_what_is_under_it(tmp_path, draw, record, browse, page):
    spikes = draw(60)
    record(tmp_path / "run.h5", spikes)
    driver = browse(page(tmp_path / "run.h5")[0])  # features.0 is open
    driver.find_element("id", "raster").click()
    random = np.random.default_rng(0)
    for _ in range(10):
        step, row = int(random.integers(60)), int(random.integers(495))
        driver.execute_script(
            "state.cross = {step: arguments[0], row: arguments[1]}; moveCross(0, 0)", step, row
        )
        channel, y, x = np.unravel_index(row, (5, 9, 11))
        trains = spikes["features.0"].reshape(60, -1)
        fires = "fires" if trains[step, row] else "silent"
        expected = f"step {step}, channel {channel}, y {y}, x {x}, {fires}, rate "
        told = driver.find_element("id", "read").text
        assert told == f"{expected}{trains[:, row].mean():.4f} / step"


def test_keys_wheel_and_drag_move_the_window(tmp_path, draw, record, browse, page):
    record(tmp_path / "run.h5", draw(400))
    driver = browse(page(tmp_path / "run.h5")[0])
    raster = driver.find_element("id", "raster")
    keys(driver, "+")
    assert (shown(driver)["t0"], shown(driver)["t1"]) == (100, 300)
    keys(driver, webdriver.Keys.ARROW_RIGHT)
    assert (shown(driver)["t0"], shown(driver)["t1"]) == (140, 340)
    keys(driver, ">")
    assert shown(driver)["r1"] - shown(driver)["r0"] == 248
    webdriver.ActionChains(driver).drag_and_drop_by_offset(raster, 300, 0).perform()
    width = driver.execute_script("return inner(at('raster').clientWidth, 100).width")
    assert abs(shown(driver)["t0"] - (140 - 300 / width * 200)) <= 0.5
    keys(driver, "0")
    assert [shown(driver)[edge] for edge in ("t0", "t1", "r0", "r1")] == [0, 400, 0, 495]
    origin = webdriver.common.actions.wheel_input.ScrollOrigin.from_element(raster)
    webdriver.ActionChains(driver).scroll_from_origin(origin, 0, -100).perform()
    assert shown(driver)["t1"] - shown(driver)["t0"] == 320
    for wide, tall in (1, 495), (400, 1):
        show(driver, t0=0, t1=wide, r0=0, r1=tall)
        keys(driver, "-", "<")
        state = shown(driver)
        assert (state["t1"] - state["t0"], state["r1"] - state["r0"]) == (
            min(400, 2 * wide), min(495, 2 * tall)
        )  # fmt: skip
    keys(driver, webdriver.Keys.PAGE_DOWN, webdriver.Keys.PAGE_DOWN)
    until(lambda: driver.find_element("id", "name").text == "line")


def test_keyboard_alone_is_enough(tmp_path, draw, record, browse, page):
    spikes = draw(40)["features.0"]
    record(tmp_path / "run.h5", {"x": spikes}, (LayerLayout("x", (5, 9, 11), "conv"),))
    driver = browse(page(tmp_path / "run.h5")[0])
    reached = []
    for _ in range(30):
        keys(driver, webdriver.Keys.TAB)
        reached.append(driver.execute_script("return document.activeElement.id"))
        if reached[-1] == "maps":
            break
    assert {"theme", "channel", "in", "csv", "png", "help", "raster", "maps"} <= set(reached)
    keys(driver, webdriver.Keys.ARROW_RIGHT, webdriver.Keys.ENTER)
    state = shown(driver)
    assert (state["channel"], state["spikes"]) == (1, spikes[:, 1].sum())
    keys(driver, webdriver.Keys.ESCAPE)
    assert shown(driver)["spikes"] == spikes.sum()
    keys(driver, "d")
    assert driver.execute_script("return document.documentElement.dataset.theme") == "dark"
    keys(driver, "?")
    assert driver.find_element("id", "keys").is_displayed()


def test_a_click_on_a_map_shows_its_channel(tmp_path, draw, record, browse, page):
    spikes = draw(40)["features.0"]
    record(tmp_path / "run.h5", {"x": spikes}, (LayerLayout("x", (5, 9, 11), "conv"),))
    driver = browse(page(tmp_path / "run.h5")[0])
    maps = driver.find_element("id", "maps")
    left, top = -maps.size["width"] // 2 + 10, -maps.size["height"] // 2 + 10
    webdriver.ActionChains(driver).move_to_element_with_offset(maps, left, top).click().perform()
    assert (shown(driver)["channel"], shown(driver)["spikes"]) == (0, spikes[:, 0].sum())


@pytest.mark.parametrize("name", ["features.0", "volume", "line", "fc"])
def test_the_window_is_saved_as_csv(tmp_path, draw, record, browse, page, layers, name):
    (layer,) = (layer for layer in layers if layer.name == name)
    spikes = draw(50)[name]
    record(tmp_path / "run.h5", {name: spikes}, (layer,), RecordPolicy(every=2))
    driver = browse(page(tmp_path / "run.h5")[0])
    show(driver, t0=3, t1=20)
    rows = list(csv.DictReader(io.StringIO(driver.execute_script("return csvOf()"))))
    step, *position = np.nonzero(spikes[6:40:2])
    assert [int(row["step"]) for row in rows] == (6 + 2 * step).tolist()
    neuron = np.ravel_multi_index(position, layer.shape)
    assert [int(row["neuron"]) for row in rows] == neuron.tolist()
    axes = {"features.0": "channel y x", "volume": "channel z y x", "line": "channel x"}
    for axis, where in zip(axes.get(name, "neuron").split(), position, strict=True):
        assert [int(row[axis]) for row in rows] == where.tolist()


def test_buttons_save_files(tmp_path, draw, record, browse, page):
    record(tmp_path / "run.h5", draw(50))
    driver = browse(page(tmp_path / "run.h5")[0])
    saved = tmp_path / "saved"
    saved.mkdir()
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(saved)}
    )
    for button in "csv", "png":
        driver.find_element("id", button).click()
        until((saved / f"run-features.0-0-49.{button}").exists)
    assert (saved / "run-features.0-0-49.png").read_bytes()[1:4] == b"PNG"
    driver.execute_script("setChannel(3)")
    driver.find_element("id", "csv").click()
    until((saved / "run-features.0-channel-3-0-49.csv").exists)


def test_above_the_budget_the_page_has_counts_and_says_so(tmp_path, draw, record, browse, page):
    spikes = draw(3000, (LayerLayout("x", (5, 9, 11), "conv"),))
    record(tmp_path / "run.h5", spikes, (LayerLayout("x", (5, 9, 11), "conv"),))
    whole = page(tmp_path / "run.h5")[1].bytes
    address, embedded = page(tmp_path / "run.h5", budget_bytes=whole // 2)
    assert embedded.bytes <= whole // 2
    assert 1000 < embedded.steps < 1600
    driver = browse(address)
    state = shown(driver)
    assert (state["spikes"], state["exact"]) == (spikes["x"].sum(), True)
    assert state["note"].startswith("Not all spikes of these steps are in this page")
    state = show(driver, t0=10, t1=embedded.steps)
    assert (state["note"], state["spikes"]) == ("", spikes["x"][10 : embedded.steps].sum())
    keys(driver, "s")
    show(driver, t0=0, t1=3000)
    keys(driver, "s")
    assert "choose a window whose spikes are" in driver.find_element("id", "read").text


def test_chosen_windows_are_in_the_page(tmp_path, draw, record, browse, page):
    spikes = draw(3000, (LayerLayout("x", (5, 9, 11), "conv"),))
    record(tmp_path / "run.h5", spikes, (LayerLayout("x", (5, 9, 11), "conv"),))
    address, embedded = page(tmp_path / "run.h5", windows=[slice(1600, 1700), slice(2990, 3000)])
    assert embedded.steps == 512 + 3000 % 512
    state = show(browse(address), t0=1600, t1=1700)
    assert (state["note"], state["spikes"]) == ("", spikes["x"][1600:1700].sum())


@pytest.mark.parametrize(
    ("shape", "rate"), [((1,), 0), ((1,), 1), ((40,), 0), ((3, 9, 9), 0), ((70_000,), 0.01)]
)
def test_silent_tiny_and_wide_layers_are_shown(tmp_path, record, browse, page, shape, rate):
    spikes = np.random.default_rng(0).random((20, *shape)) < rate
    record(tmp_path / "run.h5", {"<b>x": spikes}, (LayerLayout("<b>x", shape, "conv"),))
    driver = browse(page(tmp_path / "run.h5")[0])
    assert driver.find_element("id", "name").text == "<b>x"
    for order in "ncr":
        keys(driver, order)
        assert shown(driver)["spikes"] == spikes.sum()


def test_counts_alone_are_shown_as_channels(tmp_path, draw, record, browse, page):
    spikes = draw(200)
    record(tmp_path / "run.h5", spikes, policy=RecordPolicy(counts_only=True))
    driver = browse(page(tmp_path / "run.h5")[0])
    state = shown(driver)
    assert state["spikes"] == spikes["features.0"].sum()
    assert state["note"] == "Only counts were recorded: rows are channels."
    for order in "nr":
        keys(driver, order)
        for channel in range(5):
            driver.execute_script(
                "state.cross = {step: 7, row: arguments[0]}; moveCross(0, 0)", 99 * channel + 50
            )
            assert driver.find_element("id", "read").text == f"step 7, channel {channel}"
    keys(driver, "s")
    assert "there are no spikes to save" in driver.find_element("id", "read").text


def test_what_the_file_says_cannot_break_the_page(tmp_path, record, browse, page):
    spikes = np.ones((5, 3, 8, 8), bool)
    layer = LayerLayout("{{DATA}} ABOUT", (3, 8, 8), "conv", threshold=float("inf"))
    record(tmp_path / "run.h5", {layer.name: spikes}, (layer,))
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        del file.attrs["dt_s"]
    driver = browse(page(tmp_path / "run.h5")[0])
    assert driver.find_element("id", "name").text == layer.name
    assert shown(driver)["spikes"] == spikes.sum()


def test_maps_follow_the_size_of_the_window(tmp_path, draw, record, chromium, browse, page):
    record(tmp_path / "run.h5", draw(40))
    driver = browse(page(tmp_path / "run.h5")[0])
    size = driver.get_window_size()
    try:
        driver.set_window_size(900, 950)
        shown(driver)
        grid = "const m = at('maps'); return [m.width, m.clientWidth * devicePixelRatio]"
        drawn, wanted = driver.execute_script(grid)
        assert drawn == wanted
    finally:
        driver.set_window_size(size["width"], size["height"])


@contextmanager
def serving(path):
    # Where the tests run in the background, Ctrl-C is ignored, and by their children too.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from srcsnn.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "view", str(path), "--serve"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
        assert "Traceback" not in errors
    assert (process.returncode, errors) == (0, "")


def test_served_spikes_are_those_of_the_file(tmp_path, draw, record, browse):
    spikes = draw(3000, (LayerLayout("x", (5, 9, 11), "conv"),))
    record(tmp_path / "run.h5", spikes, (LayerLayout("x", (5, 9, 11), "conv"),))
    with serving(tmp_path / "run.h5") as address:
        driver = browse(address[0])
        until(lambda: shown(driver)["spikes"] == spikes["x"].sum())
        assert shown(driver)["note"] == ""
        state = show(driver, t0=700, t1=702, r0=30, r1=90)
        assert state["spikes"] == spikes["x"].reshape(3000, -1)[700:702, 30:90].sum()
        driver.execute_script("state.layer.blocks.clear()")
    driver.execute_script("draw()")  # the server has gone
    until(lambda: "srcsnn view has ended" in driver.find_element("id", "window").text)
    assert "ERR_CONNECTION_REFUSED" in driver.get_log("browser")[0]["message"]


def test_the_server_answers_only_what_this_machine_asks_for(tmp_path, draw, record):
    record(tmp_path / "run.h5", draw(30))
    with serving(tmp_path / "run.h5") as address:
        port = int(address[1])
        idle = socket.create_connection(("127.0.0.1", port))  # says nothing, and hinders nobody
        for path, host, status in (
            ("/", "127.0.0.1", 200), ("/bits?layer=1&first=0", "localhost", 200),
            ("/", "elsewhere.example", 403), ("/bits?layer=1&first=30", "127.0.0.1", 400),
            ("/bits?layer=-1&first=0", "127.0.0.1", 400), ("/bits", "127.0.0.1", 400),
            ("/bits?layer=9&first=0", "127.0.0.1", 400), ("/../run.h5", "127.0.0.1", 404),
            ("http://[", "127.0.0.1", 400),
        ):  # fmt: skip
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", path, headers={"Host": f"{host}:{port}"})
            assert connection.getresponse().status == status, path
            connection.close()
        idle.close()
        gone = socket.create_connection(("127.0.0.1", port))
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.sendall(b"GET / HTTP/1.1\r\n")
        gone.close()  # with a reset
        for _ in range(20):  # it goes on answering, and has seen the reset when it ends
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            connection.close()


def test_only_what_is_wrong_with_the_server_itself_is_told(capsys):
    here, there = socket.socketpair()
    with here, there, server._Server(("127.0.0.1", 0), BaseHTTPRequestHandler) as serving:

        def told(error):
            try:
                raise error
            except type(error):
                serving.handle_error(here, ("127.0.0.1", 1))
            return capsys.readouterr().err

        assert told(ConnectionResetError()) == ""
        assert "ZeroDivisionError" in told(ZeroDivisionError())
        here.close()  # as Ctrl-C does while its thread begins
        assert told(OSError(errno.EBADF, "Bad file descriptor")) == ""


def test_ten_million_spikes_open_and_move_at_once(tmp_path, chromium, browse, page):
    """Within 2 s and 50 ms on a machine that does nothing else; thrice that if others work too."""
    random = np.random.default_rng(0)
    layer = LayerLayout("x", (50, 30, 30), "conv")
    rates = random.gamma(0.5, 0.0444, layer.shape)
    with HDF5Recorder(tmp_path / "run.h5") as recorder:
        recorder.begin(RasterLayout((layer,), 10_000, 1e-3))
        for _ in range(10_000):
            recorder.record("x", random.random(layer.shape, np.float32) < rates)
    with open_raster(tmp_path / "run.h5") as raster:
        total = int(raster["x"].population_counts().sum())
    assert total > 9_000_000
    address, embedded = page(tmp_path / "run.h5", budget_bytes=50_000_000)
    assert embedded.steps == 10_000
    started = time.monotonic()
    driver = browse(address)
    seconds = time.monotonic() - started
    assert shown(driver)["spikes"] == total
    until(lambda: driver.execute_script("return working === null"))
    changes = (
        "setOrder('rate')", "show({r0: 1000, r1: 40000})", "show({t0: 37, t1: 9037})", "showAll()",
        "setOrder('channel')", "show({t0: 900, t1: 3900})", "setOrder('neuron')", "showAll()",
        "show({r0: 100, r1: 44000})", "setChannel(7)", "setOrder('rate')", "setChannel(null)",
    )  # fmt: skip
    milliseconds = {
        change: driver.execute_script(f"{change}; draw(); return state.drawMs")
        for change in changes
    }
    assert shown(driver)["spikes"] == total
    assert seconds < 6
    assert np.median(list(milliseconds.values())) < 150, milliseconds
