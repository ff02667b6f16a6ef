"""`tf-fast-rcnn detect`: detects objects in images, draws them and writes result files."""

import argparse
import glob
import os
import sys
import time
from pathlib import Path

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import (
    SOURCES,
    add_json_argument,
    check_new,
    given_options,
    load_images,
    number,
    start_tensorflow,
    write_result,
)
from tf_fast_rcnn.commands.detect_video import add_video_arguments, has_videos, run_videos
from tf_fast_rcnn.commands.detect_watch import run_watch
from tf_fast_rcnn.commands.detection_options import add_detection_arguments, changed_settings
from tf_fast_rcnn.commands.proposal_options import (
    add_file_arguments,
    proposals_of_images,
    read_file,
    with_chosen_proposals,
)
from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.image_files import images_in, is_image_file, no_images
from tf_fast_rcnn.data.images import image_layout, read_image
from tf_fast_rcnn.data.proposals import METHODS, FileProposals
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.data.specs import coco_file, split_name
from tf_fast_rcnn.data.writers.convert import SAVE_KINDS
from tf_fast_rcnn.data.writers.label_studio import LOCAL_FILES
from tf_fast_rcnn.errors import InputError, in_one_go
from tf_fast_rcnn.files import replacing_path, write_json

EXAMPLES = """\
  tf-fast-rcnn detect runs/cells cells/*.jpg --out detections
  tf-fast-rcnn detect runs/cells photos 'more/**/*.png' --json found.json
  tf-fast-rcnn detect runs/cells cell.jpg --proposals boxes.npy --json -
  tf-fast-rcnn detect runs/voc12 --data voc:VOCdevkit/VOC2012@test --comp4 results/VOC2012/Main
  tf-fast-rcnn detect runs/coco --data coco:image_info_test-dev2017.json,test2017 --coco-results results.json
  tf-fast-rcnn detect runs/cells cells --shorter-side 480,600,800 --box-refinement-steps 2 --classes WBC,RBC
  tf-fast-rcnn detect runs/pages page.png --classify-regions boxes.npy --json -
  tf-fast-rcnn detect runs/cells new --save-as label-studio --save-to to-correct
  tf-fast-rcnn detect runs/cars street.mp4 --every 5 --out drawn --jsonl street.jsonl --csv street.csv
  tf-fast-rcnn detect cells.tflite cells/*.jpg --out detections
  tf-fast-rcnn detect models/cells cells/*.jpg                                  # an exported SavedModel
  tf-fast-rcnn detect grpc://127.0.0.1:8500/cells cells --class-names class_names.txt --proposals dense"""

# Options that --classify-regions does not go with.
_NOT_WITH_REGIONS = ("data", "proposals", "out", "coco_results", "comp4", "save_as")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `detect`."""
    parser.add_argument("folder", metavar="MODEL", help=SOURCES)
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="image files, folders of image files, or quoted patterns (** matches subfolders); or video files",
    )
    parser.add_argument(
        "--data", metavar="SPEC", help="a dataset instead of IMAGEs; for voc: and coco:, annotations are optional"
    )
    parser.add_argument(
        "--proposals",
        metavar="METHOD|FILE",
        help=f"object proposals: {', '.join(METHODS)}, or a file with proposals by image file name, or .npy for one "
        "image (default: computed as in training, or selective-search+dense if that is unknown)",
    )
    parser.add_argument(
        "--classify-regions",
        metavar="FILE",
        help="classify the boxes of this file (as for --proposals) instead of detecting objects",
    )
    add_file_arguments(parser)
    parser.add_argument(
        "--class-names", metavar="FILE", help="class names of a server's model: one per line, class 1 first"
    )
    add_detection_arguments(parser)
    parser.add_argument(
        "--batch-size", type=number(int, 1), default=1, metavar="N", help="images per batch (default: 1)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the drawn images (default: detections, if there is no other output)"
    )
    parser.add_argument(
        "--draw-threshold",
        type=number(float, 0, 1),
        default=0.5,
        metavar="X",
        help="minimum score for drawing a detection (default: 0.5)",
    )
    parser.add_argument("--coco-results", metavar="FILE", help="write the detections as COCO's results JSON")
    parser.add_argument(
        "--category-ids",
        metavar="JSON",
        help="COCO file with the category ids for --coco-results (default: that of --data coco:, otherwise 1, 2, ...)",
    )
    parser.add_argument("--comp4", metavar="DIR", help="write the detections there as VOC's comp4_det_SPLIT_CLASS.txt")
    parser.add_argument("--skip-bad", action="store_true", help="go on without unreadable images, and report them")
    parser.add_argument(
        "--save-as",
        choices=SAVE_KINDS,
        metavar="KIND",
        help=f"write the detections as annotations to correct in an annotation tool: {', '.join(SAVE_KINDS)}",
    )
    parser.add_argument("--save-to", metavar="DIR", help="new folder for --save-as (default: annotations-KIND)")
    parser.add_argument(
        "--image-url",
        metavar="URL",
        help=f"for --save-as label-studio: what the images' addresses begin with (default: {LOCAL_FILES})",
    )
    parser.add_argument(
        "--workers", type=number(int, 1), metavar="N", help="number of processes that compute the proposals of --data"
    )
    parser.add_argument("--cache", metavar="DIR", help="folder for cached proposals and images of --data")
    add_json_argument(parser, "all detections")
    add_video_arguments(parser)


def run(options: argparse.Namespace) -> None:
    """Runs `detect` with its parsed options."""
    if bool(options.images) == bool(options.data):
        found = "both" if options.images else "neither"
        raise InputError(f"IMAGE and --data: found {found}; expected one of them; pass images or a dataset")
    if options.watch:
        return run_watch(options, _predictor)
    if has_videos(options):
        return run_videos(options, _predictor)
    _check_save_options(options)
    paths = _readable(_image_paths(options.images), options.skip_bad)
    out = _drawing_folder(options)
    pictures = _picture_paths(paths, out) if out and paths else None
    start_tensorflow()
    predictor = _predictor(options)
    if options.classify_regions:
        return _classify_regions(options, predictor, paths)
    dataset, found_in = (
        _data_detections(options, predictor) if options.data else _file_detections(options, predictor, paths)
    )
    _check_outputs(options, dataset)
    if pictures is None and out:
        pictures = _picture_paths([Path(record.image_id) for record in dataset], out)
    started, detections = time.monotonic(), []
    for index, found in enumerate(found_in):
        detections.append(found)
        if pictures:
            _draw(found, options.draw_threshold, pictures[index])
    rate = len(detections) / max(time.monotonic() - started, 1e-9)
    _write_files(options, dataset, detections)
    results = [
        {"image": str(record.image_path), "detections": found.to_dicts()}
        for record, found in zip(dataset, detections, strict=True)
    ]
    write_result(options, results, _summary(options, predictor, detections, rate, out))


def _summary(options, predictor, detections, rate, out):
    text = f"{len(detections)} images, {sum(map(len, detections))} detections"
    if predictor.settings is not None:
        text += f" with a score above {predictor.settings.score_threshold}"
    text += f", {rate:.1f} images per second"
    written = [f"drawn in {out}"] if out else []
    written += [f"written to {path}" for path in (options.coco_results, options.comp4, _save_folder(options)) if path]
    return "; ".join([text, *written])


def _save_folder(options):
    """The folder of --save-as; None without it."""
    return (options.save_to or f"annotations-{options.save_as}") if options.save_as else None


def _check_save_options(options):
    for name, kinds in (("save_to", SAVE_KINDS), ("image_url", ("label-studio",))):
        if getattr(options, name) and options.save_as not in kinds:
            raise InputError(
                f"--{name.replace('_', '-')} is only used with --save-as {'|'.join(kinds)}; add that, or remove this"
            )
    if options.save_as:
        check_new(_save_folder(options), "--save-to")


def _predictor(options):
    """The detector. A RUN gets the settings of the options; for other models such options are an InputError."""
    names = _lines(options.class_names) if options.class_names else None
    predictor = frcnn.Predictor.load(options.folder, class_names=names)
    if predictor.adjustable:
        return predictor.with_settings(**changed_settings(options, predictor))
    given = given_options(options, add_detection_arguments)
    if given:
        raise InputError(
            f"{given[0]}: {options.folder} is not a RUN, and the settings of an exported model are fixed; leave the "
            "option out, or pass it to `export`"
        )
    return predictor


def _lines(path):
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: found {error}; expected class names, one per line; correct the path") from None


def _drawing_folder(options):
    """The folder for drawn images; None if none are drawn."""
    if options.out:
        return Path(options.out)
    others = options.json == "-" or options.data or options.classify_regions
    others = others or options.coco_results or options.comp4 or options.save_as
    return None if others else Path("detections")


def _image_paths(arguments):
    """The image files of the arguments, which are files, folders and patterns."""
    paths = []
    for argument in arguments:
        if os.path.isdir(argument):
            found = images_in(argument)
        elif glob.has_magic(argument) and not os.path.exists(argument):
            found = [entry for entry in map(Path, sorted(glob.glob(argument, recursive=True))) if is_image_file(entry)]
        else:
            found = [argument]
        if not found:
            raise no_images(argument)
        paths += map(str, found)
    return paths


def _readable(paths, skip_bad):
    """The images that can be read; without `skip_bad`, an InputError for all others. They are decoded now, so that no
    detection is lost to a file that comes after it."""
    readable, problems = [], []
    for path in paths:
        try:
            read_image(path)
            readable.append(path)
        except InputError as error:
            problems.append(str(error))
    if problems and not (skip_bad and readable):
        raise in_one_go(problems, "images")
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)
    return readable


def _picture_paths(images, out):
    """The path of each drawing: STEM.png, or STEM-2.png, ... if images of several folders share a name."""
    pictures, taken = [], set()
    for image in images:
        stem, number_ = Path(image).stem, 1
        path = out / f"{stem}.png"
        while path in taken:
            number_ += 1
            path = out / f"{stem}-{number_}.png"
        taken.add(path)
        pictures.append(path)
    inputs = {Path(image).resolve() for image in images}
    if overwritten := [path for path in pictures if path.resolve() in inputs]:
        raise InputError(f"{overwritten[0]}: writing here would overwrite an input image; choose another --out")
    return pictures


def _file_detections(options, predictor, paths):
    """The files as a dataset without annotations, and an iterator over their `Detections`."""
    from tf_fast_rcnn.inference.detect import unannotated

    records = [unannotated(path, *image_layout(path)[:2]) for path in paths]
    proposals = proposals_of_images(options, records, predictor.proposals)
    if isinstance(proposals, FileProposals):
        for record in records:
            proposals.of(record)
    names = predictor.class_names
    if names is None and (options.coco_results or options.comp4 or options.save_as):
        raise InputError(
            f"{options.folder}: servers do not report class names, which --coco-results, --comp4 and --save-as need; "
            "pass --class-names FILE"
        )
    dataset = DetectionDataset("images", names or (), [_named_by_stem(record) for record in records])
    return dataset, predictor.detect_each(paths, proposals, batch_size=options.batch_size)


def _named_by_stem(record):
    """The image's record with the id that VOC and COCO result files use: the file name without its extension."""
    return ImageRecord(Path(record.image_path).stem, record.image_path, record.height, record.width, [], [], [])


def _data_detections(options, predictor):
    """The dataset of --data, and an iterator over the `Detections` of its images."""
    dataset = load_images(options.data, options, predictor.class_names)
    dataset = with_chosen_proposals(options, dataset, predictor.proposals)
    return dataset, predictor.detect_each(dataset, batch_size=options.batch_size)


def _check_outputs(options, dataset):
    """Checks before the slow detection what would otherwise only fail after it."""
    from tf_fast_rcnn.data.writers.coco_results import check_category_ids

    if options.coco_results:
        category_ids = _category_ids(options)
        if category_ids is not None:
            check_category_ids(dataset, category_ids)
    if options.coco_results or options.comp4 or options.save_as:
        names = [record.image_id for record in dataset]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else ()
        if twice:
            raise InputError(
                f"images: found {twice[0]!r} twice; image names must be unique, because result files identify images "
                "by name; run one folder at a time"
            )


def _category_ids(options):
    path = options.category_ids or (coco_file(options.data) if options.data else None)
    return frcnn.coco_category_ids(path) if path else None


def _write_files(options, dataset, detections):
    from tf_fast_rcnn.evaluation.detection_files import write_comp4

    if options.coco_results:
        write_json(options.coco_results, frcnn.coco_results(dataset, detections, _category_ids(options)))
    if options.save_as:
        frcnn.save_detections(
            dataset,
            detections,
            _save_folder(options),
            options.save_as,
            class_names=dataset.class_names,
            image_url=options.image_url or LOCAL_FILES,
            model_version=os.path.basename(os.path.normpath(options.folder)),
        )
    if options.comp4:
        split = split_name(options.data or "") or "test"
        write_comp4(options.comp4, dataset, detections, dataset.class_names, split=split)


def _classify_regions(options, predictor, paths):
    """Writes the class probabilities of the boxes of --classify-regions."""
    from tf_fast_rcnn.inference.detect import unannotated

    clashing = [name for name in _NOT_WITH_REGIONS if getattr(options, name)]
    if clashing:
        raise InputError(
            f"--classify-regions: found --{clashing[0].replace('_', '-')} too; expected images and --json only; omit it"
        )
    records = [unannotated(path, *image_layout(path)[:2]) for path in paths]
    regions = list(map(read_file(options, options.classify_regions, records).of, records))
    results = []
    for path, boxes in zip(paths, regions, strict=True):
        rows = predictor.classify_regions(path, boxes)
        names = ("background", *(predictor.class_names or map(str, range(1, rows.shape[1]))))
        results.append(
            {
                "image": path,
                "regions": [
                    {"box": box.tolist(), "probabilities": dict(zip(names, row.tolist(), strict=True))}
                    for box, row in zip(boxes, rows, strict=True)
                ],
            }
        )
    number_ = sum(len(result["regions"]) for result in results)
    write_result(options, results, f"{len(results)} images, {number_} regions classified")


def _draw(found, threshold, path):
    with replacing_path(path) as temporary:
        found.draw(min_score=threshold).save(temporary)
