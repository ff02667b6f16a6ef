"""TensorFlow Serving's own program, where it is installed: its configuration, its start and its end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.serving.versions import version_directories

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.serving.server import ServerSettings

PROGRAM = "tensorflow_model_server"
_AVAILABLE = get_model_status_pb2.ModelVersionStatus.State.AVAILABLE


def model_config(name: str, directory: StrPath, folder: StrPath) -> str:
    """The text of --model_config_file.

    Args:
        name: of the model.
        directory: folder of its versions, or a SavedModel.
        folder: where a folder of versions is made for a SavedModel that is not in one.
    """
    directory = Path(directory).resolve()
    config = model_server_config_pb2.ModelServerConfig()
    model = config.model_config_list.config.add(name=name, base_path=str(directory), model_platform="tensorflow")
    if (directory / "saved_model.pb").exists():
        (number,) = version_directories(directory)
        base = directory.parent
        if directory.name != str(number):
            base = Path(folder) / "versions"
            base.mkdir()
            (base / str(number)).symlink_to(directory)
        model.base_path = str(base)
        model.model_version_policy.specific.versions.append(number)
    return text_format.MessageToString(config)


def model_server_arguments(
    server_settings: ServerSettings, config_file: StrPath, batching_file: StrPath | None = None
) -> list[str]:
    """The program's options for `ServerSettings`; limits of requests that wait are those of batching alone."""
    options = {
        "port": server_settings.grpc_port,
        "rest_api_port": server_settings.rest_port,
        "model_config_file": config_file,
        "file_system_poll_wait_seconds": max(1, round(server_settings.poll_seconds)),
        "enable_grpc_healthcheck_service": "true",
    }
    if batching_file is not None:
        options |= {"enable_batching": "true", "batching_parameters_file": batching_file}
    return [f"--{name}={value}" for name, value in options.items()]


@contextlib.asynccontextmanager
async def model_server(
    name: str, directory: StrPath, server_settings: ServerSettings, batching_file: StrPath | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs the program as long as the context lasts.

    Args:
        name: of the model.
        directory: folder of its versions, or a SavedModel.
        server_settings: `ServerSettings`, of which it has no address and no limits.
        batching_file: --batching_parameters_file.

    Yields:
        The process.

    Raises:
        InputError: if it is not installed, or ends before the model is available.
    """
    if shutil.which(PROGRAM) is None:
        raise InputError(f"{PROGRAM}: found none on the PATH; expected TensorFlow Serving; install it, or leave it out")
    version_directories(directory)
    with tempfile.TemporaryDirectory(prefix="tf-fast-rcnn-serve-") as folder:
        config_file = Path(folder) / "models.config"
        config_file.write_text(model_config(name, directory, folder))
        process = await asyncio.create_subprocess_exec(
            PROGRAM, *model_server_arguments(server_settings, config_file, batching_file)
        )
        try:
            await _until_available(process, name, f"127.0.0.1:{server_settings.grpc_port}")
            yield process
        finally:
            await _end(process, server_settings.grace_seconds)


async def _until_available(process, name, address):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    async with grpc.aio.insecure_channel(address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        while process.returncode is None:
            with contextlib.suppress(grpc.aio.AioRpcError):
                status = await stub.GetModelStatus(request, timeout=1)
                if any(version.state == _AVAILABLE for version in status.model_version_status):
                    return
            await asyncio.sleep(0.2)
    raise InputError(
        f"{PROGRAM}: found that it ended with code {process.returncode}; expected it to serve; see its messages above"
    )


async def _end(process, seconds):
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
