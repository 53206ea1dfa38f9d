"""Names and `module:attribute` become objects, and what goes wrong is said."""

import sys
import textwrap
from pathlib import Path

import pytest

from srcsnn.errors import ConfigError
from srcsnn.plugins import nearest, resolve

BUILTINS = {"paper-mnist": 1, "paper-cifar10": 2}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder of its own, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.write_text(textwrap.dedent(text))


def test_builtin_name_wins_over_import():
    assert resolve("paper-cifar10", BUILTINS, "architecture") == 2


def test_module_of_the_current_folder_is_found_and_path_restored(folder):
    write(folder / "my_nets_one.py", "import my_helper_one\ndef net(): return my_helper_one.X\n")
    write(folder / "my_helper_one.py", "X = 42\n")
    before = list(sys.path)

    assert resolve("my_nets_one:net", BUILTINS, "architecture")() == 42

    assert sys.path == before


def test_dotted_attribute_and_package_are_found(folder):
    (folder / "my_package").mkdir()
    write(folder / "my_package" / "nets.py", "class Zoo:\n    small = 'small'\n")

    assert resolve("my_package.nets:Zoo.small", BUILTINS, "architecture") == "small"


@pytest.mark.parametrize("name", ["paper-mnits", "Paper-Mnist", "PAPER-MNIST"])
def test_unknown_name_names_nearest_and_both_forms(name):
    with pytest.raises(ConfigError) as error:
        resolve(name, BUILTINS, "architecture")
    message = str(error.value)
    assert f"unknown architecture '{name}' (did you mean 'paper-mnist'?)" in message
    assert "paper-mnist, paper-cifar10" in message
    assert "package.module:attribute" in message


@pytest.mark.parametrize("name", ["", ":net", "math:", "a b:c", "math:pi.", "./nets.py:net"])
def test_malformed_names_are_unknown(name):
    with pytest.raises(ConfigError, match=r"unknown architecture .*package\.module:attribute"):
        resolve(name, BUILTINS, "architecture")


def test_missing_module_is_named(folder):
    with pytest.raises(ConfigError, match="there is no module 'no_such_module_x'"):
        resolve("no_such_module_x.sub:net", BUILTINS, "architecture")


def test_suffix_py_is_pointed_out(folder):
    write(folder / "my_nets_two.py", "net = 1\n")
    with pytest.raises(ConfigError, match=r"write 'my_nets_two' without \.py"):
        resolve("my_nets_two.py:net", BUILTINS, "architecture")


def test_missing_import_inside_the_module_is_not_taken_for_the_module(folder):
    write(folder / "my_nets_three.py", "import no_such_dependency_y\n")
    with pytest.raises(ConfigError) as error:
        resolve("my_nets_three:net", BUILTINS, "architecture")
    assert "importing my_nets_three failed with ModuleNotFoundError" in str(error.value)
    assert "no_such_dependency_y" in str(error.value)
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def net(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_failing_module_is_reported_with_its_cause(folder, code, kind):
    write(folder / "my_nets_four.py", code + "\n")
    before = list(sys.path)
    with pytest.raises(ConfigError, match=f"importing my_nets_four failed with {kind}"):
        resolve("my_nets_four:net", BUILTINS, "architecture")
    assert sys.path == before


def test_missing_attribute_lists_what_there_is(folder):
    write(folder / "my_nets_five.py", "small_net = 1\nlarge_net = 2\n_secret = 3\n")
    with pytest.raises(ConfigError) as error:
        resolve("my_nets_five:smal_net", BUILTINS, "architecture")
    message = str(error.value)
    assert "my_nets_five has no 'smal_net' (did you mean 'small_net'?)" in message
    assert "it has large_net, small_net" in message
    assert "_secret" not in message


def test_nearest_keeps_the_spelling_of_the_choice():
    assert nearest("gaussian", ["Gaussian", "blur"]) == " (did you mean 'Gaussian'?)"
    assert nearest("xyz", []) == ""
