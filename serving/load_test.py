#!/usr/bin/env python
"""Loads a server with requests of one image, and says what came of them: any TensorFlow Serving, over gRPC or REST.

    python serving/load_test.py --model cells --image cell.jpg --grpc localhost:8500 --clients 8 --seconds 30
    python serving/load_test.py --model cells --image cell.jpg --rest http://localhost:8501 --rate 20 --seconds 600

With --clients each client waits for its answer before it sends the next request (closed loop); with --rate requests
come at random times, whatever becomes of the others (open loop), and a request's time counts from when it was due. The
proposals are random boxes. Where the server runs on this machine its memory is watched. Needs

    pip install 'tf-fast-rcnn[serving]'

Ends with code 1 where a request failed: one that a full server refused at once (UNAVAILABLE, 503) has not.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from tf_fast_rcnn.benchmarks.load import GrpcLoad, RestLoad, closed_loop, detector_inputs, open_loop, server_process


def random_boxes(number, seed):
    """Boxes float32 `[number, 4]`, relative, all over the image."""
    corners = np.random.default_rng(seed).uniform(0, 1, (2, number, 2)).astype(np.float32)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)


async def load(options):
    """The `Load.summary` that the options ask for."""
    inputs = detector_inputs(Path(options.image).read_bytes(), random_boxes(options.proposals, options.seed))
    if options.rest:
        port, server = urlsplit(options.rest).port, RestLoad(f"{options.rest}/v1/models/{options.model}", inputs)
    else:
        port, server = int(options.grpc.rpartition(":")[2]), GrpcLoad(options.grpc, options.model, inputs)
    pid = server_process(port)
    async with server as ask:
        if options.rate:
            found = await open_loop(ask, options.rate, options.seconds, options.seed, pid)
        else:
            found = await closed_loop(ask, options.clients, options.seconds, pid)
    return found.summary()


def table(summary):
    """The summary for people."""
    lines = [f"{name:10}{summary[name]}" for name in ("asked", "answered", "refused", "failed")]
    lines.append(f"{summary['throughput']:.2f} answers a second")
    lines.append(", ".join(f"p{share} {summary[f'p{share}_ms']:.1f} ms" for share in (50, 95, 99)))
    lines += [f"{count} x {status}" for status, count in summary["statuses"].items()]
    if memory := summary["memory_mb"]:
        lines.append(
            f"memory of the server: {memory[0]:.0f} MB at first, at most {max(memory):.0f}, {memory[-1]:.0f} last"
        )
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="its name")
    parser.add_argument("--image", required=True, metavar="FILE", help="JPEG or PNG")
    server = parser.add_mutually_exclusive_group(required=True)
    server.add_argument("--grpc", metavar="HOST:PORT")
    server.add_argument("--rest", metavar="http://HOST:PORT")
    parser.add_argument("--clients", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--rate", type=float, metavar="X", help="requests a second, in place of clients")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="X", help="default: 10")
    parser.add_argument("--proposals", type=int, default=300, metavar="N", help="of the image (default: 300)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of proposals and times (default: 0)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there; - for standard output")
    options = parser.parse_args(arguments)
    summary = asyncio.run(load(options))
    if options.json == "-":
        print(json.dumps(summary, indent=2))
    else:
        print(table(summary))
        if options.json:
            Path(options.json).write_text(json.dumps(summary, indent=2) + "\n")
    return int(summary["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
