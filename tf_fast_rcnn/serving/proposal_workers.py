"""Proposals of encoded images, computed in worker processes that do not import TensorFlow and so start quickly."""

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
from tf_fast_rcnn.data.proposals.selective_search import use_one_thread

if TYPE_CHECKING:
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings

# The default limit of exported graphs. A decoded image takes 3 bytes per pixel.
_MOST_PIXELS = 50_000_000


class ImageWithProposals(NamedTuple):
    """An image as it is sent to a detector.

    Attributes:
        image_bytes: JPEG or PNG, upright.
        height, width: size in pixels.
        proposals: float32 `[P, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image.
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
        max_proposals: maximum number of proposals, of which the first are kept; None: all.

    Returns:
        `ImageWithProposals`.

    Raises:
        InputError: if the bytes are not an image, or the image has more than 50 million pixels.
    """
    use_one_thread()
    Image.MAX_IMAGE_PIXELS = _MOST_PIXELS // 2  # Pillow warns above this number and raises above twice this number.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    image = read_image("image", contents)
    rows = compute_proposals(image, proposals)[:max_proposals]
    height, width = image.shape[:2]
    return ImageWithProposals(read_encoded("image", contents), height, width, rows)


class ProposalWorkers:
    """Processes that compute proposals; killed processes are replaced.

    Args:
        workers: number of processes.
        proposals: `ProposalSettings`.
        max_proposals: maximum number of proposals per image; None: all.
    """

    def __init__(self, workers: int, proposals: ProposalSettings, max_proposals: int | None) -> None:
        self._workers = workers
        self._arguments = proposals, max_proposals
        self._executor = self._start()

    def _start(self):
        # loky does not fork, which would be unsafe with the threads of TensorFlow and gRPC.
        return loky.ProcessPoolExecutor(self._workers, initializer=end_with_parent, initargs=(os.getpid(),))

    def compute(self, contents: bytes) -> ImageWithProposals:
        """Runs `with_proposals` in a process and waits for the result; thread-safe.

        Raises:
            BrokenProcessPool: if a process was killed during the call; later calls use new processes.
        """
        executor = self._executor
        try:
            return executor.submit(with_proposals, contents, *self._arguments).result()
        except BrokenProcessPool:
            if self._executor is executor:
                self._executor = self._start()
            raise

    def stop(self) -> None:
        """Stops the processes."""
        self._executor.shutdown(kill_workers=True)
