"""`detect --watch`: finds objects in the images that appear in a folder."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tf_fast_rcnn.commands.common import start_tensorflow
from tf_fast_rcnn.commands.detect_video import NOT_WITH_FRAMES
from tf_fast_rcnn.data.image_files import is_image_file
from tf_fast_rcnn.data.images import read_image
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import PARTIAL_PREFIX, replacing_path

# Seconds between two looks at the folder. A file whose size did not change in between may be complete.
_INTERVAL = 0.5
_NOT_WITH_WATCH = (*NOT_WITH_FRAMES, "every", "proposals")
_COLUMNS = ("image", "class", "class_id", "score", "ymin", "xmin", "ymax", "xmax")


def run_watch(options: argparse.Namespace, load_predictor: Callable[[argparse.Namespace], Any]) -> None:
    """Runs `detect --watch`: until Ctrl-C, or until `--watch-seconds` pass without a new image."""
    if clashing := [name for name in _NOT_WITH_WATCH if getattr(options, name)]:
        raise InputError(f"--{clashing[0].replace('_', '-')} cannot be used with --watch; remove it")
    if len(options.images) != 1 or not os.path.isdir(options.images[0]):
        raise InputError(f"--watch: found {' '.join(options.images) or 'nothing'}; expected one folder; pass a folder")
    folder, out = Path(options.images[0]), Path(options.out) if options.out else None
    if out and out.resolve() == folder.resolve():
        raise InputError(f"{out}: drawings there would be taken for new images; choose another --out")
    if not (out or options.jsonl or options.csv):
        raise InputError("--watch: found no output; expected --out, --jsonl or --csv; add one")
    start_tensorflow()
    predictor = load_predictor(options)
    images = objects = 0
    started = time.monotonic()
    try:
        for path in new_images(folder, options.watch_seconds):
            found = predictor.detect(path)
            if out:
                with replacing_path(out / f"{path.name}.png") as temporary:
                    found.draw(min_score=options.draw_threshold).save(temporary)
            if options.jsonl:
                _append(options.jsonl, json.dumps({"image": str(path), "detections": found.to_dicts()}) + "\n")
            if options.csv:
                _append_rows(options.csv, [(path, e.class_name, e.class_id, e.score, *e.box.tolist()) for e in found])
            images, objects = images + 1, objects + len(found)
    except KeyboardInterrupt:
        pass
    print(f"{images} images, {objects} detections in {time.monotonic() - started:.0f} seconds")


def new_images(folder: Path, seconds: float | None = None) -> Iterator[Path]:
    """Yields each image of a folder once it is complete: of unchanged size, and readable.

    Args:
        folder: the folder; images in it at the start count too. Files whose name begins with a dot are ignored.
        seconds: end after so long without a new image; None for never.
    """
    sizes: dict[Path, int] = {}
    done: set[Path] = set()
    problems: dict[Path, InputError] = {}
    last = time.monotonic()
    while seconds is None or time.monotonic() - last < seconds:
        for path in sorted(folder.iterdir()):
            if path in done or path.name.startswith((".", PARTIAL_PREFIX)) or not is_image_file(path):
                continue
            size = path.stat().st_size
            if sizes.get(path) != size:
                sizes[path] = size
                problems.pop(path, None)
            elif path not in problems:
                try:
                    read_image(path)
                except InputError as error:  # read again when its size changes
                    problems[path] = error
                    continue
                done.add(path)
                yield path
                last = time.monotonic()
        time.sleep(_INTERVAL)
    for problem in problems.values():
        print(f"skipped: {problem}", file=sys.stderr)


def _append(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def _append_rows(path, rows):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if not file.tell():
            writer.writerow(_COLUMNS)
        writer.writerows(rows)
