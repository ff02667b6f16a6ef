"""What `prepare` does with one image, and the processes that do it. Without TensorFlow, whose start takes seconds."""

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

from tf_fast_rcnn.data.images import is_plain
from tf_fast_rcnn.data.proposals import compute_proposals
from tf_fast_rcnn.data.proposals.opencv_search import use_one_thread
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.data.records import ImageRecord

# Images given to each process ahead: enough that none waits for a slow neighbour, and bounded in memory.
_AHEAD = 4


def prepare_image(
    record: ImageRecord, proposals: ProposalSettings | None, embed: bool
) -> tuple[ImageRecord, None] | tuple[None, str]:
    """Decodes an image and computes its proposals.

    Args:
        record: `ImageRecord`.
        proposals: `ProposalSettings`; None where the record has its proposals.
        embed: whether to read the image's bytes into the record. Those of images that TensorFlow would decode otherwise
            are in any case, as PNG.

    Returns:
        `(record, None)` with `proposal_boxes` and perhaps `image_bytes`; or, for a bad image, `(None, message)`.
    """
    use_one_thread()
    try:
        image = record.image()
        if image.shape[:2] != (record.height, record.width):
            raise InputError(
                f"{record.image_path}: found {image.shape[1]}x{image.shape[0]} pixels; expected "
                f"{record.width}x{record.height}, as annotated; read the data set again"
            )
        contents = record.image_bytes
        if contents is None and (embed or not is_plain(record.image_path)):
            contents = record.encoded_image()
        rows = record.proposals() if proposals is None else compute_proposals(image, proposals)
    except InputError as error:
        return None, str(error)
    return dataclasses.replace(record, image_bytes=contents, proposal_boxes=rows), None


def in_order(function: Callable[..., Any], jobs: Iterable[tuple], workers: int) -> Iterator[Any]:
    """Yields `function(*job)` of each job, in order, computed in parallel processes; few are in memory at a time.

    Args:
        function: of a module that the processes can import.
        jobs: iterable of tuples of arguments.
        workers: number of processes; with 1 the work is done in this one.

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
    # loky's processes start afresh: safe beside TensorFlow's threads, and scripts need no `if __name__ == "__main__"`.
    executor = loky.ProcessPoolExecutor(workers, initializer=end_with_parent, initargs=(os.getpid(),))
    try:
        yield executor
    except BrokenProcessPool:
        raise InputError(
            "prepare: found a worker process killed, perhaps for want of memory; expected it to finish; "
            "give the same command with fewer workers, it goes on where it stopped"
        ) from None
    finally:
        # After an error or Ctrl-C nobody wants what is still being computed.
        executor.shutdown(kill_workers=True)


def end_with_parent(parent: int) -> None:
    """Ends this process soon after its parent: loky's would wait for work of a killed one for ever."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
