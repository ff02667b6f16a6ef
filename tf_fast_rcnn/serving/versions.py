"""Versions of a model: discovery, loading and replacement."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from tensorflow_serving.apis import get_model_status_pb2

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.serving.servable import Servable
from tf_fast_rcnn.serving.status import ServingError, invalid_argument

if TYPE_CHECKING:
    from tensorflow_serving.apis import model_pb2

    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.serving.batching import BatchingParameters

State = get_model_status_pb2.ModelVersionStatus.State
_log = logging.getLogger(__name__)


@dataclasses.dataclass
class _Version:
    """A version and its state: START, LOADING, AVAILABLE, UNLOADING, END."""

    directory: Path
    state: int = State.START
    error: str = ""
    servable: Servable | None = None
    requests: int = 0  # number of running requests
    files: tuple = ()  # state of its files when it was loaded


def version_directories(directory: StrPath) -> dict[int, Path]:
    """Dict from version numbers to their folders, or to `directory` itself if it is a SavedModel.

    Raises:
        InputError: if the folder does not exist.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory}: found no such folder; expected a folder of model versions; check the path")
    if (directory / "saved_model.pb").exists():
        return {int(directory.name) if directory.name.isdecimal() else 1: directory}
    return {int(path.name): path for path in directory.iterdir() if path.name.isdecimal() and path.is_dir()}


def model_name(directory: StrPath) -> str:
    """The default name of the model in a folder: that of the folder, or that of its parent for a numbered version."""
    directory = Path(directory).resolve()
    is_version = directory.name.isdecimal() and (directory / "saved_model.pb").exists()
    return directory.parent.name if is_version else directory.name


class Model:
    """A model whose latest version is served, which is also the default of TensorFlow Serving.

    A new version is loaded while the old one is still serving; the old one is unloaded after its last request. If the
    new version cannot be loaded, the old one keeps serving, and loading is retried when the files change.

    Args:
        name: name of the model in requests.
        directory: folder of numbered versions, or a SavedModel.
        batching: `BatchingParameters`; None to run each request separately.
    """

    def __init__(self, name: str, directory: StrPath, batching: BatchingParameters | None = None) -> None:
        self.name = name
        self._directory = directory
        self._batching = batching
        self._versions = {}
        self._changed = threading.Condition()

    @property
    def available(self) -> bool:
        """Whether a version is available for requests."""
        return any(version.state == State.AVAILABLE for version in list(self._versions.values()))

    @property
    def errors(self) -> list[str]:
        """The errors of versions that could not be loaded, latest version first."""
        return [
            self._versions[number].error
            for number in sorted(self._versions, reverse=True)
            if self._versions[number].error
        ]

    def poll(self) -> None:
        """Checks for versions, loads the latest one and unloads the others. Not thread-safe.

        Raises:
            InputError: if the folder does not exist.
        """
        found = version_directories(self._directory)
        if not found:
            return  # Keep the loaded version.
        latest = max(found)
        if self._load(latest, found[latest]):
            for number, version in self._versions.items():
                if number != latest and version.state == State.AVAILABLE:
                    self._unload(number, version)

    def _load(self, number, directory):
        """Loads a version if necessary; returns whether it is available."""
        known = self._versions.get(number)
        if known is not None and known.state == State.AVAILABLE:
            return True
        files = _files(directory)
        if known is not None and known.error and known.files == files:
            return False
        version = _Version(directory, State.LOADING, files=files)
        with self._changed:
            self._versions = {**self._versions, number: version}
        try:
            version.servable = Servable(directory, self._batching)
        except InputError as error:
            version.error, version.state = str(error), State.END
            _log.error("version %d: %s", number, error)
            return False
        version.state = State.AVAILABLE
        _log.info("version %d of %s is available", number, self.name)
        return True

    def _unload(self, number, version):
        with self._changed:
            version.state = State.UNLOADING
            self._changed.wait_for(lambda: version.requests == 0)
            version.servable = None
            version.state = State.END
        gc.collect()  # The functions of a SavedModel have reference cycles.
        _log.info("version %d of %s is unloaded", number, self.name)

    @contextlib.contextmanager
    def using(self, spec: model_pb2.ModelSpec) -> Iterator[tuple[int, Servable]]:
        """The requested version as `(number, Servable)`; it is not unloaded before the context exits.

        Raises:
            ServingError: if it is not available. The messages are those of TensorFlow Serving, where only its
                configuration defines version labels.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        if spec.HasField("version_label"):
            raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
        with self._changed:
            ready = [number for number, version in self._versions.items() if version.state == State.AVAILABLE]
            wanted = spec.version.value if spec.HasField("version") else max(ready, default=None)
            if wanted is None or spec.name != self.name or wanted not in ready:
                asked = f"Specific({spec.name}, {wanted})" if spec.HasField("version") else f"Latest({spec.name})"
                raise ServingError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {asked}")
            version = self._versions[wanted]
            version.requests += 1
        try:
            yield wanted, version.servable
        finally:
            with self._changed:
                version.requests -= 1
                self._changed.notify_all()

    def statuses(self, spec: model_pb2.ModelSpec) -> list[get_model_status_pb2.ModelVersionStatus]:
        """`ModelVersionStatus` of the requested versions, latest first; like TensorFlow Serving, whatever the label.

        Raises:
            ServingError: if there are none.
        """
        versions = self._versions if spec.name == self.name else {}
        if spec.HasField("version"):
            versions = {number: value for number, value in versions.items() if number == spec.version.value}
        if not versions:
            what = f"version {spec.version.value}" if spec.HasField("version") else "any versions"
            raise ServingError(grpc.StatusCode.NOT_FOUND, f"Could not find {what} of model {spec.name}")
        return [_status(number, versions[number]) for number in sorted(versions, reverse=True)]


def _files(directory):
    """Paths, times and sizes of the files, which change when a version is completed or written again."""
    found = []
    for path in sorted(directory.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            found.append((str(path), path.stat().st_mtime_ns, path.stat().st_size))
    return tuple(found)


def _status(number, version):
    status = get_model_status_pb2.ModelVersionStatus(version=number, state=version.state)
    if version.error:
        status.status.error_code = grpc.StatusCode.INVALID_ARGUMENT.value[0]
        status.status.error_message = version.error
    return status
