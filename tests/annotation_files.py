"""What the tests of all readers share: images of one colour, and errors of one line."""

import numpy as np
import pytest
from PIL import Image

from tf_fast_rcnn.errors import InputError


def write_image(path, height=40, width=60, **options):
    """Writes an image, by default of 40 rows and 60 columns, as the format that the extension says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path, **options)
    return path


def one_line_error(call, *patterns):
    """The message of the InputError that a call must raise; it has one line, which holds all patterns."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for pattern in patterns:
        assert pattern in message
    return message
