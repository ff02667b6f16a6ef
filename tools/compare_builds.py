"""Times a training step and detection of two or more builds of this package, alternating between them.

    git worktree add ../old COMMIT && (cd ../old && ../here/.venv/bin/python setup.py build_ext --inplace)
    python tools/compare_builds.py cells/JPEGImages --build old ../old runs/old --build new . runs/new
    python tools/compare_builds.py cells/JPEGImages --build off . runs/new TF_ENABLE_ONEDNN_OPTS=0 --build on . runs/new

`--build NAME CHECKOUT RUN [VARIABLE=VALUE ...]` is a contestant: its source tree, a run that this source tree can read
(often one that it trained), and environment variables. Each contestant lives in a process of its own, and they take
turns, so that other load on the machine disturbs all of them equally. Ratios are medians over the first contestant's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

# Runs in each contestant, so it may use only what all builds have. It answers each line on stdin with seconds.
WORKER = """
import os, sys, time
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import numpy as np
import tensorflow as tf
import tf_fast_rcnn as frcnn

run, images = frcnn.load_run(sys.argv[1]), sys.argv[2:]
model, settings = run.model, frcnn.detection_settings(run)
rng = np.random.default_rng(0)
pixels = rng.uniform(0, 255, (2, 480, 640, 3)).astype(np.float32)
corners = rng.uniform(0, [400, 540], (2, 64, 2))
rois = np.concatenate([corners, corners + rng.uniform(20, [80, 100], (2, 64, 2))], -1).astype(np.float32)
labels = rng.integers(0, len(run.class_names) + 1, (2, 64)).astype(np.int32)
targets = np.concatenate([labels[..., None], rng.normal(0, 0.1, (2, 64, 4))], -1).astype(np.float32)
inputs = {"images": tf.constant(pixels), "rois": tf.constant(rois)}
outputs = {"class_logits": tf.constant(labels), "box_deltas": tf.constant(targets)}

def train():
    trained.train_on_batch(inputs, outputs)

def detect():
    for image in images:
        frcnn.detect(model, image, settings=settings, proposals=run.proposals)

trained = frcnn.load_run(sys.argv[1]).model
trained.compile(frcnn.sgd(1e-9), loss=frcnn.multi_task_loss(trained), jit_compile=False)
for what in sys.stdin:
    function = {"train": train, "detect": detect}[what.strip()]
    started = time.perf_counter()
    function()
    print((time.perf_counter() - started) / (len(images) if function is detect else 1), file=answers, flush=True)
"""


class Contestant:
    """A worker process of one build."""

    def __init__(self, checkout, run, variables, images):
        path = str(Path(checkout).resolve())
        environment = os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2"} | variables
        command = [sys.executable, "-c", WORKER, str(Path(run).resolve()), *map(str, images)]
        self._process = subprocess.Popen(
            command, cwd=path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self, what):
        print(what, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"compare_builds: the process of {self._process.args[3]} ended")
        return float(answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of JPEG images to detect in")
    parser.add_argument("--build", nargs="+", action="append", required=True, metavar="NAME CHECKOUT RUN VAR=VALUE")
    parser.add_argument("--what", nargs="+", choices=("train", "detect"), default=["train", "detect"])
    parser.add_argument("--images", type=int, default=4, help="number of images (default: 4)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    images = sorted(options.folder.resolve().glob("*.jp*g"))[: options.images]
    if not images:
        parser.error(f"{options.folder}: contains no JPEG image; expected a folder of images")
    contestants = {}
    for name, checkout, run, *variables in options.build:
        contestants[name] = Contestant(checkout, run, dict(pair.split("=", 1) for pair in variables), images)
    results = {}
    for what in options.what:
        seconds = {name: [] for name in contestants}
        for turn in tqdm(range(options.rounds + 2), what, unit="round"):
            for name, contestant in contestants.items():
                measured = contestant.seconds(what)
                if turn > 1:  # the first two rounds warm up
                    seconds[name].append(measured)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        first = next(iter(medians.values()))
        for name, median in medians.items():
            best, ratio = min(seconds[name]), first / median
            print(f"{what:8} {name:12} {median:.4f} s  best {best:.4f} s  {ratio:.2f} times as fast")
        results[what] = seconds
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
