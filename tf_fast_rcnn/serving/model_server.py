"""The TensorFlow Serving binary, if installed: configuration, start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
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
    """The content of --model_config_file.

    Args:
        name: name of the model.
        directory: folder of its versions, or a SavedModel.
        folder: folder in which to create a version folder for a SavedModel that is not in one.
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
    server_settings: ServerSettings,
    config_file: StrPath,
    batching_file: StrPath | None = None,
    more_options: Sequence[str] = (),
) -> list[str]:
    """Command-line options for `ServerSettings`; only the batching parameters limit the number of waiting requests.

    Args:
        server_settings: `ServerSettings`, with ports.
        config_file: file for --model_config_file.
        batching_file: file for --batching_parameters_file.
        more_options: further options, "--NAME=VALUE".

    Raises:
        InputError: if one of `more_options` is not an option, or is one of those set here.
    """
    options = {
        "port": server_settings.grpc_port,
        "rest_api_port": server_settings.rest_port,
        "model_config_file": config_file,
        "file_system_poll_wait_seconds": max(1, round(server_settings.poll_seconds)),
        "enable_grpc_healthcheck_service": "true",
    }
    if batching_file is not None:
        options |= {"enable_batching": "true", "batching_parameters_file": batching_file}
    if server_settings.enable_cors:
        options["rest_api_enable_cors_support"] = "true"
    for option in more_options:
        name = option.removeprefix("--").split("=")[0]
        if not option.startswith("--"):
            raise InputError(f"{option}: found no option of {PROGRAM}; expected --NAME=VALUE after --")
        if name in options:
            raise InputError(f"{option}: found an option that serve sets itself (to {options[name]}); leave it out")
    return [*(f"--{name}={value}" for name, value in options.items()), *more_options]


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens, because TensorFlow Serving cannot choose one itself."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.asynccontextmanager
async def model_server(
    name: str,
    directory: StrPath,
    server_settings: ServerSettings,
    batching_file: StrPath | None = None,
    more_options: Sequence[str] = (),
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, int]]]:
    """Runs the binary until the context exits.

    Args:
        name: name of the model.
        directory: folder of its versions, or a SavedModel.
        server_settings: `ServerSettings`; the host and the limits are ignored.
        batching_file: file for --batching_parameters_file.
        more_options: further options of the binary, "--NAME=VALUE".

    Yields:
        `(process, ports)`: the process, and a dict with the ports "grpc" and "rest".

    Raises:
        InputError: if TensorFlow Serving is not installed, or exits before the model is available; if one of
            `more_options` is not an option, or is set here.
    """
    grpc_port, rest_port = free_ports(2)
    server_settings = dataclasses.replace(
        server_settings,
        grpc_port=server_settings.grpc_port or grpc_port,
        rest_port=server_settings.rest_port or rest_port,
    )
    if shutil.which(PROGRAM) is None:
        raise InputError(
            f"{PROGRAM}: found none on the PATH; expected TensorFlow Serving; install it, or use the embedded server"
        )
    version_directories(directory)
    with tempfile.TemporaryDirectory(prefix="tf-fast-rcnn-serve-") as folder:
        config_file = Path(folder) / "models.config"
        config_file.write_text(model_config(name, directory, folder))
        process = await asyncio.create_subprocess_exec(
            PROGRAM, *model_server_arguments(server_settings, config_file, batching_file, more_options)
        )
        try:
            await _until_available(process, name, f"127.0.0.1:{server_settings.grpc_port}")
            yield process, {"grpc": server_settings.grpc_port, "rest": server_settings.rest_port}
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
    raise InputError(f"{PROGRAM}: exited with code {process.returncode} before it was ready; see its output above")


async def _end(process, seconds):
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
