"""The examples of docs/proposals.md work as written."""

import dataclasses
import re
import shlex
from pathlib import Path

import numpy as np
import proposal_writers as writers
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn import cli, load_dataset
from tf_fast_rcnn.data.box_orders import ORDERS, from_order

PAGE = (Path(__file__).parents[2] / "docs" / "proposals.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (tf-fast-rcnn .*)$", PAGE, flags=re.MULTILINE)]
PREPARE = [command for command in COMMANDS if command[0] == "prepare"]


def corners(records, order="xyxy", base=0):
    """Pixels of each image's objects and of the whole image."""
    return {
        record.image_id: np.round(
            box_algebra.to_corners(
                np.concatenate([record.boxes, [[0, 0, 1, 1]]]), record.height, record.width, order, base
            )
        )
        for record in records
    }


def write_folder(folder, images, suffix):
    folder.mkdir()
    for name, rows in images.items():
        (folder / f"{name}{suffix}.mat").write_bytes(writers.mat_one_image({name: rows}))


@pytest.fixture(scope="module")
def files(digits, tmp_path_factory):
    """A folder with the dataset and every file that the page names."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "streets").symlink_to(digits)
    train, test = (load_dataset(f"voc:{digits}@{split}").records for split in ("train", "test"))
    write_folder(folder / "demo_mat", corners(train), "_boxes")
    write_folder(folder / "ijcv_mat", corners(train, base=1), "")
    (folder / "voc_streets_train.mat").write_bytes(writers.mat_whole_set(corners(train, "yxyx", 1)))
    (folder / "detectron.pkl").write_bytes(writers.detectron(corners(train)))
    coco = {record.image_id: box_algebra.to_coco(record.boxes, record.height, record.width) for record in train}
    (folder / "results.json").write_bytes(writers.coco_results(coco))
    for name, records in (("proposals", train), ("test", test)):
        relative = {record.image_id: np.concatenate([record.boxes, [[0, 0, 1, 1]]]) for record in records}
        (folder / f"{name}.npz").write_bytes(writers.npz(relative))
        (folder / f"{name}.csv").write_bytes(writers.csv_lines(relative))
    (folder / "corners.csv").write_bytes(writers.csv_lines(corners(train)))
    return folder


@pytest.mark.parametrize("code", PYTHON)
def test_python(code, files, monkeypatch):
    monkeypatch.chdir(files)
    names = {}
    exec(code.replace("workers=2", "workers=1"), names)
    assert names["train"].proposals is not None
    if "proposals" in names:
        assert names["proposals"].report.recall == 1


@pytest.mark.parametrize("command", PREPARE, ids=" ".join)
def test_prepare(command, files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    assert cli.main([*command, "--workers", "1"]) == 0
    assert re.search(r"^8 images, .*images per second$", capsys.readouterr().out, flags=re.MULTILINE)
    if "--proposals-order" in command or not command[3].startswith(("dense", "selective")):
        assert min(len(record.proposals()) for record in load_dataset(f"prepared:{command[-1]}")) > 1


def test_a_run_on_files_and_what_it_needs_later(files, tiny_recipe, tiny_backbone, monkeypatch, capsys):
    """Training, evaluation and detection as on the page, with a small network to be quick."""
    import keras

    real_train = frcnn.train

    def train_small(data, out, *, backbone, weights, callbacks, **options):
        assert data.dataset.proposals.file == data.proposals.file == "proposals.npz"
        assert callbacks[0]._dataset.proposals.file == "test.npz"
        data = dataclasses.replace(data, recipe=dataclasses.replace(tiny_recipe, steps=2))
        return real_train(data, out, backbone=keras.models.clone_model(tiny_backbone), **options)

    monkeypatch.chdir(files)
    monkeypatch.setattr(frcnn, "train", train_small, raising=False)
    train, evaluate, detect = (command for command in COMMANDS if command[0] != "prepare")
    assert cli.main([*train, "--workers", "1"]) == 0
    for command in (evaluate, detect):
        assert cli.main(command) == 0, capsys.readouterr().err
        place = command.index("--proposals")
        capsys.readouterr()
        assert cli.main(command[:place] + command[place + 2 :]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "trained on proposals from proposals.npz, so they must come from a file; pass `--proposals FILE`" in line


def test_the_table_of_coordinates():
    rows = re.findall(r"^\| `(\w+-\w+)` \| .* \| ([\d. ]+) \|$", PAGE, flags=re.MULTILINE)
    assert [order for order, _ in rows] == list(ORDERS)
    for order, numbers in rows:
        found = from_order([list(map(float, numbers.split()))], 40, 60, order)
        np.testing.assert_allclose(found, [[2 / 40, 3 / 60, 5 / 40, 9 / 60]], rtol=1e-6)
