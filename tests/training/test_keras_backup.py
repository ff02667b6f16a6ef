"""`model.fit` with Keras's BackupAndRestore goes on with the mini-batches of an uninterrupted training."""

import json

import keras
import numpy as np
import pytest

import tf_fast_rcnn as frcnn

EPOCHS, STEPS = 4, 3
OPTIONS = {"seed": 3, "shorter_side": 64, "longer_side": 96, "pad_to": (64, 64)}


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C after this number of mini-batches."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture
def fit(prepared_digits, tiny_backbone):
    """Fits a new detector with momentum: returns its weights, or None if it is interrupted. It has no dropout, whose
    random state is not in Keras's backups."""

    def run(folder, interrupt_after=None, **options):
        keras.utils.set_random_seed(0)
        model = frcnn.fast_rcnn(tiny_backbone, 10, stride=8, fc_units=(16,), dropout=0.0)
        model.compile(frcnn.sgd(0.01), frcnn.multi_task_loss(model), jit_compile=False)
        start = frcnn.resume_position(folder, STEPS)
        batches = frcnn.hierarchical_batches(prepared_digits[0], 2, 16, start=start, **OPTIONS)
        callbacks = [keras.callbacks.BackupAndRestore(folder, **options)]
        callbacks += [Interrupt(interrupt_after)] if interrupt_after else []
        try:
            model.fit(batches, epochs=EPOCHS, steps_per_epoch=STEPS, callbacks=callbacks, verbose=0, shuffle=False)
        except KeyboardInterrupt:
            return None
        return model.get_weights()

    return run


def test_a_resumed_fit_ends_with_the_same_weights(fit, tmp_path):
    """Interrupted twice: after the first mini-batch of the second epoch, and within the fourth."""
    expected = fit(tmp_path / "undisturbed")
    for after in (STEPS + 1, 2 * STEPS + 2):
        assert fit(tmp_path / "backup", after) is None
    assert frcnn.resume_position(tmp_path / "backup", STEPS) == 3 * STEPS
    for found, wanted in zip(fit(tmp_path / "backup"), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_without_a_backup_training_starts_with_the_first_mini_batch(tmp_path):
    assert frcnn.resume_position(tmp_path / "none", STEPS) == 0


def test_a_backup_within_an_epoch_is_an_input_error(fit, tmp_path):
    """Keras repeats such an epoch with weights that have seen a part of it."""
    assert fit(tmp_path, STEPS + 3, save_freq=2) is None
    with pytest.raises(frcnn.InputError, match=r"metadata.json: found a backup within epoch 1, .*save_freq='epoch'$"):
        frcnn.resume_position(tmp_path, STEPS)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"epoch": null}'])
def test_a_file_that_keras_did_not_write_is_an_input_error(tmp_path, content):
    (tmp_path / "training_metadata.json").write_text(content)
    with pytest.raises(frcnn.InputError, match=r"training_metadata.json: found no epoch"):
        frcnn.resume_position(tmp_path, STEPS)


def test_other_values_of_the_file_are_ignored(tmp_path):
    (tmp_path / "training_metadata.json").write_text(json.dumps({"epoch": 2, "batch": 0, "other": 1}))
    assert frcnn.resume_position(tmp_path, 5) == 10
