"""Servers on the loopback interface, for a small detector and for a model with known outputs."""

import pytest
from naive_detection import some_image
from servers import CLASS_NAMES, SETTINGS, batch_of, encoded, save_example, served

from tf_fast_rcnn import export_saved_model


@pytest.fixture(scope="session")
def example_versions(tmp_path_factory):
    """A folder with versions 1, 2 and 3 of the example model."""
    folder = tmp_path_factory.mktemp("versions") / "example"
    folder.mkdir()
    for version in (1, 2, 3):
        save_example(folder, version)
    return folder


@pytest.fixture(scope="session")
def example(example_versions):
    """A server with the latest version of the example model."""
    with served("example", example_versions) as server:
        yield server


@pytest.fixture(scope="session")
def detector_versions(tiny_model, tmp_path_factory):
    """A folder with version 1 of the small detector."""
    folder = tmp_path_factory.mktemp("versions") / "tiny"
    export_saved_model(tiny_model, folder / "1", class_names=CLASS_NAMES, settings=SETTINGS)
    return folder


@pytest.fixture(scope="session")
def detector(detector_versions):
    """A server with the small detector."""
    with served("tiny", detector_versions, max_message_bytes=1 << 20) as server:
        yield server


@pytest.fixture(scope="session")
def two_images():
    """Inputs with two images of different sizes and formats, 40 proposals each."""
    return batch_of([encoded(some_image(90, 120, 0)), encoded(some_image(130, 80, 1), "PNG")], 40)
