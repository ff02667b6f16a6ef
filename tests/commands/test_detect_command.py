"""`tf-fast-rcnn detect`."""

import json
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from naive_detection import some_proposals
from PIL import Image
from servers import served

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.errors import InputError

LOW = ("--score-threshold", 0.01)


@pytest.fixture
def image(digits):
    return digits / "JPEGImages" / "test_0001.jpg"


def test_detect_end_to_end(command, tiny_run, digits, image, tmp_path):
    run = frcnn.load_run(tiny_run[0])
    other = digits / "JPEGImages" / "test_0002.jpg"
    done = command(
        "detect", tiny_run[0], image, other, "--out", tmp_path / "drawn", "--json", tmp_path / "a.json", *LOW
    )
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "a.json").read_text())
    assert [result["image"] for result in results] == [str(image), str(other)]
    settings = frcnn.detection_settings(run, score_threshold=0.01)
    for result in results:
        expected = frcnn.detect(run.model, result["image"], run.proposals, settings)
        assert len(expected.scores) == len(result["detections"]) > 0
        for row, detection in zip(result["detections"], expected, strict=True):
            assert (row["class"], row["class_id"]) == (run.class_names[detection.class_id - 1], detection.class_id)
            assert row["score"] == pytest.approx(detection.score, abs=1e-6)
            np.testing.assert_allclose(row["box"], detection.box, atol=1e-6)
    number = sum(len(result["detections"]) for result in results)
    summary = (
        rf"2 images, {number} detections with a score above 0.01, [\d.]+ images per second; drawn in {tmp_path}/drawn"
    )
    assert re.fullmatch(f"{summary}\n", done.out)
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["test_0001.png", "test_0002.png"]


def test_boxes_are_drawn_above_the_threshold(command, tiny_run, image, tmp_path):
    for name, threshold in (("all", 0), ("none", 1)):
        command("detect", tiny_run[0], image, "--out", tmp_path / name, "--draw-threshold", threshold, *LOW)
    drawn, bare = (np.asarray(Image.open(tmp_path / name / "test_0001.png")) for name in ("all", "none"))
    np.testing.assert_array_equal(bare, frcnn.read_image(image))
    assert (drawn != bare).any()


def test_proposals_of_a_file(command, tiny_run, image, tmp_path):
    np.save(tmp_path / "boxes.npy", np.float32([[0.1, 0.1, 0.5, 0.5]]))
    done = command("detect", tiny_run[0], image, "--proposals", tmp_path / "boxes.npy", "--json", "-", *LOW)
    assert done.code == 0, done.err
    (result,) = json.loads(done.out)
    # One proposal yields at most one detection per class.
    classes = [row["class"] for row in result["detections"]]
    assert 0 < len(classes) == len(set(classes))


def test_images_of_one_name_are_drawn_apart(command, tiny_run, image, tmp_path):
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / "test_0001.jpg"
    copy.write_bytes(image.read_bytes())
    assert command("detect", tiny_run[0], image, copy, "--out", tmp_path / "drawn").code == 0
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["test_0001-2.png", "test_0001.png"]


def test_an_input_is_never_overwritten(refused, tiny_run, tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "cell.png")
    before = (tmp_path / "cell.png").read_bytes()
    line = refused("detect", tiny_run[0], tmp_path / "cell.png", "--out", tmp_path)
    assert "cell.png: writing here would overwrite an input image" in line
    assert (tmp_path / "cell.png").read_bytes() == before


def test_bad_images(refused, tiny_run, image, tmp_path):
    out = ("--out", tmp_path / "drawn")
    assert "missing.jpg" in refused("detect", tiny_run[0], tmp_path / "missing.jpg", *out)
    (tmp_path / "notes.jpg").write_text("no image")
    assert "notes.jpg: cannot read the image" in refused("detect", tiny_run[0], tmp_path / "notes.jpg", *out)
    (tmp_path / "half.jpg").write_bytes(image.read_bytes()[:3000])
    assert "half.jpg: cannot read the image" in refused("detect", tiny_run[0], tmp_path / "half.jpg", *out)


def png_header(height, width):
    """The beginning of a PNG file that claims to have this size."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b""))


def test_large_images(command, refused, tiny_run, digits, tmp_path, monkeypatch):
    """Images above Pillow's limit, which the first lines lower, are read, in worker processes too."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    image = digits / "JPEGImages" / "test_0001.jpg"
    with pytest.raises(InputError, match="exceeds limit of 1000 pixels"):
        frcnn.read_image(image)
    assert command("detect", tiny_run[0], image, "--json", "-").code == 0
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    source = ("--data", f"voc:{digits}@test", "--proposals", "dense", "--workers", 2, "--cache", tmp_path / "cache")
    assert command("detect", tiny_run[0], *source, "--json", "-").code == 0
    # Up to 2^30 pixels: a small file must not make the computer reserve any amount of memory.
    (tmp_path / "huge.png").write_bytes(png_header(32769, 32768))
    line = refused("detect", tiny_run[0], tmp_path / "huge.png", "--json", "-")
    assert "huge.png: cannot read the image (Image size (1073774592 pixels) exceeds limit of 1073741824 pixels" in line


def test_bad_proposals(refused, tiny_run, image, tmp_path):
    def error(path):
        return refused("detect", tiny_run[0], image, "--proposals", path, "--json", "-")

    (tmp_path / "text.npy").write_text("1 2 3 4")
    np.save(tmp_path / "pixels.npy", np.float32([[10, 10, 50, 50]]))
    np.save(tmp_path / "words.npy", np.array([["a", "b", "c", "d"]]))
    np.savez(tmp_path / "archive.npz", boxes=np.zeros((1, 4)))
    assert "missing.npy: no such file; expected an .npy file" in error(tmp_path / "missing.npy")
    assert "text.npy: cannot read the proposals" in error(tmp_path / "text.npy")
    assert "pixels.npy: found proposals that do not fit the images when read as yxyx-relative; they fit as" in error(
        tmp_path / "pixels.npy"
    )
    assert "words.npy: found <U1 [1, 4]; expected numbers" in error(tmp_path / "words.npy")
    assert "archive.npz: found no proposals for 1 of 1 images (test_0001.jpg); expected" in error(
        tmp_path / "archive.npz"
    )
    np.save(tmp_path / "one.npy", np.float32([[0.1, 0.1, 0.5, 0.5]]))
    line = refused("detect", tiny_run[0], image, image, "--proposals", tmp_path / "one.npy")
    assert "one.npy: 2 images match the entry '*'; expected one entry per image" in line


# --- where images come from -------------------------------------------------------------------------------------------


def images_found(command, *arguments):
    done = command("detect", *arguments, "--json", "-", *LOW)
    assert done.code == 0, done.err
    return [result["image"] for result in json.loads(done.out)]


def test_folders_and_patterns(command, tiny_run, image, tmp_path):
    for name in ("b.jpg", "a.JPG", "below/c.jpg", "below/more/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(image.read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "[odd].jpg").write_bytes(image.read_bytes())
    here = [str(tmp_path / name) for name in ("[odd].jpg", "a.JPG", "b.jpg")]
    below = [str(tmp_path / name) for name in ("below/c.jpg", "below/more/d.jpg")]
    assert images_found(command, tiny_run[0], tmp_path) == here
    assert images_found(command, tiny_run[0], tmp_path / "**", "--batch-size", 4) == sorted(here + below)
    assert images_found(command, tiny_run[0], tmp_path / "below" / "*.jpg", here[0]) == [below[0], here[0]]


def test_a_data_set_without_annotations(command, tiny_run, broken_digits, tmp_path):
    shutil.rmtree(broken_digits / "Annotations")
    run = frcnn.load_run(tiny_run[0])
    outputs = ("--comp4", tmp_path / "results", "--json", tmp_path / "a.json")
    done = command("detect", tiny_run[0], "--data", f"voc:{broken_digits}@test", *outputs, *LOW)
    assert done.code == 0, done.err
    assert re.fullmatch(r"4 images, \d+ detections .*; written to .*results\n", done.out)
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == sorted(
        f"comp4_det_test_{name}.txt" for name in run.class_names
    )
    found = 0
    settings = frcnn.detection_settings(run, score_threshold=0.01)
    for result in json.loads((tmp_path / "a.json").read_text()):
        expected = frcnn.detect(run.model, result["image"], run.proposals, settings)
        height, width = frcnn.read_image(result["image"]).shape[:2]
        for box, score, label, _ in expected:
            lines = (tmp_path / "results" / f"comp4_det_test_{run.class_names[label - 1]}.txt").read_text().splitlines()
            corners = [box[1] * width + 1, box[0] * height + 1, box[3] * width, box[2] * height]
            rows = [line.split() for line in lines if line.startswith(Path(result["image"]).stem + " ")]
            assert any(np.allclose([float(x) for x in row[1:]], [score, *corners], atol=2e-3) for row in rows)
            found += 1
    assert found == int(done.out.split()[2]) > 0


def test_coco_results(command, tiny_run, image, tmp_path):
    numbered = tmp_path / "000000000139.jpg"
    numbered.write_bytes(image.read_bytes())
    run = frcnn.load_run(tiny_run[0])
    categories = [{"id": 10 * label, "name": name} for label, name in enumerate(run.class_names, 1)]
    (tmp_path / "ids.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    options = ("--coco-results", tmp_path / "new" / "results.json", "--category-ids", tmp_path / "ids.json", *LOW)
    assert command("detect", tiny_run[0], numbered, *options).code == 0
    expected = frcnn.detect(run.model, numbered, run.proposals, frcnn.detection_settings(run, score_threshold=0.01))
    rows = json.loads((tmp_path / "new" / "results.json").read_text())
    assert [row["category_id"] for row in rows] == [10 * label for label in expected.class_ids]
    assert {row["image_id"] for row in rows} == {139}
    np.testing.assert_allclose([row["score"] for row in rows], expected.scores, atol=1e-6)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        (("--shorter-side", "64,128", "--longer-side", 200), {"shorter_side": (64, 128), "longer_side": 200}),
        (
            ("--box-refinement-steps", 2, "--nms-iou-threshold", 0.5),
            {"box_refinement_steps": 2, "nms_iou_threshold": 0.5},
        ),
        (("--nms", "across-classes", "--box-voting"), {"nms": "across-classes", "box_voting": True}),
        (("--nms", "soft", "--soft-nms-sigma", 0.2), {"nms": "soft", "soft_nms_sigma": 0.2}),
        (("--classes", "{1},{0}", "--max-detections", 3), {"class_ids": (1, 2), "max_detections": 3}),
        (("--dtype", "bfloat16", "--shorter-side", 64), {"dtype": "bfloat16", "shorter_side": 64}),
    ],
    ids=str,
)
def test_options_are_detection_settings(command, tiny_run, image, options, changes):
    run = frcnn.load_run(tiny_run[0])
    options = [str(option).format(*run.class_names) for option in options]
    done = command("detect", tiny_run[0], image, "--json", "-", *options, *LOW)
    assert done.code == 0, done.err
    (result,) = json.loads(done.out)
    settings = frcnn.detection_settings(run, score_threshold=0.01, **changes)
    expected = frcnn.detect(run.model, image, run.proposals, settings)
    assert len(expected.scores) > 0
    np.testing.assert_allclose([row["score"] for row in result["detections"]], expected.scores, atol=1e-4)
    assert [row["class"] for row in result["detections"]] == [
        run.class_names[label - 1] for label in expected.class_ids
    ]


def test_classify_regions(command, tiny_run, image, tmp_path):
    run = frcnn.load_run(tiny_run[0])
    boxes = np.float32([[0.1, 0.1, 0.5, 0.5], [0.0, 0.2, 1.0, 0.9]])
    np.save(tmp_path / "boxes.npy", boxes)
    done = command("detect", tiny_run[0], image, "--classify-regions", tmp_path / "boxes.npy", "--json", "-")
    assert done.code == 0, done.err
    (result,) = json.loads(done.out)
    expected = frcnn.classify_regions(run.model, image, boxes, frcnn.detection_settings(run))
    np.testing.assert_allclose([region["box"] for region in result["regions"]], boxes, atol=1e-6)
    for region, row in zip(result["regions"], expected, strict=True):
        assert list(region["probabilities"]) == ["background", *run.class_names]
        np.testing.assert_allclose(list(region["probabilities"].values()), row, atol=1e-5)


# --- models other than RUNs -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    """The folder that contains version 1 of the run's export."""
    from tf_fast_rcnn import cli

    folder = tmp_path_factory.mktemp("export") / "digits"
    assert cli.main(["export", str(tiny_run[0]), "--out", str(folder / "1"), "--score-threshold", "0.01"]) == 0
    return folder


@pytest.fixture(scope="module")
def server(exported):
    with served("digits", exported) as server:
        yield server


@pytest.fixture
def class_names(tiny_run, tmp_path):
    path = tmp_path / "class_names.txt"
    path.write_text("".join(f"{name}\n" for name in frcnn.load_run(tiny_run[0]).class_names))
    return path


def assert_same_rows(found, expected):
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose([row["score"] for row in found], [row["score"] for row in expected], atol=1e-4)
    assert [row["class"] for row in found[:5]] == [row["class"] for row in expected[:5]]
    np.testing.assert_allclose(found[0]["box"], expected[0]["box"], atol=1e-4)


def rows_of(command, *arguments):
    done = command("detect", *arguments, "--json", "-")
    assert done.code == 0, done.err
    return [row for result in json.loads(done.out) for row in result["detections"]]


def test_a_saved_model_and_a_server_detect_as_their_run(command, tiny_run, exported, server, image, class_names):
    grpc = f"grpc://127.0.0.1:{server.ports['grpc']}/digits"
    np.save(class_names.with_name("boxes.npy"), some_proposals(30))
    proposals = ("--proposals", class_names.with_name("boxes.npy"))
    expected = rows_of(command, tiny_run[0], image, *proposals, *LOW)
    for model in (exported / "1", exported):
        assert_same_rows(rows_of(command, model, image, *proposals), expected)
    for model in (grpc, server.url()):
        assert_same_rows(rows_of(command, model, image, *proposals, "--class-names", class_names), expected)
    assert {row["class"] for row in rows_of(command, grpc, image, *proposals)} == {
        str(row["class_id"]) for row in expected
    }
    of_training = rows_of(command, tiny_run[0], image, *LOW)
    assert_same_rows(rows_of(command, exported, image, "--batch-size", 2), of_training)


def test_a_server_and_a_data_set(command, tiny_run, server, prepared_folders):
    data = ("--data", f"prepared:{prepared_folders[1]}")
    assert_same_rows(rows_of(command, server.url(), *data), rows_of(command, tiny_run[0], *data, *LOW))


def test_a_method_as_proposals(command, tiny_run, image, tmp_path):
    rows = rows_of(command, tiny_run[0], image, "--proposals", "dense", *LOW)
    run = frcnn.load_run(tiny_run[0])
    proposals = frcnn.proposal_settings("dense", dataset=())
    expected = frcnn.detect(run.model, image, proposals, frcnn.detection_settings(run, score_threshold=0.01))
    np.testing.assert_allclose([row["score"] for row in rows], expected.scores, atol=1e-5)


def test_regions_of_a_server(command, server, tiny_run, image, tmp_path):
    np.save(tmp_path / "boxes.npy", np.float32([[0.1, 0.1, 0.5, 0.5]]))
    options = (image, "--classify-regions", tmp_path / "boxes.npy", "--json", "-")
    (found,), (expected,) = (json.loads(command("detect", each, *options).out) for each in (server.url(), tiny_run[0]))
    np.testing.assert_allclose(
        list(found["regions"][0]["probabilities"].values()),
        list(expected["regions"][0]["probabilities"].values()),
        atol=1e-4,
    )


def test_what_other_models_refuse(refused, exported, server, image, class_names, tmp_path):
    line = refused("detect", exported, image, "--nms-iou-threshold", 0.5)
    assert f"--nms-iou-threshold: {exported} is not a RUN, and the settings of an exported model are fixed" in line
    line = refused("detect", server.url(), image, "--comp4", tmp_path / "results")
    needed = "--coco-results, --comp4 and --save-as need; pass --class-names FILE"
    assert f"servers do not report class names, which {needed}" in line
    assert "missing.txt: found" in refused("detect", server.url(), image, "--class-names", tmp_path / "missing.txt")
    class_names.write_text("one\n")
    assert "class_names: found 1; expected the 10 of" in refused(
        "detect", exported, image, "--class-names", class_names
    )


# --- invalid input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("IMAGE", "--data", "voc:x@y"), "IMAGE and --data: found both; expected one of them"),
        (("empty",), "found no images; expected files that end in .jpg"),
        (("empty/*.png",), "found no images; expected files that end in .jpg"),
        (("IMAGE", "--classes", "zebra"), "--classes: found 'zebra'; expected classes of"),
        (("IMAGE", "--shorter-side", "480,x"), "--shorter-side: found 'x'; expected a whole number from 32"),
        (("IMAGE", "--box-refinement-steps", 0), "--box-refinement-steps: found '0'; expected a whole number from 1"),
        (("IMAGE", "COPY", "--comp4", "results"), "images: found 'test_0001' twice; image names must be unique"),
        (("IMAGE", "--coco-results", "a.json", "--category-ids", "missing.json"), "missing.json"),
        (("IMAGE", "--classify-regions", "x.npy", "--comp4", "results"), "--classify-regions: found --comp4 too"),
        (("--data", "voc:empty@test"), "no split 'test'; expected Annotations/, ImageSets/Main/ and JPEGImages/"),
    ],
    ids=str,
)
def test_bad_options(refused, tiny_run, image, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "copy"):
        (tmp_path / folder).mkdir()
    copy = tmp_path / "copy" / image.name
    copy.write_bytes(image.read_bytes())
    places = {"IMAGE": image, "COPY": copy}
    assert message in refused("detect", tiny_run[0], *[places.get(option, option) for option in options])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "empty"]


# --- bad files among good ones ----------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(image, tmp_path):
    """A folder of two good images, one that is cut off, and one that has lost its last bytes."""
    folder = tmp_path / "spoilt"
    folder.mkdir()
    for name in ("a.jpg", "d.jpg"):
        (folder / name).write_bytes(image.read_bytes())
    (folder / "b.jpg").write_bytes(image.read_bytes()[:3000])
    Image.open(image).save(folder / "c.png")
    (folder / "c.png").write_bytes((folder / "c.png").read_bytes()[:-12])
    return folder


def test_all_bad_images_are_named_before_anything_is_detected(refused, tiny_run, spoilt, tmp_path):
    line = refused("detect", tiny_run[0], spoilt, "--json", tmp_path / "found.json")
    assert line.startswith("2 images cannot be used: (1) ")
    assert all(name in line for name in ("b.jpg: cannot read the image", "c.png: cannot read the image", "--skip-bad"))
    assert not (tmp_path / "found.json").exists()


def test_detection_goes_on_without_bad_images(command, tiny_run, spoilt, tmp_path):
    outputs = ("--json", tmp_path / "found.json", "--out", tmp_path / "drawn")
    done = command("detect", tiny_run[0], spoilt, "--skip-bad", *outputs, *LOW)
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.png", "d.png"]
    assert [Path(result["image"]).name for result in json.loads((tmp_path / "found.json").read_text())] == [
        "a.jpg",
        "d.jpg",
    ]
    told = [line for line in done.err.splitlines() if line.startswith("skipped: ")]
    assert [name in line for name, line in zip(("b.jpg", "c.png"), told, strict=True)] == [True, True]


def test_a_folder_of_bad_images_alone_is_an_error(refused, tiny_run, spoilt):
    (spoilt / "a.jpg").unlink()
    (spoilt / "d.jpg").unlink()
    assert "2 images cannot be used" in refused("detect", tiny_run[0], spoilt, "--skip-bad", "--json", "-")


def test_a_coco_file_without_annotations(command, tiny_run, image, tmp_path):
    """As COCO's image_info_test-dev2017.json; ids keep their types."""
    names = frcnn.load_run(tiny_run[0]).class_names
    categories = [{"id": 10 * number, "name": name} for number, name in enumerate(names, start=1)]
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / name).write_bytes(image.read_bytes())
    images = [{"id": number, "file_name": name} for number, name in (("007", "a.jpg"), ("7", "b.jpg"))]
    (tmp_path / "test.json").write_text(json.dumps({"images": images, "categories": categories}))
    done = command(
        "detect", tiny_run[0], "--data", f"coco:{tmp_path / 'test.json'}", "--coco-results", tmp_path / "r.json", *LOW
    )
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "r.json").read_text())
    assert {entry["image_id"] for entry in results} == {"007", "7"}
    assert {entry["category_id"] for entry in results} <= {category["id"] for category in categories}


SAVED_SPECS = {
    "voc": "voc:{out}",
    "yolo": "yolo:{out}",
    "coco": "coco:{out}/annotations/instances_default.json,{images}",
    "cvat": "cvat:{out}/annotations.xml,{images}",
}


@pytest.mark.parametrize("kind", ["voc", "yolo", "coco", "cvat", "label-studio"])
def test_annotations_to_correct(command, tiny_run, digits, image, tmp_path, kind):
    images = (image, digits / "JPEGImages" / "test_0002.jpg")
    out = tmp_path / "to-correct"
    options = ("--save-as", kind, "--save-to", out, "--json", tmp_path / "a.json", *LOW)
    done = command("detect", tiny_run[0], *images, *options)
    assert done.code == 0, done.err
    assert done.out.endswith(f"; written to {out}\n")
    assert not (tmp_path / "detections").exists()
    expected = json.loads((tmp_path / "a.json").read_text())
    if kind == "label-studio":
        tasks = json.loads((out / "tasks.json").read_text())
        assert [task["data"]["image"] for task in tasks] == [
            "/data/local-files/?d=test_0001.jpg",
            "/data/local-files/?d=test_0002.jpg",
        ]
        found = [len(task["predictions"][0]["result"]) for task in tasks]
        assert found == [len(result["detections"]) for result in expected]
        assert {task["predictions"][0]["model_version"] for task in tasks} == {tiny_run[0].name}
        return
    dataset = frcnn.load_dataset(SAVED_SPECS[kind].format(out=out, images=digits / "JPEGImages"))
    for record, result in zip(dataset, expected, strict=True):
        names = [dataset.class_names[label - 1] for label in record.class_ids]
        assert names == [row["class"] for row in result["detections"]]
        assert record.boxes.tolist() == [row["box"] for row in result["detections"]]


def test_annotations_to_correct_bad_options(refused, tiny_run, image, tmp_path):
    for options, message in [
        (("--save-as", "vott"), "invalid choice: 'vott'"),
        (("--save-to", tmp_path / "x"), "--save-to is only used with --save-as"),
        (("--save-as", "voc", "--image-url", "s3://x/"), "--image-url is only used with --save-as label-studio"),
        (("--save-as", "voc", "--save-to", tmp_path), "found an existing file or folder"),
    ]:
        assert message in refused("detect", tiny_run[0], image, *options)
    assert "twice" in refused("detect", tiny_run[0], image, image, "--save-as", "cvat", "--save-to", tmp_path / "x")
