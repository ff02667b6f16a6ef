#!/usr/bin/env python
"""Load test for a server with requests of one image, over gRPC or REST: TensorFlow Serving or `tf-fast-rcnn serve`.

    python serving/load_test.py --model cells --image cell.jpg --grpc localhost:8500 --clients 8 --seconds 30
    python serving/load_test.py --model cells --image cell.jpg --rest http://localhost:8501 --rate 20 --seconds 600

With --clients, each client waits for the response before it sends its next request (closed loop). With --rate, requests
are sent at random times, independently of earlier responses (open loop), and latency is measured from the scheduled
time. The proposals are random boxes. If the server runs on this machine, its memory is monitored. Requires

    pip install 'tf-fast-rcnn[serving]'

The exit code is 1 if a request failed. Requests that an overloaded server rejects (UNAVAILABLE, 503) are not failures.
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
    """Random boxes, float32 `[number, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image."""
    corners = np.random.default_rng(seed).uniform(0, 1, (2, number, 2)).astype(np.float32)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)


async def load(options):
    """Runs the load test; returns its `Load.summary`."""
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
    """The summary as readable text."""
    lines = [f"{name:10}{summary[name]}" for name in ("asked", "answered", "refused", "failed")]
    lines.append(f"{summary['throughput']:.2f} responses per second")
    lines.append(", ".join(f"p{share} {summary[f'p{share}_ms']:.1f} ms" for share in (50, 95, 99)))
    lines += [f"{count} x {status}" for status, count in summary["statuses"].items()]
    if memory := summary["memory_mb"]:
        lines.append(
            f"server memory: {memory[0]:.0f} MB at the start, {max(memory):.0f} MB peak, {memory[-1]:.0f} MB at the end"
        )
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name of the model on the server")
    parser.add_argument("--image", required=True, metavar="FILE", help="JPEG or PNG")
    server = parser.add_mutually_exclusive_group(required=True)
    server.add_argument("--grpc", metavar="HOST:PORT")
    server.add_argument("--rest", metavar="http://HOST:PORT")
    parser.add_argument("--clients", type=int, default=1, metavar="N", help="number of clients (default: 1)")
    parser.add_argument("--rate", type=float, metavar="X", help="requests per second, instead of --clients")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="X", help="duration (default: 10)")
    parser.add_argument("--proposals", type=int, default=300, metavar="N", help="proposals per image (default: 300)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of proposals and times (default: 0)")
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE as JSON; - for standard output")
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
