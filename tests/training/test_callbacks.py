"""The callbacks of training, on a model with one weight and known losses."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_fast_rcnn import InputError
from tf_fast_rcnn.training import callbacks, run_folder
from tf_fast_rcnn.training.callbacks import Checkpoints, LossLog, Position, ProgressBar, RunLog


@keras.saving.register_keras_serializable(package="test_callbacks")
class Constant(keras.losses.Loss):
    """The mean of the targets, whatever the model predicts."""

    def call(self, targets, outputs):
        return tf.reduce_mean(targets) + 0.0 * tf.reduce_sum(outputs)


def fit(losses, callbacks_, steps_per_epoch, rate=0.5):
    """Trains one step for each loss."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), Constant())
    data = tf.data.Dataset.from_tensor_slices((np.ones((len(losses), 1, 1)), np.float32(losses).reshape(-1, 1, 1)))
    epochs = len(losses) // steps_per_epoch
    model.fit(
        data.repeat(), epochs=epochs, steps_per_epoch=steps_per_epoch, callbacks=callbacks_, verbose=0, shuffle=False
    )
    return model


def logged(log):
    """The callbacks that write a log."""
    position = Position()
    return [position, LossLog(log, position)]


def checkpointed(folder):
    position = Position()
    return [position, Checkpoints(folder, position)]


def rows_in(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


class Metric(keras.callbacks.Callback):
    """A fake validation callback."""

    def on_epoch_end(self, epoch, logs=None):
        logs["mean_ap"] = 0.25 * epoch


def test_rows_are_means_since_the_row_before(tmp_path):
    losses = np.arange(1.0, 25.0)
    fit(losses, [Metric(), *logged(RunLog(tmp_path, 0))], steps_per_epoch=12)
    assert rows_in(tmp_path) == [
        {"step": 10, "loss": losses[:10].mean(), "rate": 0.5},
        {"step": 12, "loss": losses[10:12].mean(), "rate": 0.5, "mean_ap": 0.0},
        # Keras restarts its means with each epoch.
        {"step": 20, "loss": losses[12:20].mean(), "rate": 0.5},
        {"step": 24, "loss": losses[20:24].mean(), "rate": 0.5, "mean_ap": 0.25},
    ]
    assert (tmp_path / "losses.png").stat().st_size > 0


def test_an_epoch_that_ends_with_a_row_adds_its_other_figures_alone(tmp_path):
    fit(np.ones(20), [Metric(), *logged(RunLog(tmp_path, 0))], steps_per_epoch=10)
    assert [(row["step"], set(row)) for row in rows_in(tmp_path)] == [
        (10, {"step", "loss", "rate"}),
        (10, {"step", "mean_ap"}),
        (20, {"step", "loss", "rate"}),
        (20, {"step", "mean_ap"}),
    ]


def test_a_run_of_few_steps_has_a_loss(tmp_path):
    fit([3.0, 5.0], logged(RunLog(tmp_path, 0)), steps_per_epoch=2)
    assert rows_in(tmp_path) == [{"step": 2, "loss": 4.0, "rate": 0.5}]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_at_once(tmp_path, bad):
    with pytest.raises(InputError, match=rf"step 3: found a loss of {bad}; expected a finite one; lower the learning"):
        fit([1.0, 1.0, bad, 1.0], [*logged(RunLog(tmp_path, 0)), *checkpointed(tmp_path)], steps_per_epoch=2)
    # The last checkpoint was saved before.
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002.keras"]


def test_log_drops_rows_whose_steps_come_again(tmp_path):
    rows = [{"step": step, "loss": 1.0} for step in (10, 20, 30)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 40, "lo')
    log = RunLog(tmp_path, 20)
    assert log.rows == rows[:2] == rows_in(tmp_path)
    log.add({"step": 30, "loss": 0.5})
    assert rows_in(tmp_path)[-1] == {"step": 30, "loss": 0.5}
    assert RunLog(tmp_path, 30).rows == [*rows[:2], {"step": 30, "loss": 0.5}]


def test_log_without_rows_draws_nothing(tmp_path):
    RunLog(tmp_path, 0).draw()
    assert not (tmp_path / "losses.png").exists()


def test_curves_are_drawn_within_long_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "_DRAWING_INTERVAL", 0)
    drawn = []
    monkeypatch.setattr(RunLog, "draw", lambda self: drawn.append(len(self.rows)))
    fit(np.ones(6), logged(RunLog(tmp_path, 0)), steps_per_epoch=2)
    assert drawn == [1, 2, 3, 3]


def test_checkpoints_after_each_epoch_and_within_long_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "_CHECKPOINT_INTERVAL", 4)
    saved = []
    monkeypatch.setattr(callbacks, "save_checkpoint", lambda model, folder, step: saved.append((folder, step)))
    fit(np.ones(20), checkpointed(tmp_path), steps_per_epoch=10)
    # Only one row at step 20, the end of an epoch: it includes the validation results.
    assert [step for _, step in saved] == [4, 8, 10, 12, 16, 20]
    assert {folder for folder, _ in saved} == {tmp_path}


def test_a_checkpoint_is_the_model_at_its_step(tmp_path):
    model = fit(np.ones(4), checkpointed(tmp_path), steps_per_epoch=2)
    found, step = run_folder.last_checkpoint(tmp_path)
    assert step == found.optimizer.iterations == model.optimizer.iterations == 4
    np.testing.assert_array_equal(found.get_weights()[0], model.get_weights()[0])


def test_one_progress_bar_over_all_epochs(capsys):
    bar = ProgressBar(steps=10, done=4)
    fit([0.5] * 6, [bar], steps_per_epoch=2)
    assert (bar.bar.n, bar.bar.total) == (10, 10)
    bar.bar.close()
    error = capsys.readouterr().err
    assert "train" in error
    assert "10/10" in error
    assert "loss=0.500" in error
