"""Continues `model.fit` with Keras's `BackupAndRestore` at the mini-batch where it was interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath


def resume_position(backup_dir: StrPath, steps_per_epoch: int) -> int:
    """The `start` of `hierarchical_batches` for a `fit` that `keras.callbacks.BackupAndRestore` continues.

    Keras restores the weights, the optimizer and the epoch, but it starts the data set from its beginning: without
    `start`, a resumed training would repeat the first mini-batches. It does not restore the random state of dropout.

    Args:
        backup_dir: the folder of the callback, whose `save_freq` is "epoch"; it does not exist before the first backup.
        steps_per_epoch: as for `fit`.

    Returns:
        int, the number of mini-batches that the model in the backup was trained on; 0 without a backup.

    Raises:
        InputError: if the backup was made within an epoch: Keras repeats such an epoch from its beginning.

    Example:
        >>> steps = len(train) // 2                                                         # doctest: +SKIP
        >>> batches = hierarchical_batches(train, start=resume_position("backup", steps))   # doctest: +SKIP
        >>> backup = keras.callbacks.BackupAndRestore("backup")                             # doctest: +SKIP
        >>> model.fit(batches, steps_per_epoch=steps, epochs=10, callbacks=[backup])        # doctest: +SKIP
    """
    path = Path(backup_dir) / "training_metadata.json"
    if not path.exists():
        return 0
    try:
        state = json.loads(path.read_text())
        epoch, batch = int(state["epoch"]), int(state.get("batch", 0))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: found no epoch ({error}); expected what keras.callbacks.BackupAndRestore writes; remove the "
            "folder to train from the beginning"
        ) from error
    if batch:
        raise InputError(
            f"{path}: found a backup within epoch {epoch}, after mini-batch {batch}; expected one at the end of an "
            "epoch, since Keras repeats the whole epoch; use save_freq='epoch'"
        )
    return epoch * steps_per_epoch
