"""Prepares single images in parallel processes. Does not import TensorFlow, which takes seconds."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from joblib.externals import loky
from joblib.externals.loky.process_executor import BrokenProcessPool
from PIL import Image

from tf_fast_rcnn.data.images import is_plain, uses_few_bits
from tf_fast_rcnn.data.proposals import compute_proposals
from tf_fast_rcnn.data.proposals.selective_search import use_one_thread
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.data.records import ImageRecord

# Images queued per process: enough that no process waits for a slow one, with bounded memory.
_AHEAD = 4


def prepare_image(
    record: ImageRecord, proposals: ProposalSettings | None, embed: bool
) -> tuple[ImageRecord, None, bool] | tuple[None, str, bool]:
    """Decodes an image and computes its proposals.

    Args:
        record: `ImageRecord`.
        proposals: `ProposalSettings`; None if the record already has proposals.
        embed: whether to store the image's bytes in the record. Images that TensorFlow would decode differently are
            always stored, as PNG.

    Returns:
        `(record, None, few_bits)` with `proposal_boxes` and possibly `image_bytes`, and whether `uses_few_bits` is
        true; or `(None, message, False)` for an unreadable image.
    """
    use_one_thread()
    try:
        image = record.image()
        if image.shape[:2] != (record.height, record.width):
            raise InputError(
                f"{record.image_path}: found {image.shape[1]}x{image.shape[0]} pixels; expected "
                f"{record.width}x{record.height} as annotated; load the data set again"
            )
        contents = record.image_bytes
        few_bits = uses_few_bits(record.image_path, image, contents)
        if contents is None and (embed or not is_plain(record.image_path)):
            contents = record.encoded_image()
        rows = record.proposals() if proposals is None else compute_proposals(image, proposals)
    except InputError as error:
        return None, str(error), False
    return dataclasses.replace(record, image_bytes=contents, proposal_boxes=rows), None, few_bits


def in_order(function: Callable[..., Any], jobs: Iterable[tuple], workers: int) -> Iterator[Any]:
    """Yields `function(*job)` for each job in order, computed in parallel processes, with few results in memory.

    Args:
        function: a function at the top level of an importable module.
        jobs: iterable of tuples of arguments.
        workers: number of processes; 1 runs everything in the current process.

    Raises:
        InputError: if a process was killed.
    """
    if workers == 1:
        yield from itertools.starmap(function, jobs)
        return
    with _processes(workers) as executor:
        waiting = collections.deque()
        for job in jobs:
            waiting.append(executor.submit(function, *job))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextlib.contextmanager
def _processes(workers):
    # loky starts fresh processes: unlike forks they are safe with TensorFlow's threads, and unlike multiprocessing's
    # spawned ones they do not need `if __name__ == "__main__"` in scripts.
    executor = loky.ProcessPoolExecutor(workers, initializer=_start, initargs=(os.getpid(), Image.MAX_IMAGE_PIXELS))
    try:
        yield executor
    except BrokenProcessPool:
        raise InputError(
            "prepare: a worker process was killed, probably out of memory; run the same command with fewer workers to "
            "continue where it stopped"
        ) from None
    finally:
        # After an error or Ctrl-C, pending results are not needed.
        executor.shutdown(kill_workers=True)


def _start(parent, max_image_pixels):
    """Prepares a worker: it ends with its parent, and refuses the same images as too large."""
    end_with_parent(parent)
    Image.MAX_IMAGE_PIXELS = max_image_pixels


def end_with_parent(parent: int) -> None:
    """Ends this process soon after its parent; otherwise loky's workers would wait forever if the parent is killed."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
