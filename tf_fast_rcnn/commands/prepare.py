"""`tf-fast-rcnn prepare`: computes object proposals for a data set and writes them beside its annotations."""

import numpy as np

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import boxes
from tf_fast_rcnn.commands.common import add_data_arguments, add_json_argument, load_data, tell_mended, write_result
from tf_fast_rcnn.data.selection import parse_classes

EXAMPLES = """\
  tf-fast-rcnn prepare voc:cells@train --out prepared/train
  tf-fast-rcnn prepare voc:cells@test --like prepared/train --out prepared/test
  tf-fast-rcnn prepare voc:VOC2007@trainval --proposals selective-search --workers 8 --out prepared/voc07

Use the result as SPEC prepared:DIR. After an interruption the same command goes on."""


def add_arguments(parser):
    parser.add_argument("spec", metavar="SPEC", help="voc:, coco:, csv:, yolo: or tfds: data, or several joined by +")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--proposals",
        default="dense",
        choices=["dense", "selective-search", "selective-search+dense"],
        help="dense boxes fitted to the data set's objects (default), OpenCV's selective search, or both",
    )
    parser.add_argument("--like", metavar="DIR", help="take proposals and classes of a prepared folder: for test data")
    add_data_arguments(parser)
    add_json_argument(parser, "the summary")


def run(options):
    like = frcnn.load_dataset(f"prepared:{options.like}") if options.like else None
    classes = parse_classes(options.classes) if options.classes else None
    dataset = load_data(options.spec, options, like and like.class_names, classes)
    settings = like.proposal_settings if like else frcnn.proposal_settings(options.proposals, dataset)
    prepared = frcnn.prepare(dataset, options.out, settings, options.workers, skip_bad=options.skip_bad)
    tell_mended(prepared)
    summary = _summary(prepared)
    recalls = ", ".join(f"{name} {recall:.3f}" for name, recall in summary["recall_at_iou_0.5"].items())
    text = (
        f"{summary['images']} images, {summary['objects']} objects, "
        f"{summary['proposals_per_image']:.0f} proposals an image\n"
        f"recall at IoU 0.5: {recalls or 'no objects'}\n"
        f"next: tf-fast-rcnn train --train prepared:{options.out} --out RUN"
    )
    write_result(options, {"prepared": str(options.out), **summary}, text)


def _summary(dataset):
    """Counts, and the share of each class's objects that some proposal overlaps by an IoU of at least 0.5."""
    found = {name: [] for name in dataset.class_names}
    counts = []
    for record in dataset:
        proposals = record.proposals()
        counts.append(len(proposals))
        best = boxes.iou(proposals, record.boxes).max(axis=0, initial=0.0)
        for label, overlap in zip(record.labels, best, strict=True):
            found[dataset.class_names[label - 1]].append(overlap >= 0.5)
    return {
        "images": len(dataset),
        "objects": sum(map(len, found.values())),
        "proposals_per_image": float(np.mean(counts)),
        "recall_at_iou_0.5": {name: float(np.mean(hits)) for name, hits in found.items() if hits},
    }
