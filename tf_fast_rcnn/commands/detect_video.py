"""`detect` for video files: detections of each frame as JSON lines and CSV, and an annotated video."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tf_fast_rcnn.commands.common import number, start_tensorflow
from tf_fast_rcnn.commands.proposal_options import proposals_of_images
from tf_fast_rcnn.data.proposals import METHODS
from tf_fast_rcnn.data.video import frame_rate, in_chunks, is_video_file, read_video, writing_video
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import StrPath, replacing_path

# Options that only go with images, and those that only go with videos.
NOT_WITH_FRAMES = (
    "data", "classify_regions", "json", "coco_results", "category_ids", "comp4", "save_as", "save_to", "image_url",
    "skip_bad", "workers", "cache",
)  # fmt: skip
_NOT_WITH_VIDEOS = (*NOT_WITH_FRAMES, "watch_seconds")
_ONLY_WITH_VIDEOS = ("every", "jsonl", "csv", "watch_seconds")
_COLUMNS = ("video", "frame", "seconds", "class", "class_id", "score", "ymin", "xmin", "ymax", "xmax")


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `detect` that only go with video files."""
    parser.add_argument("--every", type=number(int, 1), metavar="N", help="videos: only each Nth frame (default: 1)")
    parser.add_argument("--watch", action="store_true", help="detect the images that appear in a folder, until Ctrl-C")
    parser.add_argument(
        "--watch-seconds",
        type=number(float, 0, above=True),
        metavar="N",
        help="end --watch after N seconds without a new image",
    )
    parser.add_argument(
        "--jsonl", metavar="FILE", help="videos and --watch: write the detections as JSON, one line per frame"
    )
    parser.add_argument(
        "--csv", metavar="FILE", help="videos and --watch: write the detections as CSV, one row per detection"
    )


def has_videos(options: argparse.Namespace) -> bool:
    """Whether the inputs are video files.

    Raises:
        InputError: for videos together with images, and for options that do not go with the inputs.
    """
    videos = [path for path in options.images if is_video_file(path)]
    clashing = [name for name in (_NOT_WITH_VIDEOS if videos else _ONLY_WITH_VIDEOS) if getattr(options, name)]
    if clashing:
        kind = "images" if videos else "videos"
        raise InputError(f"--{clashing[0].replace('_', '-')} is only used with {kind}; remove it")
    if videos and len(videos) < len(options.images):
        raise InputError(f"{videos[0]}: found a video among images; expected one kind; run them separately")
    return bool(videos)


def run_videos(options: argparse.Namespace, load_predictor: Callable[[argparse.Namespace], Any]) -> None:
    """Runs `detect` on video files; `load_predictor` returns the `Predictor` of the options."""
    every = options.every or 1
    rates = {path: frame_rate(path) / every for path in options.images}  # before the slow start
    drawn = _drawn_paths(options)
    start_tensorflow()
    predictor = load_predictor(options)
    proposals = _proposals(options, predictor)
    started, frames, objects = time.monotonic(), 0, 0
    with contextlib.ExitStack() as files:
        write_line = files.enter_context(_json_lines(options.jsonl))
        write_rows = files.enter_context(_csv_rows(options.csv))
        bar = files.enter_context(tqdm(desc="detect", unit="frame", delay=2))
        for path in options.images:
            with writing_video(drawn[path], rates[path]) if drawn else contextlib.nullcontext() as video:
                for frame, seconds, found in _detections(predictor, proposals, path, every, options.batch_size):
                    write_line({"video": path, "frame": frame, "seconds": seconds, "detections": found.to_dicts()})
                    write_rows([_row(path, frame, seconds, each) for each in found])
                    if video:
                        video.write(_drawing(found, options.draw_threshold), seconds)
                    frames, objects = frames + 1, objects + len(found)
                    bar.update()
    rate = frames / max(time.monotonic() - started, 1e-9)
    written = [str(path) for path in (*drawn.values(), options.jsonl, options.csv) if path]
    print(f"{frames} frames, {objects} detections, {rate:.1f} frames per second; written to {', '.join(written)}")


def _detections(predictor, proposals, path, every, batch_size):
    """Frame number, seconds and `Detections` of each frame; only one batch is in memory."""
    for chunk in in_chunks(read_video(path, every), batch_size):
        images = [frame for _, _, frame in chunk]
        found = predictor.detect(images, proposals, batch_size=batch_size, progress=False)
        for (frame, seconds, _), each in zip(chunk, found, strict=True):
            yield frame, seconds, each


def _proposals(options, predictor):
    if options.proposals and options.proposals not in METHODS:
        raise InputError(
            f"--proposals: found the file {options.proposals}; videos need one of {', '.join(METHODS)}; pass a method"
        )
    return proposals_of_images(options, (), predictor.proposals)


def _drawn_paths(options) -> dict[str, Path]:
    """The annotated video of each input; none if there is another output and no --out."""
    if not options.out and (options.jsonl or options.csv):
        return {}
    drawn = {path: Path(options.out or "detections") / f"{Path(path).stem}.mp4" for path in options.images}
    if len(set(drawn.values())) < len(drawn):
        raise InputError("videos: found two of the same name; expected different ones; run them separately")
    inputs = {Path(path).resolve() for path in options.images}
    if overwritten := [path for path in drawn.values() if path.resolve() in inputs]:
        raise InputError(f"{overwritten[0]}: writing here would overwrite an input video; choose another --out")
    return drawn


def _drawing(found, threshold):
    import numpy as np

    return np.asarray(found.draw(min_score=threshold))


def _row(path, frame, seconds, found):
    return (path, frame, seconds, found.class_name, found.class_id, found.score, *found.box.tolist())


@contextlib.contextmanager
def _json_lines(path: StrPath | None) -> Iterator[Callable[[dict[str, Any]], object]]:
    """A function that writes a value as a line of JSON; it does nothing without a path."""
    if not path:
        yield lambda value: None
        return
    with replacing_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        yield lambda value: file.write(json.dumps(value) + "\n")


@contextlib.contextmanager
def _csv_rows(path: StrPath | None) -> Iterator[Callable[[list[tuple]], object]]:
    """A function that writes rows of CSV; it does nothing without a path."""
    if not path:
        yield lambda rows: None
        return
    with replacing_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        yield writer.writerows
