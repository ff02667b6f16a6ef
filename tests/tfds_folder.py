"""TFDS's own `voc` and `coco` builders over small data, and builders of users, for the tests of what reads them."""

import json
import shutil

import numpy as np
import tensorflow_datasets as tfds
from annotation_files import write_image
from tensorflow_datasets.object_detection import coco, voc
from voc_folder import VocFolder

CORNERS = {"000005": [(1, 1, 60, 40), (16, 11, 45, 30)], "000012": [(7.5, 3, 9, 9), (59, 39, 60, 40)], "000017": []}


def box(ymin, xmin, ymax, xmax):
    return tfds.features.BBox(float(ymin), float(xmin), float(ymax), float(xmax))


class Voc(voc.Voc, skip_registration=True):
    """TFDS's own builder over the small folder of these tests."""

    name = "voc"
    devkit = None

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(str(self.devkit), "train") for split in ("train", "test")}


class Coco(coco.Coco, skip_registration=True):
    """TFDS's own builder over the small file of these tests."""

    name = "coco"
    folder = None

    def _split_generators(self, dl_manager):
        folder = str(self.folder)
        return {
            "validation": self._generate_examples(folder, folder, "val2017", coco.AnnotationType.BBOXES, None),
        }


class Shapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of a user's: PNG images of equal file names, objects under another name, one box without area."""

    name = "shapes"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        things = {"bbox": tfds.features.BBoxFeature(), "type": tfds.features.ClassLabel(names=["disc", "ring"])}
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "filename": tfds.features.Text(),
            "things": tfds.features.Sequence(things),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(3):
            image = np.full((8 + number, 6, 3), number, np.uint8)
            things = [{"bbox": box(0, 0, 1, 0.5), "type": "ring"}, {"bbox": box(0.5, 0, 0.5, 1), "type": "disc"}]
            yield number, {"image": image, "filename": "shape.png", "things": things}


class Faces(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Boxes without a class, which no detector can be trained on."""

    name = "faces"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        faces = tfds.features.Sequence({"bbox": tfds.features.BBoxFeature()})
        features = {"image": tfds.features.Image(), "faces": faces}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"image": np.zeros((4, 4, 3), np.uint8), "faces": []}


class Boxes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One image per split with one box, in a format that the features do not state."""

    name = "boxes"
    VERSION = tfds.core.Version("1.0.0")
    splits = labels = None

    def _info(self):
        box, label = tfds.features.BBoxFeature(bbox_format=None), tfds.features.ClassLabel(names=["a", "b"])
        features = {"image": tfds.features.Image(), "filename": tfds.features.Text()}
        if self.labels is None:
            features["objects"] = tfds.features.Sequence({"bbox": box, "label": label})
        else:
            features |= {"bboxes": tfds.features.Sequence(box), "labels": tfds.features.Sequence(label)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, value) for split, value in self.splits.items()}

    def _generate_examples(self, split, value):
        filename, box = (value, [0, 0, 1, 1]) if isinstance(value, str) else (split, value)
        example = {"image": np.zeros((40, 60, 3), np.uint8), "filename": filename}
        if self.labels is None:
            example["objects"] = [{"bbox": np.float32(box), "label": 0}]
        else:
            example |= {"bboxes": list(np.float32(box)), "labels": self.labels}
        yield 0, example


def build_boxes(folder, splits, labels=None):
    """Builds `Boxes` again: for each split, the four numbers of its box, or the file name of its image.

    With `labels`, each split has a list of boxes, and these labels in a sequence of their own.
    """
    shutil.rmtree(folder / "data" / "boxes", ignore_errors=True)
    Boxes.splits, Boxes.labels = splits, labels
    Boxes(data_dir=folder / "data").download_and_prepare()


def write_voc(folder):
    """Images and annotations with all tags that TFDS's builder asks for."""
    extra = "<pose>Left</pose><truncated>0</truncated><difficult>{}</difficult>"
    for image_id, corners in CORNERS.items():
        folder.image(f"{image_id}.jpg")
        objects = [
            folder.object(("cat", "dog")[number], *values, extra.format(number))
            for number, values in enumerate(corners)
        ]
        folder.annotation(image_id, "".join(objects), size=(60, 40))
    folder.split("train", "\n".join(CORNERS))


def write_coco(folder):
    """Three images, and 80 categories whose ids have gaps, in COCO's own folders."""
    categories = [{"id": number, "name": f"class {number}", "supercategory": "x"} for number in range(10, 90)]
    categories[3]["id"] = 93
    annotations = [
        {"id": 3, "image_id": 139, "category_id": 88, "bbox": [15.5, 10, 30.25, 20], "area": 9, "iscrowd": 0},
        {"id": 4, "image_id": 139, "category_id": 10, "bbox": [0, 0, 60, 40], "area": 9, "iscrowd": 1},
        {"id": 5, "image_id": 632, "category_id": 93, "bbox": [1, 2, 3, 4], "area": 9, "iscrowd": 0},
    ]
    images = [
        {"id": number, "file_name": f"{number:012d}.jpg", "height": 40, "width": 60} for number in (632, 139, 285)
    ]
    for image in images:
        write_image(folder / "val2017" / image["file_name"])
    # TFDS takes the classes in the order of the file, which in COCO's files is that of the ids.
    categories.sort(key=lambda category: category["id"])
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))


def build_all(folder):
    """Writes `folder / "data"`, where TFDS finds all four, and what the first two were made of."""
    Voc.devkit, Coco.folder = folder, folder / "coco"
    write_voc(VocFolder(folder / "VOCdevkit" / "VOC2007"))
    write_coco(folder / "coco")
    for builder in (Voc(config="2007", data_dir=folder / "data"), Coco(config="2017", data_dir=folder / "data")):
        builder.download_and_prepare()
    for builder in (Shapes, Faces):
        builder(data_dir=folder / "data").download_and_prepare()
    return folder
