"""A small dataset with one finding of each kind that is possible for readable images."""

import numpy as np
import pytest
from PIL import Image

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.records import ImageRecord

HOSTILE = "<script>alert('$x_1')</script>"
CLASS_NAMES = ("cat", "Cat ", HOSTILE, "ghost")


def scene(seed):
    """Random blotches of colour, 120 x 160; different seeds look different."""
    blotches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.array(Image.fromarray(blotches).resize((160, 120), Image.Resampling.BICUBIC))


def write_dataset(folder, images, objects, proposals=None, class_names=CLASS_NAMES):
    """A dataset of scenes; `objects` has `(label, ymin, xmin, ymax, xmax)` for each image, boxes relative."""
    folder.mkdir(parents=True)
    records = []
    for index, (image, of_image) in enumerate(zip(images, objects, strict=True)):
        path = folder / f"{index}.png"
        Image.fromarray(image).save(path)
        table = np.float32(of_image).reshape(-1, 5)
        records.append(
            ImageRecord(
                image_id=f"folder/#{index} <b>&amp;",
                image_path=str(path),
                height=image.shape[0],
                width=image.shape[1],
                boxes=table[:, 1:],
                class_ids=table[:, 0],
                difficult=np.zeros(len(table), bool),
                proposal_boxes=None if proposals is None else np.float32(proposals[index]).reshape(-1, 4),
            )
        )
    # Any settings will do: they only say that the records have proposals.
    settings = None if proposals is None else object()
    return DetectionDataset("voc:<odd>@train", class_names, records, {"boxes clipped to their image": 2}, settings)


@pytest.fixture
def dataset_of(tmp_path):
    """`dataset_of(objects, proposals, class_names)`: a dataset with a scene for each entry; see `write_dataset`."""

    def make(objects, proposals=None, class_names=("cat",)):
        images = [scene(seed) for seed in range(len(objects))]
        return write_dataset(tmp_path / f"data{len(list(tmp_path.iterdir()))}", images, objects, proposals, class_names)

    return make


ODD_OBJECTS = [
    [(1, 0.1, 0.1, 0.5, 0.5), (1, 0.1, 0.1, 0.5, 0.495), (2, 0.6, 0.6, 0.9, 0.9)],  # twice, mistyped
    [(1, 0.0, 0.0, 1.0, 0.99), (1, 0.2, 0.2, 0.23, 0.24)],  # huge, tiny
    [(3, 0.45, 0.0, 0.51, 0.9), (1, 0.2, 0.2, 0.6, 0.6), (3, 0.2, 0.2, 0.6, 0.6)],  # long, two classes
    [],  # no labels; identical to image 0
    [(1, 0.3, 0.3, 0.8, 0.8)],  # similar to image 2; missed
    *[[(1, 0.2, 0.3, 0.7, 0.6)]] * 6,
]


def odd_images():
    again = scene(2).astype(int)
    again[60:, 80:] += 1
    first = [scene(0), scene(1), scene(2), scene(0), np.clip(again, 0, 255).astype(np.uint8)]
    return first + [scene(seed) for seed in range(10, 16)]


@pytest.fixture(scope="session")
def odd_dataset(tmp_path_factory):
    """See `ODD_OBJECTS`: the proposals are the ground truth boxes, except a box with an IoU of 0.36 for image 4."""
    proposals = [[row[1:] for row in of_image] for of_image in ODD_OBJECTS]
    proposals[4] = [[0.3, 0.3, 0.6, 0.6]]
    return write_dataset(tmp_path_factory.mktemp("odd") / "images", odd_images(), ODD_OBJECTS, proposals)


@pytest.fixture(scope="session")
def odd_page(odd_dataset, tmp_path_factory):
    """The page of that dataset and the findings: `(folder, findings)`."""
    from tf_fast_rcnn.browsing.page import browse

    folder = tmp_path_factory.mktemp("pages") / "odd page"
    return folder, browse(odd_dataset, folder, max_images=6, progress=False)
