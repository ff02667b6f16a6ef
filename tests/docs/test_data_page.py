"""docs/data.md works as written: its commands and its Python run, over small data under the names that it uses."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from tfds_folder import build_all
from voc_folder import VocFolder

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import boxes, cli
from tf_fast_rcnn.data.selection import parse_class_map

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (tf-fast-rcnn .*)$", PAGE, flags=re.MULTILINE)]


def write_voc(folder, rng):
    """Ten images for training and four for a test, with one to three objects."""
    for split, first, count in (("train", 0, 10), ("test", 10, 4)):
        numbers = range(first, first + count)
        for number in numbers:
            folder.image(f"{number:04d}.jpg")
            objects = []
            for _ in range(rng.integers(1, 4)):
                left, top = rng.integers(1, 30), rng.integers(1, 20)
                name = ("car", "person", "truck")[rng.integers(3)]
                objects.append((name, left, top, left + rng.integers(9, 30), top + rng.integers(9, 20)))
            folder.annotation(f"{number:04d}", objects)
        folder.split(split, "".join(f"{number:04d}\n" for number in numbers))


def write_coco(path, dataset):
    annotations = [
        {"image_id": int(record.image_id), "category_id": int(3 * label), "bbox": window.tolist(), "iscrowd": 0}
        for record in dataset
        for window, label in zip(
            boxes.to_coco(record.boxes, record.height, record.width), record.class_ids, strict=True
        )
    ]
    images = [{"id": int(record.image_id), "file_name": Path(record.image_path).name} for record in dataset]
    categories = [{"id": 3 * label, "name": name} for label, name in enumerate(dataset.class_names, start=1)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def write_csv(path, dataset):
    lines = ["filename,xmin,ymin,xmax,ymax,class"]
    for record in dataset:
        for edges, label in zip(
            boxes.to_xyxy(record.boxes, record.height, record.width), record.class_ids, strict=True
        ):
            corners = ",".join(str(edge) for edge in edges)
            lines.append(f"{Path(record.image_path).name},{corners},{dataset.class_names[label - 1]}")
    path.write_text("\n".join(lines))


def write_yolo(folder, dataset):
    for name in ("images", "labels"):
        (folder / name / "train").mkdir(parents=True)
    (folder / "data.yaml").write_text(f"train: images/train\nnames: {json.dumps(dataset.class_names)}\n")
    for record in dataset:
        image = Path(record.image_path)
        (folder / "images" / "train" / image.name).write_bytes(image.read_bytes())
        rows = zip(record.class_ids, boxes.to_yolo(record.boxes), strict=True)
        lines = [f"{label - 1} {' '.join(str(value) for value in box)}" for label, box in rows]
        (folder / "labels" / "train" / f"{image.stem}.txt").write_text("\n".join(lines))


def write_voc_of_edges(folder, dataset):
    """VOC's files as tools write them whose first pixel is 0."""
    for record in dataset:
        folder.image(Path(record.image_path).name)
        edges = boxes.to_xyxy(record.boxes.astype(float), record.height, record.width).round(3).tolist()
        names = [dataset.class_names[label - 1] for label in record.class_ids]
        folder.annotation(record.image_id, [(name, *box) for name, box in zip(names, edges, strict=True)])
    folder.split("train", "".join(f"{record.image_id}\n" for record in dataset))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the page's commands are run."""
    folder = tmp_path_factory.mktemp("page")
    write_voc(VocFolder(folder / "streets"), np.random.default_rng(2))
    train = frcnn.load_dataset(f"voc:{folder}/streets@train")
    test = frcnn.load_dataset(f"voc:{folder}/streets@test", train.class_names)
    write_coco(folder / "streets" / "train.json", train)
    write_coco(folder / "streets" / "test.json", test)
    write_csv(folder / "streets" / "train.csv", train)
    write_yolo(folder / "streets-yolo", train)
    write_voc_of_edges(VocFolder(folder / "streets-edges"), train)
    build_all(folder / "tfds")
    return folder


@pytest.fixture
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TFDS_DATA_DIR", "tfds/data")
    monkeypatch.setenv("TF_FAST_RCNN_CACHE", "cache")
    return folder


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.strip().splitlines()[-1])
def test_python(there, code):
    names = {"frcnn": frcnn}
    exec(code, names)
    assert any(isinstance(value, frcnn.DetectionDataset) and len(value) > 1 for value in names.values())


def test_prepare(there, capsys):
    """Every `prepare` of the page, in its order; the kinds of one dataset agree."""
    prepared = [arguments for arguments in COMMANDS if arguments[0] == "prepare"]
    assert len(prepared) >= 8
    for arguments in prepared:
        assert cli.main([*arguments, "--workers", "1"]) == 0, capsys.readouterr().err
    expected = frcnn.load_dataset("prepared:prepared/voc")
    for kind in ("coco", "csv", "yolo", "edges"):
        dataset = frcnn.load_dataset(f"prepared:prepared/{kind}")
        assert dataset.class_names == expected.class_names == ("car", "person", "truck")
        for record, other in zip(dataset, expected, strict=True):
            np.testing.assert_allclose(record.boxes, other.boxes, atol=1e-6)
            assert record.class_ids.tolist() == other.class_ids.tolist()
    most, rest = (frcnn.load_dataset(f"prepared:prepared/{name}") for name in ("most", "rest"))
    ids = [record.image_id for part in (most, rest) for record in part]
    assert sorted(ids) == [record.image_id for record in expected]
    assert (len(most), len(rest)) == (8, 2)


@pytest.mark.parametrize("run", ["runs/coco", "runs/streets"])
def test_train_and_evaluate(there, tiny_recipe, tiny_backbone, capsys, run):
    """The page's `evaluate` commands, on a run of a network of seconds in the classes that its `train` is given."""
    (arguments,) = [arguments for arguments in COMMANDS if arguments[0] == "train"]
    options = cli._parser(arguments).parse_args(arguments)
    train, classes = frcnn.load_dataset(options.train), None
    if run == options.out:
        classes = {"person": ["person"], "vehicle": ["car", "truck"]}
        assert parse_class_map(options.classes) == classes
        train = frcnn.with_classes(train, classes)
    recipe = dataclasses.replace(tiny_recipe, steps=1)
    frcnn.train(train, run, recipe=recipe, backbone=tiny_backbone, class_map=classes, progress=False)
    (command,) = [arguments for arguments in COMMANDS if arguments[:2] == ["evaluate", run]]
    code = cli.main([*command, "--workers", "1"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    for name in train.class_names:
        assert re.search(rf"^{name} +\d", printed.out, flags=re.MULTILINE)
    results = Path("results.json")
    assert results.exists() == ("--coco-results" in command)
    if results.exists():
        found = json.loads(results.read_text())
        assert {result["category_id"] for result in found} <= {3, 6, 9}
        results.unlink()


def test_formats_and_convert(there, capsys):
    """Every `formats` and `convert` of the page; what was converted has the boxes of the original."""
    commands = [arguments for arguments in COMMANDS if arguments[0] in ("formats", "convert")]
    assert {arguments[0] for arguments in commands} == {"formats", "convert"}
    for arguments in commands:
        assert cli.main(arguments) == 0, capsys.readouterr().err
        printed = capsys.readouterr().out
        if arguments[0] == "formats":
            assert "voc:streets@train" in printed.splitlines()
            continue
        original = frcnn.load_dataset("voc:streets@train")
        found = frcnn.load_dataset(printed.splitlines()[1].removeprefix("read it as "))
        assert [one.boxes.tolist() for one in found] == [one.boxes.tolist() for one in original]
