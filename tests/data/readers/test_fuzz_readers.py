"""Mutated annotation files: a reader must return a valid data set or raise a one-line error for any content.

Seeded mutations change valid files: bytes, tokens of the format and whole lines are flipped, duplicated, removed, or
replaced with values that have broken other readers.
"""

import json
import random
import time

import numpy as np
import pytest
from annotation_files import write_image
from PIL import Image

from tf_fast_rcnn.data.specs import load_dataset
from tf_fast_rcnn.errors import InputError

MUTATIONS = 120

NASTY = [
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"nan",
    b"-inf",
    b"1e400",
    b"-1e308",
    b"1" + b"0" * 30,
    b"9" * 5000,
    b"-1",
    b"0",
    b"0.5",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"'",
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\xe2\x80\xa8",
    b"%s%n",
    b"<a>" * 3000,
    b"&lol;",
    b"../../a.png",
    b"a" * 5000,
    b"- &x *x",
    b"!!python/object/apply:os.getcwd []",
]

VOC = """<?xml version="1.0"?>
<annotation><filename>a.png</filename><size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>60</xmax><ymax>40</ymax></bndbox></object>
</annotation>
"""
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}, {"id": 2, "file_name": "b.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [4, 5, 25, 14], "iscrowd": 0, "segmentation": [[1, 2]]},
        {"id": 2, "image_id": 1, "category_id": 9, "bbox": [0, 0, 60, 40.0], "iscrowd": 1},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
}
CSV = (
    "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,60,40,cat,5,6,30,20\nb.png,,,,,,,\na.png,,,dog,0,0,60,40\n"
)
YAML = "path: .\ntrain: images\nnc: 2\nnames:\n  0: cat\n  1: dog\n"
LABELS = "0 0.3 0.3 0.4 0.35\n1 0.5 0.5 1 1\n"


@pytest.fixture
def data(tmp_path):
    """Files of every format for two images, and the SPEC of each."""
    files = {
        "Annotations/a.xml": VOC,
        "Annotations/b.xml": "<annotation></annotation>",
        "ImageSets/Main/train.txt": "a\nb\n",
        "instances.json": json.dumps(COCO),
        "boxes.csv": CSV,
        "data.yaml": YAML,
        "labels/a.txt": LABELS,
    }
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "images" / name)
        write_image(tmp_path / "JPEGImages" / name)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


SPECS = {
    "Annotations/a.xml": "voc:{}@train",
    "ImageSets/Main/train.txt": "voc:{}@train",
    "instances.json": "coco:{0}/instances.json,{0}/images",
    "boxes.csv": "csv:{0}/boxes.csv,{0}/images",
    "data.yaml": "yolo:{}@train",
    "labels/a.txt": "yolo:{}@train",
}


def mutate(content, rng):
    """One to three changes of a file's bytes."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(content) + 1)
        stop = min(len(content), start + rng.choice([0, 1, 1, 2, 4, 8, 40]))
        change = rng.randrange(6)
        if change == 0:
            content = content[:start] + rng.randbytes(rng.randint(1, 4)) + content[stop:]
        elif change == 1:
            content = content[:start] + content[stop:]
        elif change == 2:
            content = content[:stop] + content[start:]
        elif change == 3:
            content = _exchange_token(content, rng)
        elif change == 4:
            content = content[:start] + rng.choice(NASTY) + content[stop:]
        else:
            content = rng.choice([content[:start], content.decode("latin-1").encode(rng.choice(["utf-16", "utf-8"]))])
    return content


def _exchange_token(content, rng):
    """Replaces a word or number of the file with something nasty."""
    starts = [place for place in range(len(content)) if content[place : place + 1].isalnum()] or [0]
    start = stop = rng.choice(starts)
    while content[stop : stop + 1].isalnum() or content[stop : stop + 1] in (b".", b"_"):
        stop += 1
    return content[:start] + rng.choice(NASTY) + content[stop:]


def read_or_refuse(spec, **options):
    """The data set, or None after an InputError of one line."""
    try:
        return load_dataset(spec, **options)
    except InputError as error:
        if len(str(error).splitlines()) != 1:
            pytest.fail(f"more than one line: {error}")
        return None


def check_sound(dataset):
    assert len(dataset) >= 1
    for record in dataset:
        assert (record.height, record.width) == (40, 60)
        assert record.boxes.dtype == np.float32
        assert np.all(np.isfinite(record.boxes))
        assert np.all((record.boxes >= 0) & (record.boxes <= 1))
        assert np.all(record.boxes[:, :2] < record.boxes[:, 2:])
        assert np.all((record.class_ids >= 1) & (record.class_ids <= len(dataset.class_names)))


@pytest.mark.parametrize("name", SPECS)
def test_unchanged_files_are_read(data, name):
    dataset = load_dataset(SPECS[name].format(data))
    check_sound(dataset)
    assert [len(record.boxes) for record in dataset] == [2, 0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SPECS)
def test_mutated_files_are_read_or_refused_in_one_line(data, name):
    spec = SPECS[name].format(data)
    original = (data / name).read_bytes()
    refused = 0
    started = time.monotonic()
    for seed in range(MUTATIONS):
        (data / name).write_bytes(mutate(original, random.Random(f"{name} {seed}")))
        for skip_bad in (False, True):
            dataset = read_or_refuse(spec, skip_bad=skip_bad)
            if dataset is not None:
                check_sound(dataset)
            refused += dataset is None
    # The mutations must cause both outcomes.
    assert 0.1 * MUTATIONS < refused < 1.9 * MUTATIONS
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("name", [name for name in SPECS if name != "ImageSets/Main/train.txt"])
@pytest.mark.parametrize("nasty", NASTY, ids=lambda nasty: repr(nasty[:12]))
def test_a_file_of_nothing_else_is_refused_or_empty(data, name, nasty):
    (data / name).write_bytes(nasty)
    dataset = read_or_refuse(SPECS[name].format(data))
    assert dataset is None or sum(len(record.boxes) for record in dataset) == 0 or name == "data.yaml"


@pytest.mark.parametrize(
    "bomb",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><annotation><object><name>&a;</name></object></annotation>',
        '<!DOCTYPE x SYSTEM "http://localhost:9/x.dtd"><annotation><filename>a.png</filename></annotation>',
    ],
)
def test_entities_are_not_expanded(data, bomb):
    (data / "Annotations/a.xml").write_text(bomb)
    dataset = read_or_refuse(SPECS["Annotations/a.xml"].format(data))
    assert dataset is None or len(dataset[0].boxes) == 0


@pytest.mark.parametrize("name", ["Annotations/a.xml", "instances.json", "boxes.csv", "labels/a.txt"])
def test_decompression_bombs_are_not_decoded(data, name, monkeypatch):
    """A small file with a huge size in its header must be rejected before its pixels are decoded."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("the pixels were decoded"))
    with pytest.raises(InputError, match=r"a\.png: cannot read the image \(Image size \(2400 pixels\) exceeds limit"):
        load_dataset(SPECS[name].format(data))
