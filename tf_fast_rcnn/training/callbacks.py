"""What happens around the mini-batches of a training run: logs, curves, checkpoints, progress."""

import json
import math
import sys
import time
from pathlib import Path

import keras
import tensorflow as tf
from tqdm import tqdm

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.plots import plot_losses
from tf_fast_rcnn.training.run_folder import save_checkpoint

_LOG_INTERVAL = 10
_CHECKPOINT_INTERVAL = 500
_DRAWING_INTERVAL = 10  # seconds: epochs over few images end more often than curves are worth drawing
# Keras names the losses after the model's outputs; logs name them as the paper does.
_LOSS_NAMES = {"loss": "loss", "class_logits_loss": "class_loss", "box_deltas_loss": "box_loss"}


def step_of(model):
    """Number of mini-batches that a compiled model has been trained on."""
    return int(model.optimizer.iterations.numpy())


class RunLog:
    """RUN/log.jsonl, RUN/losses.png and RUN/tensorboard, kept alike.

    Args:
        folder: RUN.
        step: the step from which training goes on; later rows, whose mini-batches come again, are dropped.
    """

    def __init__(self, folder, step):
        self._folder = Path(folder)
        self._path = self._folder / "log.jsonl"
        self.rows = []
        if self._path.exists():
            rows = [json.loads(line) for line in self._path.read_text().splitlines() if line.endswith("}")]
            self.rows = [row for row in rows if row["step"] <= step]
        self._path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        self._board = tf.summary.create_file_writer(str(self._folder / "tensorboard"))

    def add(self, row):
        """Adds one row: "step" and numbers by name."""
        self.rows.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        with self._board.as_default():
            for name, value in row.items():
                if name != "step" and value is not None:
                    tf.summary.scalar(name, value, step=row["step"])
        self._board.flush()

    def draw(self):
        """Draws losses.png anew."""
        if self.rows:
            plot_losses(self.rows, self._folder / "losses.png")


class LossLog(keras.callbacks.Callback):
    """Writes the losses every few mini-batches and at the end of an epoch, there with what other callbacks have put
    into Keras's logs; stops the run at once where the loss is not finite."""

    def __init__(self, log):
        super().__init__()
        self._log = log
        self._drawn = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        step = step_of(self.model)
        if not math.isfinite(logs["loss"]):
            raise InputError(
                f"step {step}: found a loss of {logs['loss']}; expected a finite one; lower the learning rate, or "
                "start from other weights"
            )
        if step % _LOG_INTERVAL == 0:
            self._log.add(self._losses(step, logs))
            # Keras's losses are means since the epoch began; curves want those of the last mini-batches.
            self.model.reset_metrics()

    def on_epoch_end(self, epoch, logs=None):
        step = step_of(self.model)
        row = {name: value for name, value in logs.items() if name not in _LOSS_NAMES}
        if step % _LOG_INTERVAL:
            row = {**self._losses(step, logs), **row}
        if row:
            self._log.add({"step": step, **row})
        if time.monotonic() - self._drawn > _DRAWING_INTERVAL:
            self._log.draw()
            self._drawn = time.monotonic()

    def on_train_end(self, logs=None):
        self._log.draw()

    def _losses(self, step, logs):
        losses = {name: logs[key] for key, name in _LOSS_NAMES.items() if key in logs}
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        return {"step": step, **losses, "rate": rate}


class Checkpoints(keras.callbacks.Callback):
    """Saves the state after each epoch, and within long ones, so that a killed run can go on."""

    def __init__(self, folder):
        super().__init__()
        self._folder = folder

    def on_train_batch_end(self, batch, logs=None):
        step = step_of(self.model)
        if step % _CHECKPOINT_INTERVAL == 0:
            save_checkpoint(self.model, self._folder, step)

    def on_epoch_end(self, epoch, logs=None):
        save_checkpoint(self.model, self._folder, step_of(self.model))


class ProgressBar(keras.callbacks.Callback):
    """One bar over all mini-batches of a run, on standard error."""

    def __init__(self, steps, done):
        super().__init__()
        interval = 0.5 if sys.stderr.isatty() else 15
        self.bar = tqdm(total=steps, initial=done, desc="train", unit="batch", mininterval=interval)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        self.bar.update()
