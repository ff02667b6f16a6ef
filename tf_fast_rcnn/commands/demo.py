"""`tf-fast-rcnn demo`: train, evaluate and export end to end, on images generated from installed data."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import add_json_argument, check_new, number, seed, start_tensorflow, write_result

EXAMPLES = """\
  tf-fast-rcnn demo
  tf-fast-rcnn demo --out /tmp/demo --steps 200

This takes a few minutes on two cores; then open index.html in the folder."""

_SHOWN_IMAGES = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `demo`."""
    parser.add_argument("--out", default="demo", metavar="DIR", help="a new folder (default: demo)")
    parser.add_argument(
        "--steps", type=number(int, 1), default=800, metavar="N", help="training mini-batches (default: 800)"
    )
    parser.add_argument(
        "--images", type=number(int, 2), default=400, metavar="N", help="training images to generate (default: 400)"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="default: 0")
    add_json_argument(parser, "the summary")


def run(options: argparse.Namespace) -> None:
    """Runs `demo` with its parsed options."""
    started = time.monotonic()
    out = Path(options.out)
    check_new(out, "--out")
    start_tensorflow()
    from tf_fast_rcnn.demo.digits import CLASS_NAMES, generate_digits
    from tf_fast_rcnn.demo.page import write_page
    from tf_fast_rcnn.evaluation import score_detections
    from tf_fast_rcnn.evaluation.models import for_evaluation
    from tf_fast_rcnn.evaluation.report import write_report

    _say("1/5 generating images: real handwritten digits on clutter")
    data = generate_digits(out / "data", {"train": options.images, "test": 60}, options.seed)
    train, test = (frcnn.load_dataset(f"voc:{data}@{split}", CLASS_NAMES) for split in ("train", "test"))
    _say("2/5 computing object proposals")
    proposals = frcnn.proposal_settings("dense", train)
    train = frcnn.prepare(train, out / "prepared" / "train", proposals)
    test = frcnn.prepare(test, out / "prepared" / "test", proposals)
    _say("3/5 training")
    # A mirrored digit is not a digit.
    recipe = frcnn.recipe("small-data", {"steps": options.steps, "sampling.horizontal_flip_prob": 0.0})
    summary = frcnn.train(train, out / "run", recipe=recipe, seed=options.seed)
    _say("4/5 evaluating")
    run_ = frcnn.load_run(out / "run")
    predictor = for_evaluation(frcnn.Predictor.load(out / "run"))
    detections = predictor.detect(test)
    result = score_detections(test, detections, "voc07")
    write_report(out / "evaluation", test, detections, result, name="demo", description=predictor.description)
    _say("5/5 exporting and running the exported model")
    frcnn.export_saved_model(
        run_.model,
        out / "export" / "1",
        class_names=run_.class_names,
        settings=frcnn.detection_settings(run_),
        proposals=proposals,
        class_names_output=True,
    )
    shown = [test[index] for index in range(0, len(test), max(1, len(test) // _SHOWN_IMAGES))][:_SHOWN_IMAGES]
    pictures = _draw_exported(out, test.with_records(shown))
    facts = {
        "out": str(out),
        "mean_ap": result.mean_ap,
        "training_seconds": summary.seconds,
        "seconds": round(time.monotonic() - started, 1),
    }
    write_page(out, result=result, summary=summary, pictures=pictures, train=train, test=test, facts=facts)
    text = (
        f"{result.table()}\n{facts['seconds']:.0f} s in total; the exported model is in {out}/export/1\n"
        f"open {out}/index.html"
    )
    write_result(options, {**facts, **result.to_json()}, text)


def _say(text):
    print(text, file=sys.stderr, flush=True)


def _draw_exported(out, dataset):
    """Runs the SavedModel on image files, as a server does, and draws its detections next to the ground truth."""
    from tf_fast_rcnn.data.drawing import draw_ground_truth
    from tf_fast_rcnn.visualization.drawing import contact_sheet

    (out / "pictures").mkdir()
    pictures = []
    for record, found in zip(dataset, frcnn.Predictor.load(out / "export").detect(dataset), strict=True):
        image = record.image()
        truth = draw_ground_truth(image, record, dataset.class_names)
        path = out / "pictures" / f"{record.image_id}.png"
        detected = found.draw(image, min_score=0.5)
        contact_sheet([truth, detected], columns=2).save(path)
        pictures.append(path.relative_to(out).as_posix())
    return pictures
