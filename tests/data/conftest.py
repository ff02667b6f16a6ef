"""A folder in Pascal VOC's layout for the tests of data."""

import pytest
from voc_folder import VocFolder


@pytest.fixture
def voc_folder(tmp_path):
    return VocFolder(tmp_path / "voc")
