"""Trained detectors of the original system compared with its computation in NumPy, from pixels to boxes."""

import keras
import numpy as np
import pytest
from caffe_files import write
from caffe_numpy import POOLED, SHRINK, TEXTS, convolutional_maps, hidden_units, random_layer, random_weights

from tf_fast_rcnn import InputError, boxes, fast_rcnn, load_caffe_detector, multi_task_loss, sgd
from tf_fast_rcnn.models.backbones.caffe import CAFFE_NETWORKS
from tf_fast_rcnn.models.backbones.caffemodel import read_caffemodel
from tf_fast_rcnn.models.caffe_detectors import is_caffe_detector, unread_layers

CLASSES = 3
# The original's RoIs: x1, y1, x2, y2, 0-based corners of the image's pixels, both included.
CORNERS = np.float32([[0, 0, 95, 79], [10, 20, 50, 61], [33, 8, 80, 30], [7, 40, 7, 40], [70, 3, 95, 79]])
IMAGE = np.random.default_rng(5).integers(0, 256, (80, 96, 3)).astype(np.float32)


def detector_weights(name, ranks=None):
    """Like a snapshot of the released system: cls_score and bbox_pred for K + 1 classes instead of fc8."""
    weights, rng = random_weights(name), np.random.default_rng(1)
    units = weights.pop("fc8")[0].shape[1]
    weights["cls_score"] = random_layer(rng, (CLASSES + 1, units))
    weights["bbox_pred"] = [part * np.float32(0.2) for part in random_layer(rng, (4 * (CLASSES + 1), units))]
    for layer, rank in (ranks or {}).items():
        matrix, bias = weights.pop(layer)
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        weights[f"{layer}_L"] = [s[:rank, None] * v[:rank]]
        weights[f"{layer}_U"] = [u[:, :rank], bias]
    return weights


def make(name):
    """The constructor of the network, with a sixteenth of the channels."""
    return lambda **options: CAFFE_NETWORKS[name](width=1 / SHRINK, **options)


def roi_pool(features, roi, size):
    """ROIPoolingLayer::Forward_cpu of the released system's roi_pooling_layer.cpp: `[C, size, size]`."""
    x1, y1, x2, y2 = (int(np.floor(corner / 16 + 0.5)) for corner in roi)
    pooled = np.zeros((len(features), size, size))
    bin_h, bin_w = (np.float32(max(last - first + 1, 1)) / np.float32(size) for first, last in ((y1, y2), (x1, x2)))
    for p, q in np.ndindex(size, size):
        rows = np.clip([np.floor(p * bin_h) + y1, np.ceil((p + 1) * bin_h) + y1], 0, features.shape[1]).astype(int)
        columns = np.clip([np.floor(q * bin_w) + x1, np.ceil((q + 1) * bin_w) + x1], 0, features.shape[2]).astype(int)
        window = features[:, slice(*rows), slice(*columns)]
        if window.size:
            pooled[:, p, q] = window.max(axis=(1, 2))
    return pooled


def original_outputs(name, weights):
    """cls_score `[R, K + 1]` and bbox_pred `[R, 4 * (K + 1)]` for the RoIs."""
    features = list(convolutional_maps(name, weights, IMAGE).values())[-2]  # before pool5
    scores, deltas = [], []
    for roi in CORNERS:
        # Flattened as channels, rows, columns.
        hidden = hidden_units(weights, roi_pool(features, roi, POOLED[name]).ravel())
        for values, layer in ((scores, "cls_score"), (deltas, "bbox_pred")):
            weight, bias = weights[layer]
            values.append(weight @ hidden + bias)
    return np.array(scores), np.array(deltas)


def original_boxes(corners, deltas):
    """`_bbox_pred` of the released system's lib/fast_rcnn/test.py, on `[R, 4]` and `[R, 4 * (K + 1)]`."""
    x1, y1, x2, y2 = corners.T.astype(np.float64)
    widths, heights = x2 - x1 + 1e-14, y2 - y1 + 1e-14
    x, y = x1 + 0.5 * widths, y1 + 0.5 * heights
    dx, dy, dw, dh = deltas.reshape(len(corners), -1, 4).transpose(2, 1, 0)
    x, y, w, h = dx * widths + x, dy * heights + y, np.exp(dw) * widths, np.exp(dh) * heights
    return np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2]).transpose(2, 1, 0)


def our_inputs():
    """The image, and the RoIs with continuous edges in its pixels."""
    edges = boxes.scale(boxes.from_corners(CORNERS, 80, 96), 80, 96)
    return {"images": IMAGE[None], "rois": edges[None]}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(("ranks", "version"), [(None, 2), ({"fc6": 20, "fc7": 9}, 1), ({"fc6": 13}, 2)])
def test_outputs_are_the_originals(tmp_path, name, ranks, version):
    weights = detector_weights(name, ranks)
    path = write(tmp_path / "detector.caffemodel", weights, version=version)
    scores, deltas = original_outputs(name, weights)
    assert np.ptp(scores, axis=0).min() > 0.1  # the outputs differ between RoIs
    outputs = load_caffe_detector(path, make(name))(our_inputs())
    np.testing.assert_allclose(outputs["class_logits"][0], scores, rtol=1e-3, atol=1e-3)
    without_background = deltas.reshape(len(CORNERS), CLASSES + 1, 4)[:, 1:]
    dx, dy, dw, dh = np.moveaxis(without_background, -1, 0)
    np.testing.assert_allclose(outputs["box_deltas"][0], np.stack([dy, dx, dh, dw], axis=-1), rtol=1e-3, atol=1e-3)


def test_boxes_are_the_originals_but_for_its_narrower_widths(tmp_path):
    weights = detector_weights("caffenet")
    model = load_caffe_detector(write(tmp_path / "detector.caffemodel", weights), make("caffenet"))
    inputs = our_inputs()
    deltas = model(inputs)["box_deltas"][0].numpy()
    found = boxes.to_corners(boxes.relative(boxes.decode(inputs["rois"][0][:, None], deltas), 80, 96), 80, 96)
    expected = original_boxes(CORNERS, original_outputs("caffenet", weights)[1])[:, 1:]
    ty, tx, th, tw = np.moveaxis(deltas, -1, 0)
    bound_x, bound_y = abs(tx) + abs(np.exp(tw) - 1) / 2, abs(ty) + abs(np.exp(th) - 1) / 2
    bound = np.stack([bound_x, bound_y, bound_x, bound_y], axis=-1)
    difference = abs(found - expected)
    assert np.all(difference <= bound + 1e-3)
    assert difference.max() > 0.1
    assert abs(expected - CORNERS[:, None]).max() > 5


def test_fc_layers_of_a_compressed_network(tmp_path):
    """Dropout follows the second factor, not the first: together they are one layer."""
    path = write(tmp_path / "svd.caffemodel", detector_weights("vgg_cnn_m_1024", {"fc6": 20, "fc7": 9}))
    model = load_caffe_detector(path, make("vgg_cnn_m_1024"))
    names = [layer.name for layer in model.layers if layer.name.startswith("fc")]
    assert names == ["fc6_L", "fc6_U", "fc6_U_dropout", "fc7_L", "fc7_U", "fc7_U_dropout"]
    assert [model.get_layer(name).units for name in names if "dropout" not in name] == [20, 256, 9, 64]
    assert [model.get_layer(name).use_bias for name in ("fc6_L", "fc6_U")] == [False, True]


def targets(rng, rois):
    labels = rng.integers(0, CLASSES + 1, rois.shape[:2])
    values = rng.normal(size=rois.shape)
    return {
        "class_logits": labels.astype(np.int32),
        "box_deltas": np.concatenate([labels[..., None], values], axis=-1).astype(np.float32),
    }


def assert_trains_saves_and_loads(model, folder):
    inputs = our_inputs()
    before = model(inputs)["class_logits"].numpy()
    model.compile(optimizer=sgd(1e-4), loss=multi_task_loss(model), jit_compile=False)
    history = model.fit(inputs, targets(np.random.default_rng(0), inputs["rois"]), epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.abs(model(inputs)["class_logits"] - before).max() > 0
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    for output, values in model(inputs).items():
        np.testing.assert_allclose(loaded(inputs)[output], values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TEXTS)
def test_imported_detectors_train_on(tmp_path, name):
    path = write(tmp_path / "detector.caffemodel", detector_weights(name, {"fc6": 8}))
    assert_trains_saves_and_loads(load_caffe_detector(path, make(name)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
def test_networks_of_full_size_are_built_trained_and_saved(tmp_path, name):
    assert_trains_saves_and_loads(fast_rcnn(name, CLASSES, weights=None), tmp_path)


def test_what_a_file_is_and_what_is_left_of_it(tmp_path):
    network = read_caffemodel(write(tmp_path / "imagenet.caffemodel", random_weights("caffenet")))
    assert not is_caffe_detector(network)
    weights = detector_weights("caffenet")
    weights["rpn_conv/3x3"] = random_layer(np.random.default_rng(0), (2, 2, 3, 3))
    path = write(tmp_path / "faster.caffemodel", weights)
    detector = read_caffemodel(path)
    assert is_caffe_detector(detector)
    assert unread_layers(detector, load_caffe_detector(path, make("caffenet"))) == ["rpn_conv/3x3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("bbox_pred"), "found no layer bbox_pred among conv1, .*cls_score"),
        (lambda weights: weights.pop("cls_score"), "found no layer cls_score among"),
        (lambda weights: weights.pop("fc6"), "found no layer fc6 among"),
        (
            lambda weights: weights.update(bbox_pred=[np.ones((8, 256)), np.ones(8)]),
            r"found layer bbox_pred with shapes \[8, 256\] and \[8\]; expected \[16, 256\] and \[16\]",
        ),
        (lambda weights: weights.update(cls_score=[np.ones((1, 256)), np.ones(1)]), "cls_score with 1 outputs; exp"),
        (lambda weights: weights.update(fc6_L=[np.float32(2.0)]), "found no layer fc6_U|found layer fc6_L with shapes"),
    ],
)
def test_files_that_are_not_detectors(tmp_path, change, message):
    weights = detector_weights("caffenet")
    change(weights)
    path = write(tmp_path / "other.caffemodel", weights)
    with pytest.raises(InputError, match=message) as error:
        load_caffe_detector(path, make("caffenet"))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_an_unknown_network(tmp_path):
    path = write(tmp_path / "detector.caffemodel", detector_weights("caffenet"))
    with pytest.raises(InputError, match="network: found 'vgg16'; expected one of caffenet, vgg_cnn_m_1024"):
        load_caffe_detector(path, "vgg16")
