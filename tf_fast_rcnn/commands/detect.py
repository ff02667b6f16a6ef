"""`tf-fast-rcnn detect`: finds objects in images, draws them and lists them."""

import os
from pathlib import Path

from tqdm import tqdm

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import add_json_argument, number, start_tensorflow, write_result
from tf_fast_rcnn.commands.proposal_options import add_file_arguments, check_has_proposals, read_file
from tf_fast_rcnn.data.images import image_layout
from tf_fast_rcnn.errors import InputError

EXAMPLES = """\
  tf-fast-rcnn detect runs/cells cells/*.jpg --out detections
  tf-fast-rcnn detect runs/cells cell.jpg --proposals boxes.npy --json -
  tf-fast-rcnn detect runs/voc07 000004.jpg --proposals 000004_boxes.mat"""


def add_arguments(parser):
    parser.add_argument("folder", metavar="RUN", help="folder that `train` wrote")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument(
        "--proposals",
        metavar="FILE",
        help="object proposals by the images' file names; .npy: of one image (default: computed as in training)",
    )
    add_file_arguments(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the drawn images (default: detections, unless --json -)"
    )
    parser.add_argument("--score-threshold", type=number(float, 0, 1), default=0.05, metavar="X", help="default: 0.05")
    parser.add_argument(
        "--draw-threshold",
        type=number(float, 0, 1),
        default=0.5,
        metavar="X",
        help="least score that is drawn (default: 0.5)",
    )
    add_json_argument(parser, "all detections")


def run(options):
    out = Path(options.out or "detections") if options.out or options.json != "-" else None
    pictures = _picture_paths(options.images, out) if out else []
    start_tensorflow()
    from tf_fast_rcnn.detection import unannotated

    run_ = frcnn.load_run(options.folder)
    settings = frcnn.detection_settings(run_, score_threshold=options.score_threshold)
    if options.proposals:
        records = [unannotated(path, *image_layout(path)[:2]) for path in options.images]
        proposals = list(map(read_file(options, options.proposals, records).of, records))
    else:
        check_has_proposals(run_.proposals)
        proposals = [run_.proposals] * len(options.images)
    results = []
    for index, path in enumerate(tqdm(options.images, desc="detect", unit="image", delay=2)):
        image = frcnn.read_image(path)
        found = frcnn.detect(run_.model, image, proposals[index], settings)
        results.append({"image": str(path), "detections": _to_json(found, run_.class_names)})
        if out:
            _draw(image, found, run_.class_names, options.draw_threshold, pictures[index])
    number = sum(len(result["detections"]) for result in results)
    text = f"{len(results)} images, {number} detections with a score above {options.score_threshold}"
    write_result(options, results, f"{text}; drawn in {out}" if out else text)


def _picture_paths(images, out):
    """Where each image is drawn: STEM.png, or STEM-2.png, ... where images of several folders share a name."""
    pictures = []
    for image in images:
        stem, number_ = Path(image).stem, 1
        path = out / f"{stem}.png"
        while path in pictures:
            number_ += 1
            path = out / f"{stem}-{number_}.png"
        pictures.append(path)
    inputs = {Path(image).resolve() for image in images}
    if overwritten := [path for path in pictures if path.resolve() in inputs]:
        raise InputError(f"{overwritten[0]}: found an input where its drawing belongs; give another folder to --out")
    return pictures


def _to_json(found, class_names):
    return [
        {"class": class_names[label - 1], "score": float(score), "box": [float(side) for side in box]}
        for box, score, label in zip(found.boxes, found.scores, found.classes, strict=True)
    ]


def _draw(image, found, class_names, threshold, path):
    from tf_fast_rcnn.drawing import draw_detections

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial.png")
    draw_detections(image, found, class_names, min_score=threshold).save(temporary)
    os.replace(temporary, path)
