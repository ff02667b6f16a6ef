"""Training only some layers, as in stage-wise training (section 5.1 of the paper)."""

import keras
import numpy as np
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import InputError
from tf_fast_rcnn.training import run as training_run
from tf_fast_rcnn.training.settings import with_changes


@pytest.fixture
def train(prepared_digits, tiny_backbone, tiny_recipe, tiny_run, tmp_path):
    """Continues the tiny run with only some layers; returns the layers whose weights changed."""

    def run(*names, folder=tmp_path / "run", **options):
        recipe = with_changes(tiny_recipe, {"only_layers": names})
        start, _ = tiny_run
        options |= {"recipe": recipe, "backbone": tiny_backbone, "weights": str(start), "progress": False}
        frcnn.train(prepared_digits[0], folder, **options)
        before, after = (frcnn.load_run(each).model for each in (start, folder))
        return {
            layer.name
            for layer in before.layers
            if not all(map(np.array_equal, layer.get_weights(), after.get_layer(layer.name).get_weights()))
        }

    return run


@pytest.mark.parametrize("names", [("box_regression",), ("convolutions", "class_logits")])
def test_all_other_layers_keep_their_weights(train, names):
    assert train(*names) == set(names)


def test_also_after_an_interruption(train, monkeypatch, tmp_path):
    class KillAt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    # After the checkpoint of the first epoch.
    with pytest.raises(KeyboardInterrupt):
        train("box_regression", callbacks=[KillAt()])
    assert list((tmp_path / "run" / "checkpoints").glob("step-*.keras"))
    compiled = []
    monkeypatch.setattr(training_run, "_compile", lambda *arguments: compiled.append(arguments))
    assert train("box_regression") == {"box_regression"}
    assert not compiled


def test_unknown_layers_are_told(train):
    with pytest.raises(InputError, match=r"^only_layers: found 'fc9'; expected layers of the model: .*box_reg"):
        train("fc9")
