"""TFDS's own builders, run on generated raw files: their own parsers, without a download.

Each function writes raw files as the data set's authors publish them, has TFDS's builder parse them into
`folder / "data"`, and returns what the test compares with.
"""

import csv
import io
import json
import sys
import tarfile
import types
import xml.etree.ElementTree as ET
import zipfile

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
import tensorflow_datasets as tfds
from annotation_files import write_image
from PIL import Image
from voc_folder import VocFolder


def build(name, folder, split_generators, config=None, version=None):
    """Has TFDS's builder `name` make the splits that `split_generators(builder)` returns."""
    cls = tfds.builder_cls(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "_split_generators", lambda builder, manager: split_generators(builder))
        cls(config=config, version=version, data_dir=folder / "data").download_and_prepare()


def encoded(height, width, extension="PNG", white=None):
    """The file of a black image whose window `white` (top, left, bottom, right) is white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    if white:
        pixels[white[0] : white[2], white[1] : white[3]] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, extension)
    return io.BytesIO(file.getvalue())


class _Eager(list):
    """What replaces a Beam collection: a list, whose transforms run at once."""

    def __or__(self, transform):
        return _Eager(transform(self))


def stub_beam(patch):
    """Replaces Apache Beam, which no extra brings, by lists; TFDS's parsers run unchanged."""
    stub = types.ModuleType("apache_beam")
    stub.Create = _Eager
    stub.Map = lambda function: lambda values: map(function, values)
    stub.FlatMap = lambda function: lambda values: (each for value in values for each in function(value))
    stub.DoFn = object
    stub.metrics = types.SimpleNamespace(Metrics=types.SimpleNamespace(counter=lambda *names: None))
    patch.setitem(sys.modules, "apache_beam", stub)


def kitti(folder):
    """A car in rows 20 to 60 and columns 30 to 130 of 100 x 200 pixels, a pedestrian, and a region not to count.

    Returns KITTI's folder of the same files.
    """
    lines = (
        b"Car 0.00 0 -1.57 30.00 20.00 130.00 60.00 1.6 1.6 3.9 0 0 10 -1.5\n"
        b"Pedestrian 0.00 1 0.2 150.50 10.25 160.00 90.75 1.8 0.5 0.9 0 0 10 0.1\n"
        b"DontCare -1 -1 -10 1.00 2.00 9.00 8.00 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )
    image = encoded(100, 200, white=(20, 30, 60, 130))

    def splits(builder):
        images = [("training/image_2/000007.png", image)]
        labels = [("training/label_2/000007.txt", io.BytesIO(lines))]
        return {"train": builder._generate_examples(images, labels, "training", {7})}

    for name, content in (("image_2/000007.png", image.getvalue()), ("label_2/000007.txt", lines)):
        path = folder / "kitti/training" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    build("kitti", folder, splits)
    return folder / "kitti"


def bccd(folder):
    """Two images of BCCD's size with its classes, in VOC's form; returns the VOC folder."""
    raw = VocFolder(folder / "bccd" / "BCCD")
    for number, image_id in enumerate(("BloodImage_00000", "BloodImage_00001")):
        raw.image(f"{image_id}.jpg", 480, 640)
        objects = [("RBC", 1, 1, 640, 480), ("WBC", 260, 177 + number, 491, 376), ("Platelets", 7, 9, 7, 30)]
        raw.annotation(image_id, objects, size=(640, 480))
    raw.split("test", "BloodImage_00000\nBloodImage_00001\n")
    lines = (raw.path / "ImageSets/Main/test.txt").read_text().splitlines(keepends=True)
    build("bccd", folder, lambda builder: {"test": builder._generate_examples(lines, str(folder / "bccd"))})
    return raw.path


def stanford_dogs(folder):
    """Two images of one breed each, the second with two dogs; returns a VOC folder of the same XML."""
    raw = VocFolder(folder / "dogs")
    annotations, archive = {}, []
    for image_id, breed, corners in (
        ("n02085620_7", "n02085620-Chihuahua", [(1, 1, 60, 40)]),
        ("n02088094_1", "n02088094-Afghan_hound", [(5, 6, 20, 30), (21, 2, 59, 39)]),
    ):
        image = raw.image(f"{image_id}.jpg")
        raw.annotation(image_id, [(breed.lower(), *values) for values in corners])
        annotations[image_id] = ET.parse(raw.path / "Annotations" / f"{image_id}.xml")
        archive.append((f"Images/{breed}/{image_id}.jpg", io.BytesIO(image.read_bytes())))
    raw.split("train", "n02085620_7\nn02088094_1\n")
    breeds = [f"n{number:08d}-dog" for number in range(118)]

    def splits(builder):
        own = ["n02085620-chihuahua", "n02088094-afghan_hound"]
        builder.info.features["label"].names = sorted(breeds + own)
        return {"train": builder._generate_examples(archive, [f"{key}.jpg" for key in annotations], annotations)}

    build("stanford_dogs", folder, splits)
    return raw.path


def oxford_iiit_pet(folder):
    """A cat with a head, a dog without an annotation, and a test split without any; returns a VOC folder."""
    raw = VocFolder(folder / "pets")
    for image_id in ("Abyssinian_1", "beagle_2", "pug_3"):
        raw.image(f"{image_id}.jpg")
        write_image(folder / "pets/annotations/trimaps" / f"{image_id}.png").write_bytes(_grey(40, 60))
    raw.annotation("Abyssinian_1", [("Abyssinian", 11, 6, 40, 25)])
    (folder / "pets/annotations/xmls").symlink_to(raw.path / "Annotations")
    raw.split("trainval", "Abyssinian_1\n")
    (folder / "pets/annotations/trainval.txt").write_text("Abyssinian_1 1 1 1\nbeagle_2 5 2 1\n")
    (folder / "pets/annotations/test.txt").write_text("pug_3 26 2 1\n")

    def splits(builder):
        def examples(name):
            annotations = str(folder / "pets/annotations")
            return builder._generate_examples(str(raw.path / "JPEGImages"), annotations, f"{annotations}/{name}.txt")

        return {"train": examples("trainval"), "test": examples("test")}

    build("oxford_iiit_pet", folder, splits)
    return raw.path


def _grey(height, width):
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8)).save(file, "PNG")
    return file.getvalue()


def coco_panoptic(folder):
    """One image with a thing and a crowd; 133 categories."""
    write_image(folder / "panoptic/val2017/000000000139.jpg")
    write_image(folder / "panoptic/masks/000000000139.png")
    segments = [
        {"id": 1, "category_id": 3, "iscrowd": 0, "bbox": [6, 4, 30, 20], "area": 500},
        {"id": 2, "category_id": 200, "iscrowd": 1, "bbox": [0, 20, 60, 20], "area": 1024},
    ]
    categories = [{"id": number, "name": f"class {number}"} for number in (*range(1, 133), 200)]
    content = {
        "images": [{"id": 139, "file_name": "000000000139.jpg", "height": 40, "width": 60}],
        "annotations": [{"image_id": 139, "file_name": "000000000139.png", "segments_info": segments}],
        "categories": categories,
    }
    (folder / "panoptic/annotations").mkdir()
    (folder / "panoptic/annotations/panoptic_val2017.json").write_text(json.dumps(content))

    def splits(builder):
        root = str(folder / "panoptic")
        return {"validation": builder._generate_examples(root, root, "val2017", "panoptic", f"{root}/masks")}

    build("coco", folder, splits, config="2017_panoptic")


def coco_captions(folder, coco_folder):
    """The images of `tfds_folder.write_coco` with captions."""

    def splits(builder):
        captions = {f"{number:012d}.jpg": {"sentences": [{"sentid": 1, "raw": "a"}]} for number in (139, 285, 632)}
        raw = {"image_dir": str(coco_folder), "annotation_dir": str(coco_folder), "split_name": "val2017"}
        raw |= {"annotation_type": "bboxes", "panoptic_dir": None}
        return {"val": builder._generate_examples(captions, raw)}

    build("coco_captions", folder, splits)


def lvis(folder):
    """Two images, one without objects; returns the JSON file and the folder of the images."""
    images = folder / "lvis/val2017"
    for number in (139, 285):
        write_image(images / f"{number:012d}.jpg")
    corners = [6, 4, 36, 4, 36, 24, 6, 24]
    content = {
        "images": [
            {"id": number, "coco_url": f"http://x/val2017/{number:012d}.jpg", "height": 40, "width": 60}
            | {"file_name": f"{number:012d}.jpg", "neg_category_ids": [7], "not_exhaustive_category_ids": [3]}
            for number in (139, 285)
        ],
        "annotations": [
            {"id": 5, "image_id": 139, "category_id": 3, "bbox": [6, 4, 30, 20], "area": 590.7}
            | {"segmentation": [corners]}
        ],
        "categories": [
            {"id": number, "name": name}
            for number, name in enumerate(
                tfds.builder_cls("lvis")(data_dir=folder).info.features["objects"]["label"].names, 1
            )
        ],
    }
    path = folder / "lvis/lvis_v1_val.json"
    path.write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        stub_beam(patch)
        dirs = [tfds.core.Path(images)]
        build("lvis", folder, lambda builder: {"validation": builder._generate_examples(dirs, path)})
    return path, images


BOXES_OF_OPEN_IMAGES = [
    # image, source, class, confidence, xmin, xmax, ymin, ymax, occluded, truncated, group of, depiction, inside
    ("000000000000000a", "xclick", "/m/01g317", 1, 0.1, 0.5, 0.2, 0.9, 0, 1, 0, 0, 0),
    ("000000000000000a", "xclick", "/m/01g317", 1, 0.0, 1.0, 0.5, 1.0, 0, 0, 1, 0, 0),
    ("000000000000000b", "activemil", "/m/011k07", 1, 0.25, 0.75, 0.25, 0.5, -1, -1, -1, -1, -1),
]


def open_images_v4(folder):
    """Two images with a person, a group of persons and a tortoise, of which it is not known whether it is a group.

    Returns the CSV file of the boxes and the folder of the images.
    """
    raw = folder / "open_images"
    raw.mkdir()
    header = (
        "ImageID Source LabelName Confidence XMin XMax YMin YMax IsOccluded IsTruncated IsGroupOf IsDepiction IsInside"
    )
    _write_csv(raw / "boxes.csv", [header.split(), *BOXES_OF_OPEN_IMAGES])
    labels = [
        ("000000000000000a", "verification", "/m/011k07", 0),
        ("000000000000000b", "verification", "/m/011k07", 1),
    ]
    _write_csv(raw / "labels.csv", [["ImageID", "Source", "LabelName", "Confidence"], *labels])
    with tarfile.open(raw / "test.tar", "w") as archive:
        for image_id in ("000000000000000a", "000000000000000b"):
            content = encoded(20, 40, "JPEG")
            write_image(raw / "images" / f"{image_id}.jpg").write_bytes(content.getvalue())
            member = tarfile.TarInfo(f"test/{image_id}.jpg")
            member.size = len(content.getvalue())
            archive.addfile(member, content)

    def splits(builder):
        own = sys.modules[type(builder).__module__]
        return {
            "test": builder._generate_examples(
                [raw / "test.tar"],
                lambda prefix: own._load_objects([raw / "labels.csv"], [0], prefix),
                lambda prefix: own._load_bboxes(raw / "boxes.csv", [0], prefix),
            )
        }

    build("open_images_v4", folder, splits, config="original")
    return raw / "boxes.csv", raw / "images"


def _write_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def open_images_challenge2019(folder, annotated):
    """The same images as those of `open_images_v4`; not `annotated`: as Beam runs the builder, see findings/."""
    raw = folder / "challenge"
    raw.mkdir()
    rows = [(row[0], row[2], *row[4:8], row[10]) for row in BOXES_OF_OPEN_IMAGES if row[10] >= 0]
    _write_csv(raw / "boxes.csv", [["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsGroupOf"], *rows])
    _write_csv(raw / "labels.csv", [["ImageID", "LabelName", "Confidence"], ("000000000000000a", "/m/011k07", 0)])
    classes = [("/m/01g317", "Person"), ("/m/011k07", "Tortoise")]
    _write_csv(raw / "classes.csv", classes + [(f"/m/{number}", f"class {number}") for number in range(498)])
    (raw / "hierarchy.json").write_text("{}")

    def splits(builder):
        import tensorflow_datasets.object_detection.open_images_challenge2019_beam as own

        own.fill_class_names_in_tfds_info(raw / "classes.csv", builder.info.features)
        parser = own.CreateDetectionExampleFn(
            raw / "labels.csv", raw / "boxes.csv", raw / "hierarchy.json", raw / "classes.csv"
        )
        if annotated:
            parser.start()
        images = [(f"train/{name}.jpg", encoded(20, 40, "JPEG")) for name in ("000000000000000a", "000000000000000c")]
        return {"train": [example for image in images for example in parser.process(image)]}

    with pytest.MonkeyPatch.context() as patch:
        stub_beam(patch)
        build("open_images_challenge2019_detection", folder, splits, config="200k")


def wider_face(folder):
    """Two faces, of which one is marked as invalid, and an image without any."""
    raw = folder / "wider"
    write_image(raw / "WIDER_train/images/0--Parade/a_1.jpg")
    write_image(raw / "WIDER_train/images/0--Parade/b_2.jpg")
    lines = ["0--Parade/a_1.jpg", "2", "6 4 30 20 0 0 0 0 0 0 ", "50 30 15 20 2 0 0 1 2 0 "]
    lines += ["0--Parade/b_2.jpg", "0", "0 0 0 0 0 0 0 0 0 0 "]
    (raw / "wider_face_split").mkdir()
    (raw / "wider_face_split/wider_face_train_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    paths = {"wider_train": str(raw), "wider_annot": str(raw)}
    build("wider_face", folder, lambda builder: {"train": builder._generate_examples("train", paths)})


def caltech_birds2011(folder):
    """Two birds of two classes, of the 200 whose names only the examples have."""
    masks = [np.zeros((40, 60), np.uint8)] * 2
    annotations = {
        "Black_Footed_Albatross_0046_18": [["6.0", "4.0", "30.0", "20.0"], masks[0]],
        "Least_Auklet_0001_2": [["0.0", "0.0", "60.0", "40.0"], masks[1]],
    }
    names = [
        "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
        "003.Least_Auklet/Least_Auklet_0001_2.jpg",
    ]
    archive = [(f"CUB_200_2011/images/{name}", encoded(40, 60, "JPEG")) for name in names]
    build(
        "caltech_birds2011",
        folder,
        lambda builder: {"train": builder._generate_examples(archive, names, annotations)},
    )


def caltech_birds2010(folder):
    """One bird, with the edges of its box."""
    edges = {"left": 6, "top": 4, "right": 36, "bottom": 24}
    name = "001.Black_footed_Albatross/Black_footed_Albatross_0001_1.jpg"
    annotations = {"Black_footed_Albatross_0001_1": [edges, np.zeros((40, 60), np.uint8)]}
    archive = [(f"images/{name}", encoded(40, 60, "JPEG"))]
    build(
        "caltech_birds2010",
        folder,
        lambda builder: {"train": builder._generate_examples(archive, [name], annotations)},
    )


def cars196(folder):
    """Two cars; the name of the second one's class contains a slash."""
    raw = folder / "cars"
    for number in (1, 2):
        write_image(raw / "cars_train" / f"{number:05d}.jpg")
    kinds = [("bbox_x1", object), ("bbox_y1", object), ("bbox_x2", object), ("bbox_y2", object)]
    kinds += [("class", object), ("fname", object)]
    with_slash = 1 + next(i for i, name in enumerate(_names("cars196", folder)) if "/" in name)
    rows = [(6, 4, 36, 24, 1, "00001.jpg"), (1, 1, 60, 40, with_slash, "00002.jpg")]
    scipy.io.savemat(raw / "annos.mat", {"annotations": np.array([rows], kinds)})
    build(
        "cars196",
        folder,
        lambda builder: {"train": builder._generate_examples("train", str(raw / "cars_train"), str(raw / "annos.mat"))},
    )


def _names(name, folder):
    return tfds.builder_cls(name)(data_dir=folder).info.features["label"].names


def ai2dcaption(folder):
    """A diagram with an arrow, an object and a relationship, which has no box."""
    entities = {
        "A0": {"id": "A0", "type": "arrow", "bounds": [10, 20, 50, 90]},
        "B0": {"id": "B0", "type": "object", "label": "moon", "bounds": [0, 0, 100, 50]},
        "R0": {"id": "R0", "type": "relationship"},
    }
    raw = folder / "ai2d"
    raw.mkdir()
    (raw / "test.json").write_text(json.dumps([{"image": "7.png", "entities": entities}]))
    with zipfile.ZipFile(raw / "images.zip", "w") as archive:
        archive.writestr("ai2d/images/7.png", encoded(20, 40).getvalue())
    build(
        "ai2dcaption",
        folder,
        lambda builder: {
            "test": builder._generate_examples("test", tfds.core.Path(raw / "test.json"), raw / "images.zip")
        },
    )


CAMERAS = ("FRONT", "FRONT_LEFT", "SIDE_LEFT", "FRONT_RIGHT", "SIDE_RIGHT")


def waymo_open_dataset(folder):
    """One frame of five cameras; a vehicle in the first one, a pedestrian at the edge of the last one."""
    from tensorflow_datasets.object_detection import waymo_open_dataset as own

    frame = own.open_dataset.Frame()
    frame.context.name, frame.timestamp_micros = "segment-1", 1234
    for camera in CAMERAS:
        number = own.open_dataset.CameraName.Name.Value(camera)
        height, width = (886, 1920) if camera.startswith("SIDE") else (1280, 1920)
        calibration = frame.context.camera_calibrations.add()
        calibration.name, calibration.height, calibration.width = number, height, width
        image = frame.images.add()
        image.name, image.image = number, encoded(height, width, "JPEG").getvalue()
        labels = frame.camera_labels.add()
        labels.name = number
        if camera in ("FRONT", "SIDE_RIGHT"):
            label = labels.labels.add()
            label.type = 1 if camera == "FRONT" else 2
            box = label.box
            box.center_x, box.center_y, box.length, box.width = (
                (960, 640, 480, 320) if camera == "FRONT" else (1900, 443, 80, 443)
            )
    with tf.io.TFRecordWriter(str(folder / "segment.tfrecord")) as writer:
        writer.write(frame.SerializeToString())

    def splits(builder):
        examples = own._generate_images_and_annotations(str(folder / "segment.tfrecord"))
        return {"train": [(str(number), example) for number, example in enumerate(examples)]}

    with pytest.MonkeyPatch.context() as patch:
        stub_beam(patch)
        build("waymo_open_dataset", folder, splits, config="v1.2")
