"""The page itself: a folder with index.html, its pictures, and the same findings as JSON."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np

from tf_fast_rcnn.browsing.findings import KINDS, NETWORK_SIDE, Finding
from tf_fast_rcnn.browsing.pictures import PictureWriter
from tf_fast_rcnn.browsing.survey import survey_dataset
from tf_fast_rcnn.data.proposals.recall import MIN_IOU
from tf_fast_rcnn.data.proposals.settings import DEFAULT_MIN_SIZE
from tf_fast_rcnn.drawing import class_color
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.plots import plot_histogram, plot_recall

# Findings of a kind that the page lists in words; findings.json has all.
_LISTED = 100


class Chart(NamedTuple):
    """A picture of numbers, and what it shows in words, for those who do not see it."""

    path: str
    alt: str


def browse(dataset, out_dir, max_images=60, seed=0, skip_bad=False, unreadable=(), progress=True):
    """Writes a page of pictures of a data set: what may be wrong with it, and what its proposals miss.

    The page, `OUT_DIR/index.html`, needs nothing from outside its folder. Pictures are written while the images are
    read, each once, so that memory does not grow with their number.

    Args:
        dataset: `DetectionDataset`; with proposals (see `cached_proposals`), their recall is shown too.
        out_dir: a new folder. It appears when it is complete.
        max_images: images of the contact sheet, drawn by `seed`; findings have pictures of their own.
        seed: of that choice.
        skip_bad: list unreadable images instead of raising.
        unreadable: names of unreadable images that the data set had, for the list.
        progress: show a progress bar on stderr.

    Returns:
        The findings, as in `OUT_DIR/findings.json` (see docs/data.md).

    Raises:
        InputError: if the folder exists, and, without `skip_bad`, for the first image that cannot be read.

    Example:
        >>> train = load_dataset("voc:cells@train")                                  # doctest: +SKIP
        >>> found = browse(train, "cells-page")                                      # doctest: +SKIP
        >>> found["counts"]["duplicate_boxes"], found["findings"]["tiny_boxes"][0]   # doctest: +SKIP
    """
    with _new_folder(Path(out_dir)) as folder:
        chosen = np.random.default_rng(seed).permutation(len(dataset))[:max_images].tolist()
        pictures = PictureWriter(folder, dataset.class_names, chosen)
        survey = survey_dataset(dataset, skip_bad, progress, pictures.draw)
        survey.findings["unreadable_images"] += [Finding("unreadable_images", name) for name in unreadable]
        for finding in [*survey.findings["identical_images"], *survey.findings["similar_images"]]:
            pictures.draw_group(finding, dataset)
        facts = _facts(dataset, survey)
        (folder / "findings.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        page = _render(dataset, survey, facts, pictures, _draw_charts(folder / "charts", survey))
        (folder / "index.html").write_text(page, encoding="utf-8")
    return facts


@contextlib.contextmanager
def _new_folder(out_dir):
    """A folder under a temporary name that gets its own when all is written, and vanishes after an error."""
    if out_dir.exists():
        raise InputError(f"{out_dir}: found an existing file or folder; expected a new one; give another --out")
    partial = out_dir.with_name(f".{out_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, out_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _facts(dataset, survey):
    """All findings and numbers in JSON's types."""
    return {
        "spec": dataset.name,
        "images": len(survey.image_names),
        "objects": len(survey.measures.labels),
        "classes": [each._asdict() for each in survey.classes],
        "mended": dataset.mended,
        "recall": None if survey.recall is None else _recall_facts(survey),
        "counts": {kind: len(findings) for kind, findings in survey.findings.items()},
        "findings": {
            kind: [_finding_facts(finding, survey.image_names) for finding in findings]
            for kind, findings in survey.findings.items()
        },
    }


def _finding_facts(finding, image_names):
    return {
        "text": finding.text,
        "images": [image_names[index] for index in finding.images],
        "indices": list(finding.images),
        "objects": list(finding.objects),
    }


def _recall_facts(survey):
    curves = survey.recall
    counted = [each.recall for each in survey.classes if each.recall is not None]
    return {
        "proposals_per_image": float(survey.proposals_per_image.mean()),
        "at_iou_0.5": _number(curves.by_iou[curves.thresholds.index(MIN_IOU)]),
        "mean_over_classes_at_iou_0.5": float(np.mean(counted)) if counted else None,
        "iou": list(curves.thresholds),
        "by_iou": [_number(value) for value in curves.by_iou],
        "proposals": list(curves.counts),
        "by_proposals": [_number(value) for value in curves.by_count],
    }


def _number(value):
    """JSON has no NaN."""
    return None if np.isnan(value) else float(value)


def _draw_charts(folder, survey):
    """The charts of the page: list of `Chart`, their paths relative to the page."""
    measures, charts = survey.measures, []

    def add(name, alt, plot, *arguments, **options):
        plot(*arguments, path=folder / f"{name}.svg", **options)
        charts.append(Chart(f"{folder.name}/{name}.svg", alt))

    if survey.recall is not None and len(measures.labels):
        thresholds, by_iou, counts, by_count = survey.recall
        strict, loose = f"{by_iou[-1]:.2f} at {thresholds[-1]:.2f}", f"{by_iou[0]:.2f} at an IoU of {thresholds[0]:.2f}"
        add(
            "recall-iou",
            f"recall falls from {loose} to {strict}",
            plot_recall,
            {"all proposals": (thresholds, by_iou)},
            title="Recall of the proposals against IoU",
            xlabel="IoU from which an object counts as found",
        )
        add(
            "recall-count",
            f"recall grows from {by_count[0]:.2f} with {counts[0]} proposal to {by_count[-1]:.2f} with {counts[-1]}",
            plot_recall,
            {f"IoU {MIN_IOU}": (counts, by_count)},
            title="Recall against the number of proposals",
            xlabel="proposals of each image, in their order",
            log=True,
        )
    add(
        "sizes",
        f"histogram of object sizes; {_quartiles(measures.sizes)}",
        plot_histogram,
        measures.sizes,
        title="Size of objects",
        xlabel="square root of the share of the image (0 to 1)",
        bins=np.linspace(0, 1, 41),
    )
    add(
        "shorter-sides",
        f"histogram of shorter sides in pixels; {_quartiles(measures.shorter_sides)}",
        plot_histogram,
        np.maximum(measures.shorter_sides, 1),
        title="Shorter side of objects in the network",
        xlabel=f"pixels, where the image's shorter side has {NETWORK_SIDE}",
        log=True,
        limit=(DEFAULT_MIN_SIZE * NETWORK_SIDE, "two cells of the feature map"),
    )
    add(
        "aspects",
        f"histogram of width over height; {_quartiles(measures.aspects)}",
        plot_histogram,
        np.clip(measures.aspects, 0.01, 100),
        title="Aspect of objects",
        xlabel="width / height",
        log=True,
    )
    counts = survey.objects_per_image
    add(
        "objects",
        f"histogram of objects an image; {_quartiles(counts)}",
        plot_histogram,
        counts,
        title="Objects an image",
        xlabel="objects",
        ylabel="images",
        bins=_count_bins(counts),
    )
    return charts


def _quartiles(values):
    if not len(values):
        return "no values"
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"median {middle:.3g}, half of them between {low:.3g} and {high:.3g}"


def _count_bins(counts):
    """Edges of at most 40 bins that hold equally many whole numbers each."""
    last = max(counts, default=0)
    step = last // 40 + 1
    return np.arange(0, last + step + 1, step) - 0.5


def _render(dataset, survey, facts, pictures, charts):
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tf_fast_rcnn", "browsing"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html").render(
        dataset=dataset,
        survey=survey,
        facts=facts,
        kinds=KINDS,
        charts=charts,
        cards=sorted(pictures.cards, key=lambda card: card.index),
        pictures=pictures.of_findings,
        unpictured={
            kind: [finding for finding in findings if finding not in pictures.of_findings]
            for kind, findings in survey.findings.items()
        },
        listed=_LISTED,
        class_color=class_color,
        most_objects=max((each.objects for each in survey.classes), default=0),
    )
