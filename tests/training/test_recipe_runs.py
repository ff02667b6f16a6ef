"""Every recipe trains its first 20 mini-batches on generated data in Pascal VOC's layout."""

import dataclasses
import json
import math

import keras
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.models.backbones import load_backbone
from tf_fast_rcnn.training.recipes import RECIPES
from tf_fast_rcnn.training.settings import with_changes

STEPS = 20


class FirstSteps(keras.callbacks.Callback):
    """Ends training after 20 mini-batches, as Ctrl-C does: the recipe keeps its own number of steps."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])
        if len(self.losses) == STEPS:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def data(digits):
    """`dataset of a recipe`: the digits under names of classes that the recipe is for, 40 visits to 8 images."""
    images = frcnn.load_dataset(f"voc:{digits}@train", tuple("0123456789"))
    images = images + images + images + images + images

    def of(recipe):
        names = recipe.class_names or images.class_names
        return images.relabelled(names, range(1, 11))

    return of


def first_steps(recipe, dataset, folder, **options):
    """The losses of the first mini-batches, after checking that the run is under way and says what it is."""
    steps = FirstSteps()
    with pytest.raises(KeyboardInterrupt):
        frcnn.train(dataset, folder, recipe=recipe, workers=1, progress=False, callbacks=[steps], **options)
    assert len(steps.losses) == STEPS
    assert all(math.isfinite(loss) and loss > 0 for loss in steps.losses)
    assert json.loads((folder / "run.json").read_text())["recipe"]["name"] == recipe.name
    return steps.losses


@pytest.mark.parametrize("name", RECIPES)
def test_first_mini_batches(name, data, tiny_backbone, tmp_path):
    """As the recipe has it, its proposals included, but for the network and the images' size."""
    changes = {"sampling.shorter_side": 128, "sampling.longer_side": 192, "network.fc_units": 32}
    recipe = with_changes(frcnn.recipe(name), changes)
    if recipe.network.stride == 16:
        recipe = with_changes(recipe, {"network.stride": 8})  # the tiny network's last
    else:
        recipe = with_changes(recipe, {"network.stride": "4,8"})
    losses = first_steps(recipe, data(recipe), tmp_path / "run", backbone=tiny_backbone)
    # From log(K + 1) on, for the predictor layers begin near 0.
    assert losses[0] == pytest.approx(math.log(len(data(recipe).class_names) + 1), rel=0.25)
    if recipe.optimizer.schedule == "step":  # the cosine is still warming up
        assert losses[-1] < losses[0]


@pytest.mark.slow  # fully connected layers of 50 to 120 million weights
@pytest.mark.parametrize("backbone", ["caffenet", "vgg_cnn_m_1024", "caffe_vgg16", "vgg16"])
def test_first_mini_batches_of_the_papers_networks(backbone, data, tmp_path):
    """From random weights whose first layer brings colours to about 1, as training on ImageNet does to features."""
    network = load_backbone(backbone, weights=None).network
    first = next(layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    first.set_weights([values / 128 for values in first.get_weights()])
    network.save_weights(tmp_path / "random.weights.h5")
    recipe = with_changes(frcnn.recipe("voc07"), {"sampling.shorter_side": 128, "sampling.longer_side": 192})
    recipe = dataclasses.replace(recipe, backbone=backbone)
    losses = first_steps(recipe, data(recipe), tmp_path / "run", weights=str(tmp_path / "random.weights.h5"))
    assert losses[-1] < losses[0]
