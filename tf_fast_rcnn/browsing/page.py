"""Writes the page: a folder with index.html, its pictures, and the findings as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_fast_rcnn.browsing.charts import draw_charts
from tf_fast_rcnn.browsing.findings import KINDS, Finding
from tf_fast_rcnn.browsing.pictures import PictureWriter
from tf_fast_rcnn.browsing.survey import survey_dataset
from tf_fast_rcnn.data.proposals.recall import MIN_IOU
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import new_folder
from tf_fast_rcnn.visualization.pages import render_page

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

# Most findings of a kind that the page lists as text; findings.json has all of them.
_LISTED = 100


def browse(
    dataset: DetectionDataset,
    out_dir: StrPath,
    max_images: int = 60,
    seed: int = 0,
    skip_bad: bool = False,
    unreadable: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Any]:
    """Writes a page about a dataset: likely annotation errors, statistics, and the objects that its proposals miss.

    The page, `OUT_DIR/index.html`, works offline. Each image is read once and its pictures are written immediately, so
    memory does not grow with the number of images.

    Args:
        dataset: the dataset; if it has proposals (see `cached_proposals`), their recall is shown too.
        out_dir: a new folder, which appears only when it is complete.
        max_images: number of images in the contact sheet, chosen at random; findings have their own pictures.
        seed: random seed of that choice.
        skip_bad: list unreadable images instead of raising an error.
        unreadable: names of unreadable images that were already removed from the dataset; they are listed too.
        progress: whether to show a progress bar on standard error.

    Returns:
        The content of `OUT_DIR/findings.json`, which docs/browse.md describes.

    Raises:
        InputError: if the folder exists, and without `skip_bad` for the first image that cannot be read.

    Example:
        >>> train = load_dataset("voc:cells@train")                                  # doctest: +SKIP
        >>> facts = browse(train, "cells-page")                                      # doctest: +SKIP
        >>> facts["counts"]["duplicate_boxes"], facts["findings"]["tiny_boxes"][0]   # doctest: +SKIP
    """
    if Path(out_dir).exists():
        raise InputError(f"{out_dir}: found an existing file or folder; expected a new one; choose another --out")
    with new_folder(out_dir) as folder:
        chosen = np.random.default_rng(seed).permutation(len(dataset))[:max_images].tolist()
        pictures = PictureWriter(folder, dataset.class_names, chosen)
        survey = survey_dataset(dataset, skip_bad, progress, pictures.draw)
        survey.findings["unreadable_images"] += [Finding("unreadable_images", name) for name in unreadable]
        for finding in [*survey.findings["identical_images"], *survey.findings["similar_images"]]:
            pictures.draw_group(finding, dataset)
        facts = _facts(dataset, survey)
        (folder / "findings.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        page = _render(dataset, survey, facts, pictures, draw_charts(folder, survey))
        (folder / "index.html").write_text(page, encoding="utf-8")
    return facts


def _facts(dataset, survey):
    """All findings and numbers as a JSON dict."""
    return {
        "spec": dataset.name,
        "images": len(survey.image_names),
        "objects": len(survey.measures.class_ids),
        "classes": [each._asdict() for each in survey.classes],
        "mended": dataset.fixes,
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
    """A float, or None for NaN, which JSON does not have."""
    return None if np.isnan(value) else float(value)


def _render(dataset, survey, facts, pictures, charts):
    return render_page(
        "browsing/page.html",
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
        most_objects=max((each.objects for each in survey.classes), default=0),
    )
