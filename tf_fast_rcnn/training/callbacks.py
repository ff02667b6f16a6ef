"""What happens around the mini-batches of a training run: logs, curves, checkpoints, progress."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from tqdm import tqdm

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.training.averaging import averaged_weights
from tf_fast_rcnn.training.run_folder import best_model_path, save_checkpoint, save_model
from tf_fast_rcnn.visualization.plots import plot_losses

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_LOG_INTERVAL = 10
_CHECKPOINT_INTERVAL = 500
_DRAWING_INTERVAL = 10  # seconds: epochs over few images end more often than curves are worth drawing
# Keras names the losses after the model's outputs; logs name them as the paper does.
_LOSS_NAMES = {"loss": "loss", "class_logits_loss": "class_loss", "box_deltas_loss": "box_loss"}


class Position(keras.callbacks.Callback):
    """`step`, the number of mini-batches that a run has trained on; the first of its callbacks.

    The optimiser's own count is another where gradients are accumulated, or loss scaling skips an update.
    """

    def __init__(self, step: int = 0) -> None:
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.step += 1


class RunLog:
    """RUN/log.jsonl, RUN/losses.png and RUN/tensorboard, kept alike.

    Args:
        folder: RUN.
        step: the step from which training goes on; later rows, whose mini-batches come again, are dropped.
    """

    def __init__(self, folder: StrPath, step: int) -> None:
        self._folder = Path(folder)
        self._path = self._folder / "log.jsonl"
        self.rows = []
        if self._path.exists():
            rows = [json.loads(line) for line in self._path.read_text().splitlines() if line.endswith("}")]
            self.rows = [row for row in rows if row["step"] <= step]
        self._path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        self._board = tf.summary.create_file_writer(str(self._folder / "tensorboard"))

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds one row: "step" and numbers by name."""
        self.rows.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        with self._board.as_default():
            for name, value in row.items():
                if name != "step" and value is not None:
                    tf.summary.scalar(name, value, step=row["step"])
        self._board.flush()

    def draw(self) -> None:
        """Draws losses.png anew."""
        if self.rows:
            plot_losses(self.rows, self._folder / "losses.png")


class LossLog(keras.callbacks.Callback):
    """Writes the losses every few mini-batches and at the end of an epoch, there with what other callbacks have put
    into Keras's logs; stops the run at once where the loss is not finite."""

    def __init__(self, log: RunLog, position: Position) -> None:
        super().__init__()
        self._log, self._position = log, position
        self._drawn = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = self._position.step
        if not math.isfinite(logs["loss"]):
            raise InputError(
                f"step {step}: found a loss of {logs['loss']}; expected a finite one; lower the learning rate, or "
                "start from other weights"
            )
        if step % _LOG_INTERVAL == 0:
            self._log.add(self._losses(step, logs))
            # Keras's losses are means since the epoch began; curves want those of the last mini-batches.
            self.model.reset_metrics()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        step = self._position.step
        row = {name: value for name, value in logs.items() if name not in _LOSS_NAMES}
        if step % _LOG_INTERVAL:
            row = {**self._losses(step, logs), **row}
        if row:
            self._log.add({"step": step, **row})
        if time.monotonic() - self._drawn > _DRAWING_INTERVAL:
            self._log.draw()
            self._drawn = time.monotonic()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._log.draw()

    def _losses(self, step, logs):
        losses = {name: logs[key] for key, name in _LOSS_NAMES.items() if key in logs}
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        return {"step": step, **losses, "rate": rate}


class BestModel(keras.callbacks.Callback):
    """Keeps the model with the best validation mAP, and ends training after some epochs without a better one.

    What it knows stands in the log, after `LossLog`, so that an interrupted run goes on with it.

    Args:
        folder: RUN.
        log: `RunLog`.
        patience: number of epochs without a better mAP after which training ends.
    """

    def __init__(self, folder: StrPath, log: RunLog, patience: int) -> None:
        super().__init__()
        self._folder, self._log, self._patience = folder, log, patience

    @property
    def mean_ap(self) -> float:
        """The best mAP so far."""
        return max(self._mean_aps())

    @property
    def has_ended(self) -> bool:
        mean_aps = self._mean_aps()
        return bool(mean_aps) and len(mean_aps) - 1 - mean_aps.index(max(mean_aps)) >= self._patience

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if "mean_ap" not in logs:
            raise InputError(
                "early_stopping: found no validation mAP after an epoch; expected validation images with objects; "
                "give --val, or ValidationMap as a callback"
            )
        mean_aps = self._mean_aps()
        if mean_aps.index(max(mean_aps)) == len(mean_aps) - 1:
            with averaged_weights(self.model):
                save_model(self.model, best_model_path(self._folder))
        self.model.stop_training = self.has_ended

    def _mean_aps(self):
        return [row["mean_ap"] for row in self._log.rows if "mean_ap" in row]


class Checkpoints(keras.callbacks.Callback):
    """Saves the state after each epoch, and within long ones, so that a killed run can go on."""

    def __init__(self, folder: StrPath, position: Position) -> None:
        super().__init__()
        self._folder, self._position = folder, position

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # A state at the end of an epoch is saved after its validation: the run that goes on from it repeats none.
        ends_epoch = batch + 1 == self.params["steps"]
        if self._position.step % _CHECKPOINT_INTERVAL == 0 and not ends_epoch:
            save_checkpoint(self.model, self._folder, self._position.step)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        save_checkpoint(self.model, self._folder, self._position.step)


class ProgressBar(keras.callbacks.Callback):
    """One bar over all mini-batches of a run, on standard error."""

    def __init__(self, steps: int, done: int) -> None:
        super().__init__()
        interval = 0.5 if sys.stderr.isatty() else 15
        self.bar = tqdm(total=steps, initial=done, desc="train", unit="batch", mininterval=interval)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        self.bar.update()
