"""`tf-fast-rcnn serve`: serves an exported model over gRPC and REST."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import shutil
import signal
import sys

from tf_fast_rcnn.commands.common import add_json_argument, number, start_tensorflow, write_result
from tf_fast_rcnn.commands.gateway_options import add_gateway_arguments, check_gateway_options, start_gateway
from tf_fast_rcnn.errors import InputError

EXAMPLES = """\
  tf-fast-rcnn serve export
  tf-fast-rcnn serve export/1 --name cells --rest-port 9001
  tf-fast-rcnn serve export --batching batching_parameters.txt --host 0.0.0.0
  tf-fast-rcnn serve export --with-proposals            # and a page at http://127.0.0.1:8502
  tf-fast-rcnn serve export --server tensorflow -- --monitoring_config_file=serving/monitoring.config
  tf-fast-rcnn serve --with-proposals --remote models.example.com:8500 --name cells --class-names class_names.txt

If tensorflow_model_server is on the PATH, it is used, with the options after --; otherwise the server embedded in this
package, which implements the same protocols and is meant for development, tests and small deployments. SIGTERM or
Ctrl-C stops either server after it has answered the requests in progress."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `serve`."""
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", help="a model's folder with versions 1, 2, ..., or a SavedModel"
    )
    parser.add_argument("--name", help="the model's name in requests (default: that of the folder)")
    parser.add_argument(
        "--server",
        choices=["auto", "embedded", "tensorflow"],
        default="auto",
        help="embedded: this package's; tensorflow: tensorflow_model_server; auto: the latter if it is on the PATH "
        "(default: auto)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    port = number(int, 0, 65535)
    parser.add_argument("--grpc-port", type=port, default=8500, metavar="N", help="0: any free port (default: 8500)")
    parser.add_argument("--rest-port", type=port, default=8501, metavar="N", help="0: any free port (default: 8501)")
    parser.add_argument(
        "--enable-cors", action="store_true", help="let pages of any site read the answers of REST (default: none)"
    )
    parser.add_argument(
        "--batching", metavar="FILE", help="batch requests; a file in the format of --batching_parameters_file"
    )
    _add_limits(parser)
    add_gateway_arguments(parser)
    add_json_argument(parser, "the addresses, once the server is ready,")


def _add_limits(parser):
    limits = parser.add_argument_group("limits of the embedded server")
    limits.add_argument(
        "--concurrency",
        type=number(int, 1),
        metavar="N",
        help="requests that run at the same time (default: one per core)",
    )
    limits.add_argument(
        "--queue",
        type=number(int, 0),
        default=32,
        metavar="N",
        help="requests that may wait; further ones are refused (default: 32)",
    )
    limits.add_argument(
        "--max-message-mb", type=number(int, 1, 2000), default=64, metavar="N", help="largest request (default: 64)"
    )
    limits.add_argument(
        "--poll-seconds",
        type=number(float, 0.05),
        default=1.0,
        metavar="X",
        help="interval between checks for new versions (default: 1)",
    )
    limits.add_argument(
        "--grace-seconds",
        type=number(float, 0),
        default=30.0,
        metavar="X",
        help="time for requests to finish when the server stops (default: 30)",
    )


def run(options: argparse.Namespace) -> None:
    """Runs `serve` with its parsed options."""
    check_gateway_options(options)
    start_tensorflow()
    _check_installed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    asyncio.run(_serve(options))


def _check_installed():
    try:
        import tf_fast_rcnn.serving.server  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"serve needs the Python package {error.name}, which is not installed; pip install 'tf-fast-rcnn[serving]'"
        ) from None


async def _serve(options):
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        addresses = await _start(options, stack, stop)
        lines = [f"{what:8} {address}" for what, address in addresses.items()]
        write_result(options, addresses, "\n".join(lines))
        sys.stdout.flush()
        await stop.wait()


async def _start(options, stack, stop):
    """Starts the servers that the options select; returns the addresses by purpose."""
    from tf_fast_rcnn.serving.server import socket_address
    from tf_fast_rcnn.serving.versions import model_name

    name = options.name or model_name(options.folder)
    server_settings = _server_settings(options)
    addresses = {"model": name}
    if options.remote:
        addresses["grpc"] = options.remote
    else:
        ports = await _start_server(options, stack, stop, name, server_settings)
        addresses["grpc"] = socket_address(options.host, ports["grpc"])
        addresses["rest"] = f"http://{socket_address(options.host, ports['rest'])}/v1/models/{name}"
    if options.with_proposals:
        port = await start_gateway(options, stack, name, addresses["grpc"], server_settings)
        addresses["page"] = f"http://{socket_address(options.host, port)}/"
        addresses["detect"] = f"{addresses['page']}v1/models/{name}:detect"
    return addresses


def _server_settings(options):
    from tf_fast_rcnn.serving.batching import read_batching_parameters
    from tf_fast_rcnn.serving.server import ServerSettings

    names = ("host", "grpc_port", "rest_port", "concurrency", "queue", "poll_seconds", "grace_seconds", "enable_cors")
    return ServerSettings(
        **{name: getattr(options, name) for name in names},
        max_message_bytes=options.max_message_mb << 20,
        batching=read_batching_parameters(options.batching) if options.batching else None,
    )


async def _start_server(options, stack, stop, name, server_settings):
    """Starts the embedded server, or TensorFlow Serving, whose end also stops this process; returns the ports."""
    from tf_fast_rcnn.serving.model_server import PROGRAM, model_server
    from tf_fast_rcnn.serving.server import embedded_server

    if options.server == "embedded" or (options.server == "auto" and not shutil.which(PROGRAM)):
        if options.server_options:
            raise InputError(
                f"{options.server_options[0]}: found an option of {PROGRAM} for the embedded server; expected options "
                "after -- only with --server tensorflow"
            )
        return await stack.enter_async_context(embedded_server(name, options.folder, server_settings))
    process, ports = await stack.enter_async_context(
        model_server(name, options.folder, server_settings, options.batching, options.server_options)
    )
    if options.host in _LOOPBACK:
        print(f"{PROGRAM} listens on every network interface; --server embedded does not", file=sys.stderr)
    watch = asyncio.create_task(_stop_with(process, stop))
    stack.callback(watch.cancel)
    return ports


async def _stop_with(process, stop):
    await process.wait()
    stop.set()
