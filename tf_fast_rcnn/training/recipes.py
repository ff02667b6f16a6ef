"""Named recipes: all settings of a training run.

A recipe is a function that returns a `Recipe`; its docstring says when to use it, what it costs and what results to
expect. Numbers quoted from the paper are marked as such. A run stores the recipe with all its values in its folder.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn.data.batches.settings import SamplingRules
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.training.run_folder import read_description
from tf_fast_rcnn.training.settings import NetworkSettings, OptimizerSettings, Recipe, recipe_from_json, with_changes

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# As in instances_train2014.json.
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on


def voc07() -> Recipe:
    """VOC07 as in the paper: SGD, 30k mini-batches at 0.001 and 10k at 0.0001, selective search, one scale of 600.

    The paper's networks S, M and L are `caffenet`, `vgg_cnn_m_1024` and `caffe_vgg16`; `vgg16` is L from
    keras.applications. As in the paper, conv1 and conv2 of L are frozen, and conv1 of S and M.

    Command: tf-fast-rcnn train --recipe voc07 --train voc:VOC2007@trainval --out runs/voc07
             with --backbone caffenet for S, --backbone vgg_cnn_m_1024 for M
    Cost: in the paper 1.2 h (S), 2.0 h (M) and 9.5 h (L) on a K40 (table 4); days on a CPU. Selective search takes
        0.1 s per image on one core, once.
    Result: in the paper mAP 57.1 (S), 59.2 (M) and 66.9 (L) on VOC07 test, 11 points (table 4); L with
        `--set sampling.difficult=drop` 68.1 (table 1). We have not run it.
    """
    return Recipe(name="voc07", class_names=VOC_CLASSES)


def voc0712() -> Recipe:
    """VOC07 and VOC12 trainval together: 60k mini-batches. The learning rate drops after 40k (our choice; not in the
    paper).

    Command: tf-fast-rcnn train --recipe voc0712 --train voc:VOC2007@trainval+voc:VOC2012@trainval --out runs/voc0712
    Cost: 1.5 times that of `voc07`.
    Result: in the paper mAP 70.0 on VOC07 test with L (table 1). We have not run it.
    """
    return Recipe(
        name="voc0712",
        class_names=VOC_CLASSES,
        steps=60_000,
        optimizer=OptimizerSettings(lr_milestones=(2 / 3,)),
    )


def voc10() -> Recipe:
    """For VOC10's test server: VOC07 trainval and test and VOC12 trainval ("07++12"), 100k mini-batches. The learning
    rate drops every 40k.

    Command: tf-fast-rcnn train --recipe voc10
             --train voc:VOC2007@trainval+voc:VOC2007@test+voc:VOC2012@trainval --out runs/voc10
    Cost: 2.5 times that of `voc07`.
    Result: in the paper mAP 68.8 on VOC10 test with L (table 2), area under the curve; 66.1 with VOC12 trainval alone,
        trained as long as VOC07 (`--recipe voc07 --train voc:VOC2012@trainval`). We have not run it.
    """
    return Recipe(
        name="voc10", class_names=VOC_CLASSES, steps=100_000, optimizer=OptimizerSettings(lr_milestones=(0.4, 0.8))
    )


def voc12() -> Recipe:
    """For VOC12's test server: the same settings as `voc10`.

    Command: tf-fast-rcnn train --recipe voc12
             --train voc:VOC2007@trainval+voc:VOC2007@test+voc:VOC2012@trainval --out runs/voc12
    Cost: 2.5 times that of `voc07`.
    Result: in the paper mAP 68.4 on VOC12 test with L (table 3); 65.7 with VOC12 trainval alone. We have not run it.
    """
    return Recipe(
        name="voc12", class_names=VOC_CLASSES, steps=100_000, optimizer=OptimizerSettings(lr_milestones=(0.4, 0.8))
    )


def coco() -> Recipe:
    """COCO's 80k training images: 240k mini-batches. The learning rate drops after 200k (our choice; not in the paper).

    Command: tf-fast-rcnn train --recipe coco --train coco:instances_train2014.json,train2014 --out runs/coco
    Cost: six times that of `voc07`; selective search on 80k images takes two hours on one core.
    Result: in the paper, with L on test-dev, mAP 35.9 at IoU 0.5 and 19.7 averaged over IoUs (section 5.6). We have not
        run it.
    """
    return Recipe(
        name="coco", class_names=COCO_CLASSES, steps=240_000, optimizer=OptimizerSettings(lr_milestones=(5 / 6,))
    )


def small_data() -> Recipe:
    """For your own data, tens to thousands of images, in minutes on a CPU: AdamW, cosine decay, dense proposals.

    Background RoIs are sampled from IoU 0 upwards, because with dense proposals hard examples are not only near the
    objects. RoIs are pooled from several strides, chosen from the sizes of the objects (see `training.choices`), and
    from the coarsest with their surroundings. Images of large objects change their scale and colours at random. There
    is no dropout: it keeps the box regression from learning. Detection drops clear background in a first pass.

    Command: tf-fast-rcnn train --train voc:DIR@trainval --out runs/mine
    Cost: 6 to 8 minutes on two cores for images of 640x480.
    Result: after training on trainval we measured an AP at IoU 0.5 (area) of 88.4 on BCCD test and 92.5 on Raccoon
        test: the means over seeds 0, 1 and 2, with 87.5, 89.2, 88.6 and 93.9, 90.1, 93.4. At IoU 0.75: 50.6 and 63.8.
    """
    return Recipe(
        name="small-data",
        backbone="efficientnet_lite0",
        proposals="dense",
        steps=800,
        nms_iou_threshold=0.4,
        screening_rank=32,
        tile="auto",
        jitter="auto",
        optimizer=OptimizerSettings(
            kind="adamw", learning_rate=1e-3, schedule="cosine", backbone_lr_multiplier=0.1, weight_decay=1e-4
        ),
        network=NetworkSettings(stride="auto", lateral_channels=48, context=2.0, fc_units=(512, 512), dropout=0.0),
        sampling=SamplingRules(background_iou=(0.0, 0.5), shorter_side=480, longer_side=800),
    )


RECIPES = {
    "small-data": small_data,
    "voc07": voc07,
    "voc0712": voc0712,
    "voc10": voc10,
    "voc12": voc12,
    "coco": coco,
}


def recipe(name: StrPath, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Returns a named recipe, or the recipe of a run, with changes.

    Args:
        name: one of `RECIPES`, or the folder of a run.
        changes: see `with_changes`.

    Raises:
        InputError: if the recipe or a setting does not exist.

    Example:
        >>> recipe("voc07", {"optimizer.learning_rate": 0.002}).optimizer.learning_rate
        0.002
    """
    if name in RECIPES:
        found = RECIPES[name]()
    elif pathlib.Path(name).is_dir():
        found = _recipe_of_run(name)
    else:
        raise InputError(
            f"recipe: found {name!r}; expected one of {', '.join(RECIPES)}, or the folder of a run; choose one of these"
        )
    return with_changes(found, changes or {})


def _recipe_of_run(folder):
    description = read_description(folder)
    try:
        return recipe_from_json(description["recipe"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder}/run.json: found no usable recipe ({error}); expected what `train` writes; train again"
        ) from None
    except InputError as error:
        raise InputError(f"{folder}/run.json: {error}") from None
