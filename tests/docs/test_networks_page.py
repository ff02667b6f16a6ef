"""docs/networks.md: the command line accepts its commands and settings, its Python runs, and its table is correct."""

import re
import shlex
from pathlib import Path

import keras
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import cli
from tf_fast_rcnn.commands.train import _changes

PAGE = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (tf-fast-rcnn .*)$", PAGE, flags=re.MULTILINE)]
SETTINGS = re.findall(r"^\| `(network\.\w+=[^`]*)`|`--set (network[^`]*)`", PAGE, flags=re.MULTILINE)
# network, cut at, channels, auto, pooled with reuse, parameters with reuse, parameters with fc
ROWS = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.count("|") == 8]
ROWS = {row[0]: row[1:] for row in ROWS[2:]}
SMALL = ("mobilenet_v2",)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_give_a_recipe(arguments):
    options = cli._parser(arguments).parse_args(arguments)
    changes = _changes(options)
    assert frcnn.recipe(options.recipe, changes).backbone
    assert options.backbone in [*ROWS, "efficientnet_lite0"]


@pytest.mark.parametrize("setting", [first or second for first, second in SETTINGS])
def test_settings_change_the_recipe(setting):
    name, value = setting.split("=")
    assert frcnn.recipe("voc07", {name: value}) != frcnn.recipe("voc07")


def test_what_is_shown_was_found():
    assert len(COMMANDS) >= 3
    assert len(SETTINGS) >= 6
    assert len(ROWS) >= 20
    assert set(SMALL) < set(ROWS)


def test_python(capsys):
    line_of_the_table, own_network = PYTHON
    exec(line_of_the_table, {})
    _, channels, _, pooled, carried, new = ROWS["mobilenet"]
    side = pooled.split("x")[0]
    assert capsys.readouterr().out == (f"reuse {channels} ({side}, {side}) {carried}\nfc {channels} (7, 7) {new}\n")
    exec(own_network, {})
    assert capsys.readouterr().out == "['conv1', 'conv2']\n['conv3', 'hidden']\n(8, 8)\n"


@pytest.mark.parametrize(
    "name", [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]
)
def test_the_table_says_what_networks_are(name):
    cut_at, channels, auto, pooled, *parameters = ROWS[name]
    for head, count in zip(("reuse", "fc"), parameters, strict=True):
        if count == "-":
            with pytest.raises(frcnn.InputError, match="head: found 'reuse'"):
                frcnn.fast_rcnn(name, 20, weights=None, head=head)
            continue
        model = frcnn.fast_rcnn(name, 20, weights=None, head=head)
        pooling = model.get_layer("roi_pooling_16")
        features = pooling.input[0]
        # Keras numbers what its networks do not name, from one network to the next.
        last = re.sub(r"^add_\d+$", "add", model.get_layer("convolutions").layers[-1].name)
        assert (last, str(features.shape[-1]), f"{model.count_params() / 1e6:.1f}") == (cut_at, channels, count)
        assert pooling.output_size == (tuple(map(int, pooled.split("x"))) if head == "reuse" else (7, 7))
        keras.backend.clear_session()
    default = frcnn.fast_rcnn(name, 20, weights=None).count_params() / 1e6
    assert f"{default:.1f}" == parameters[0 if auto == "reuse" else 1]
