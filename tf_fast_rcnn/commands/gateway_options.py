"""`tf-fast-rcnn serve --with-proposals`: the options of the gateway, and starting it."""

from __future__ import annotations

import argparse
import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tf_fast_rcnn.commands.common import number
from tf_fast_rcnn.data.proposals import METHODS, ProposalSettings, proposal_settings, settings_from_json
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    import contextlib

    from tf_fast_rcnn.serving.server import ServerSettings

_DEFAULT_METHOD = "selective-search"


def add_gateway_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the gateway's options."""
    group = parser.add_argument_group("gateway, for clients that send only an image")
    group.add_argument(
        "--with-proposals",
        action="store_true",
        help="compute proposals here: accept requests that contain only an image, and serve a web page",
    )
    group.add_argument(
        "--remote", metavar="HOST:PORT", help="gRPC address of a TensorFlow Serving that has the model, instead of DIR"
    )
    group.add_argument(
        "--gateway-port", type=number(int, 0, 65535), default=8502, metavar="N", help="0: any free port (default: 8502)"
    )
    group.add_argument(
        "--proposals", choices=METHODS, metavar="METHOD", help=f"{', '.join(METHODS)} (default: as in training)"
    )
    group.add_argument(
        "--max-proposals", type=number(int, 1), metavar="N", help="use only the first N of each image (default: all)"
    )
    group.add_argument(
        "--workers",
        type=number(int, 1),
        metavar="N",
        help="processes that compute proposals (default: one per core)",
    )
    group.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name of this server in requests, such as a proxy's; * for any (default: that of --host)",
    )
    group.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="a further site whose pages may use the gateway, such as http://localhost:3000; * for any (default: none)",
    )
    group.add_argument(
        "--class-names", metavar="FILE", help="with --remote: one name per line, like the export's class_names.txt"
    )


async def start_gateway(
    options: argparse.Namespace,
    stack: contextlib.AsyncExitStack,
    name: str,
    grpc_address: str,
    server_settings: ServerSettings,
) -> int:
    """Starts the gateway; returns its port.

    Args:
        options: the command's parsed options.
        stack: stops the gateway when it is closed.
        name: the model's name.
        grpc_address: "HOST:PORT" of the server.
        server_settings: the host, queue, largest message and grace period also apply to the gateway.
    """
    from tf_fast_rcnn.serving.gateway import Gateway, gateway_application
    from tf_fast_rcnn.serving.limits import Limits
    from tf_fast_rcnn.serving.proposal_workers import ProposalWorkers
    from tf_fast_rcnn.serving.server import listening
    from tf_fast_rcnn.serving.sites import Sites

    number_of = options.workers or len(os.sched_getaffinity(0))
    limits = Limits(number_of, server_settings.queue)
    workers = ProposalWorkers(number_of, _chosen_proposals(options), options.max_proposals)
    stack.callback(workers.stop)
    gateway = Gateway(name, grpc_address, workers, limits, _class_names(options))
    stack.push_async_callback(gateway.close)
    sites = Sites(options.host, options.allow_host, options.allow_origin)
    application = gateway_application(gateway, limits, server_settings.max_message_bytes, sites)
    return await stack.enter_async_context(
        listening(application, options.host, options.gateway_port, server_settings.grace_seconds)
    )


def _chosen_proposals(options):
    """The method of `--proposals`; by default that of training, if it can be computed."""
    if options.proposals is None and options.folder is not None:
        from tf_fast_rcnn.serving.versions import version_directories

        latest = max(version_directories(options.folder).items())[1]
        trained = _trained_proposals(latest / "assets" / "metadata.json")
        if isinstance(trained, ProposalSettings):
            return trained
    return proposal_settings(options.proposals or _DEFAULT_METHOD, dataset=())


def _trained_proposals(path):
    """The proposals recorded in an export's metadata.json, or None."""
    if not path.is_file():
        return None
    training = json.loads(path.read_text()).get("training") or {}
    return settings_from_json(training["run"]["proposals"]) if "run" in training else None


def _class_names(options):
    """A function from a version's number to the names of its classes, or () if they are not known."""
    if options.folder is None:
        names = _lines(options.class_names) if options.class_names else ()
        return lambda version: names

    from tf_fast_rcnn.serving.versions import version_directories

    @functools.cache
    def of_version(version):
        directory = version_directories(options.folder).get(version)
        return _lines(directory / "assets" / "class_names.txt") if directory else ()

    return of_version


def _lines(path):
    try:
        return tuple(Path(path).read_text().splitlines())
    except FileNotFoundError:
        return ()


def check_gateway_options(options: argparse.Namespace) -> None:
    """Raises InputError for options that cannot be combined."""
    if bool(options.folder) == bool(options.remote):
        found = "both" if options.folder else "neither"
        raise InputError(f"DIR and --remote: found {found}; pass exactly one of them, to select the model")
    if options.remote and not options.with_proposals:
        raise InputError(
            "--remote requires --with-proposals (only the gateway forwards requests to another server); add it"
        )
    if options.remote and not options.name:
        raise InputError("--remote needs the name of the model on the remote server; pass --name")
    if options.class_names and not Path(options.class_names).is_file():
        raise InputError(f"{options.class_names}: no such file; expected one class name per line; fix --class-names")
