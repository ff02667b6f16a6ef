"""What every test process sets before TensorFlow is imported, and the small trained run that many tests use."""

import os
import subprocess

import pytest
from browser_page import browser

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

TINY_SIDES = {"shorter_side": 96, "longer_side": 144}


@pytest.fixture(scope="session", autouse=True)
def proposal_cache(tmp_path_factory):
    """Commands and functions cache proposals here, and not in the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["TF_FAST_RCNN_CACHE"] = str(folder)
    return folder


@pytest.fixture
def chromium(tmp_path):
    """`chromium(page, *options)` opens a page; returns what was printed, and the browser's log."""
    path = browser()
    if path is None:
        pytest.skip("no Chromium or Chrome on the PATH; other tests read the pages without one")

    def run(page, *options):
        done = subprocess.run(
            [
                path,
                "--headless=new",
                "--no-sandbox",  # as root, in containers
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--virtual-time-budget=3000",
                "--enable-logging=stderr",
                "--v=0",
                f"--user-data-dir={tmp_path / 'profile'}",
                *options,
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return run


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A VOC folder with 8 training and 4 test images of handwritten digits."""
    from tf_fast_rcnn.demo.digits import generate_digits

    return generate_digits(tmp_path_factory.mktemp("data") / "digits", {"train": 8, "test": 4})


@pytest.fixture(scope="session")
def prepared_digits(digits, tmp_path_factory):
    """The training and the test images with proposals, as `(train, test)`."""
    import tf_fast_rcnn as frcnn
    from tf_fast_rcnn.demo.digits import CLASS_NAMES

    folder = tmp_path_factory.mktemp("prepared")
    splits = [frcnn.load_dataset(f"voc:{digits}@{split}", CLASS_NAMES) for split in ("train", "test")]
    settings = frcnn.proposal_settings("dense", splits[0])
    return tuple(
        frcnn.prepare(split, folder / name, settings, workers=1, progress=False)
        for split, name in zip(splits, ("train", "test"), strict=True)
    )


@pytest.fixture(scope="session")
def tiny_recipe():
    """A recipe for runs of seconds."""
    import tf_fast_rcnn as frcnn

    changes = {
        "steps": 12,
        "tile": None,  # chosen for so small a side
        "nms_iou_threshold": 0.3,  # the default of `DetectionSettings`, which tests make by hand
        "optimizer.learning_rate": 3e-4,
        "optimizer.backbone_lr_multiplier": 1.0,
        "network.fc_units": (16,),
        "network.stride": 8,
        "network.lateral_channels": None,
        "network.dropout": 0.0,
        "sampling.rois_per_batch": 32,
    }
    return frcnn.recipe("small-data", changes | {f"sampling.{name}": side for name, side in TINY_SIDES.items()})


def tiny_network():
    """Two convolutions that classify images: traced in a second, where a real network takes ten."""
    import keras

    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            keras.layers.Rescaling(1 / 64, -2.0, name="rescaling"),
            keras.layers.Conv2D(8, 5, 4, "same", activation="relu", name="conv1"),
            keras.layers.Conv2D(8, 3, 2, "same", activation="relu", name="conv2"),
            keras.layers.GlobalAveragePooling2D(name="pooling"),
            keras.layers.Dense(5, name="predictions"),
        ],
        name="tiny_network",
    )


@pytest.fixture(scope="session")
def tiny_backbone():
    """See `tiny_network`."""
    return tiny_network()


@pytest.fixture(scope="session")
def tiny_run(prepared_digits, tiny_recipe, tiny_backbone, tmp_path_factory):
    """RUN of a detector that has seen 12 mini-batches, with validation mAP: `(folder, TrainingSummary)`."""
    import tf_fast_rcnn as frcnn
    from tf_fast_rcnn.evaluation.models import ValidationMap

    train, test = prepared_digits
    validation = ValidationMap(test[:2], frcnn.DetectionSettings(**TINY_SIDES), progress=False)
    folder = tmp_path_factory.mktemp("runs") / "digits"
    summary = frcnn.train(
        train, folder, recipe=tiny_recipe, backbone=tiny_backbone, progress=False, callbacks=[validation]
    )
    return folder, summary


@pytest.fixture(scope="session")
def tiny_model():
    """A detector of 3 classes, untrained, with scores and boxes that differ from RoI to RoI."""
    import tf_fast_rcnn as frcnn

    model = frcnn.fast_rcnn(tiny_network(), 3, stride=8, roi_output_size=(3, 3), fc_units=(12,), seed=5)
    # The predictor layers start so small that all RoIs would look alike.
    for name, spread in (("class_logits", 1.5), ("box_regression", 1.0)):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel / kernel.std() * spread, bias])
    return model
