"""Proposals of images that come as bytes, in worker processes. Without TensorFlow, which they do not wait for."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from joblib.externals import loky
from joblib.externals.loky.process_executor import BrokenProcessPool
from PIL import Image

from tf_fast_rcnn.data.images import read_encoded, read_image
from tf_fast_rcnn.data.prepared.workers import end_with_parent
from tf_fast_rcnn.data.proposals import compute_proposals
from tf_fast_rcnn.data.proposals.opencv_search import use_one_thread

if TYPE_CHECKING:
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings

# As the exported graph's own limit; decoded, an image takes 3 bytes a pixel.
_MOST_PIXELS = 50_000_000


class ImageWithProposals(NamedTuple):
    """What a detector is sent of an image.

    Attributes:
        image_bytes: JPEG or PNG, upright.
        height, width: in pixels.
        proposals: float32 `[P, 4]`, relative.
    """

    image_bytes: bytes
    height: int
    width: int
    proposals: np.ndarray


def with_proposals(contents: bytes, proposals: ProposalSettings, max_proposals: int | None) -> ImageWithProposals:
    """Decodes an image and computes its proposals.

    Args:
        contents: bytes of an image file, of any format and orientation that Pillow reads.
        proposals: `ProposalSettings`.
        max_proposals: at most so many, the first; None: all.

    Returns:
        `ImageWithProposals`.

    Raises:
        InputError: if it is no image, or one of more than 50 million pixels.
    """
    use_one_thread()
    Image.MAX_IMAGE_PIXELS = _MOST_PIXELS // 2  # Pillow warns from here, and refuses from twice as many.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    image = read_image("image", contents)
    rows = compute_proposals(image, proposals)[:max_proposals]
    height, width = image.shape[:2]
    return ImageWithProposals(read_encoded("image", contents), height, width, rows)


class ProposalWorkers:
    """Processes that compute proposals; where one is killed, others take its place.

    Args:
        workers: number of processes.
        proposals: `ProposalSettings`.
        max_proposals: of an image; None: all.
    """

    def __init__(self, workers: int, proposals: ProposalSettings, max_proposals: int | None) -> None:
        self._workers = workers
        self._arguments = proposals, max_proposals
        self._executor = self._start()

    def _start(self):
        # loky's processes start afresh: safe beside the threads of TensorFlow and gRPC.
        return loky.ProcessPoolExecutor(self._workers, initializer=end_with_parent, initargs=(os.getpid(),))

    def compute(self, contents: bytes) -> ImageWithProposals:
        """`with_proposals` of an image's bytes, in a process; blocks. Threads may call it at a time.

        Raises:
            BrokenProcessPool: where a process was killed meanwhile; later calls get new processes.
        """
        executor = self._executor
        try:
            return executor.submit(with_proposals, contents, *self._arguments).result()
        except BrokenProcessPool:
            if self._executor is executor:
                self._executor = self._start()
            raise

    def stop(self) -> None:
        """Ends the processes."""
        self._executor.shutdown(kill_workers=True)
