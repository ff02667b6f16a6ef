"""Writers of proposal files by other libraries, and records that such files are meant for."""

import csv
import io
import json
import pickle

import numpy as np
import scipy.io

from tf_fast_rcnn.data.records import ImageRecord


def make_record(image_id, height=40, width=60, objects=()):
    number = len(objects)
    boxes = np.float32(objects).reshape(-1, 4)
    return ImageRecord(image_id, f"{image_id}.jpg", height, width, boxes, np.ones(number), np.zeros(number))


def mat_one_image(images, compress=False):
    """The `boxes` of the only image."""
    file = io.BytesIO()
    (rows,) = images.values()
    scipy.io.savemat(file, {"boxes": rows}, do_compression=compress)
    return file.getvalue()


def mat_whole_set(images, compress=True):
    """Cell arrays `images` and `boxes`, as the selective search files of VOC."""
    file = io.BytesIO()
    names, boxes = np.empty((len(images), 1), object), np.empty((1, len(images)), object)
    for number, (name, rows) in enumerate(images.items()):
        names[number, 0], boxes[0, number] = name, rows
    scipy.io.savemat(file, {"images": names, "boxes": boxes}, do_compression=compress)
    return file.getvalue()


def detectron(images, protocol=2, id_name="ids"):
    """Boxes in rising order of their scores, so that a reader has to sort them."""
    boxes = [np.asarray(rows)[::-1] for rows in images.values()]
    scores = [np.linspace(0, 1, len(rows), dtype=np.float32) for rows in boxes]
    return pickle.dumps({"boxes": boxes, "scores": scores, id_name: list(images)}, protocol=protocol)


def coco_results(images):
    results = [
        {"image_id": name, "category_id": 1, "bbox": np.asarray(row).tolist(), "score": 1 - number / 1000}
        for name, rows in images.items()
        for number, row in enumerate(rows)
    ]
    return json.dumps(results[::-1]).encode()


def npz(images):
    file = io.BytesIO()
    np.savez_compressed(file, **images)
    return file.getvalue()


def npy(images):
    file = io.BytesIO()
    (rows,) = images.values()
    np.save(file, rows)
    return file.getvalue()


def csv_lines(images, header=None):
    text = io.StringIO()
    writer = csv.writer(text)
    if header:
        writer.writerow(header)
    writer.writerows([name, *row] for name, rows in images.items() for row in np.asarray(rows).tolist())
    return text.getvalue().encode()
