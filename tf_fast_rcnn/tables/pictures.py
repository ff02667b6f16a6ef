"""Pictures of the tables: mAP of every row and seed beside the paper's; mAP over proposals as in figure 3."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.figure import Figure

from tf_fast_rcnn.visualization.drawing import class_color
from tf_fast_rcnn.visualization.plots import make_x_logarithmic, save_figure

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_NETWORKS = ("S", "M", "L")


class SweepPoint(NamedTuple):
    """A number of proposals an image, their average recall (0 to 1), and the mAP in percent of each seed."""

    proposals: float
    average_recall: float
    mean_aps: list


def plot_comparison(
    labels: Sequence[str],
    mean_aps: Sequence[Sequence[float]],
    paper: Sequence[Mapping[str, float]],
    path: StrPath,
    title: str,
) -> None:
    """Draws the mAP of each row: the mean, a dot for each seed, a bar over their spread; beside it the paper's figures.

    Args:
        labels: of the rows.
        mean_aps: for each row mAP in percent of each seed.
        paper: for each row a dict from the paper's networks to mAP in percent, which may be empty.
        path: the picture to write; its ending says the format (.png, .svg, .pdf).
        title: text.
    """
    has_paper = any(paper)
    figure = Figure(figsize=(7 + 4 * has_paper, 1.4 + 0.5 * len(labels)), layout="constrained")
    panels = figure.subplots(1, 1 + has_paper, sharey=True, squeeze=False, width_ratios=[3, 2][: 1 + has_paper])[0]
    panels[0].use_sticky_edges = False  # bars would end at the frame
    color = class_color(1)
    for place, values in enumerate(mean_aps):
        panels[0].barh(place, max(values) - min(values), 0.4, min(values), color=color, alpha=0.3)
        panels[0].plot(values, [place] * len(values), "o", color=color, markersize=5)
        panels[0].plot(statistics.mean(values), place, "|", color="black", markersize=16, markeredgewidth=2)
    panels[0].set(xlabel="mAP in percent: seeds, and their mean (line)")
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].invert_yaxis()
    if has_paper:
        _draw_paper(panels[1], paper)
    for panel in panels:
        panel.grid(alpha=0.3)
    figure.suptitle(title)
    save_figure(figure, path)


def _draw_paper(panel, paper):
    for number, network in enumerate(_NETWORKS, start=2):
        points = [(of_row[network], place) for place, of_row in enumerate(paper) if network in of_row]
        if points:
            panel.plot(*zip(*points, strict=True), "D", color=class_color(number), label=network)
    panel.set(xlabel="the paper's mAP on VOC07")
    panel.legend(title="network", fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))


def plot_proposal_sweep(
    curves: Mapping[str, tuple[Sequence[SweepPoint], Sequence[tuple[float, float]]]], path: StrPath, title: str
) -> None:
    """Draws mAP and average recall over the number of proposals, as the paper's figure 3, and beside it the figures
    that the paper tells of its own.

    Args:
        curves: dict from a name to `(points, paper)`: `SweepPoint`s, one alone or several, and the paper's pairs of
            a number of proposals and mAP in percent, maybe none.
        path: the picture to write; its ending says the format (.png, .svg, .pdf).
        title: text.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    panel, paper_panel = figure.subplots(1, 2, width_ratios=[3, 2])
    recall_panel = panel.twinx()
    for number, (name, (points, paper)) in enumerate(curves.items(), start=1):
        _draw_curve(panel, recall_panel, points, class_color(number), name)
        if paper:
            style = "--o" if len(paper) > 1 else "D"
            paper_panel.plot(*zip(*paper, strict=True), style, color=class_color(number))
    panel.plot([], [], ":", color="black", label="average recall")
    panel.set(xlabel="proposals an image", ylabel="mAP in percent; bars over all seeds", title=title)
    recall_panel.set(ylabel="average recall in percent", ylim=(0, 100))
    paper_panel.set(xlabel="proposals an image", ylabel="mAP in percent", title="the paper's: network M, VOC07")
    paper_panel.set_xlim(1e3, 1e5)
    for each in (panel, paper_panel):
        make_x_logarithmic(each)
        each.grid(alpha=0.3)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    save_figure(figure, path)


def _draw_curve(panel, recall_panel, points, color, name):
    proposals, recalls, mean_aps = zip(*points, strict=True)
    means = [statistics.mean(values) for values in mean_aps]
    below, above = zip(
        *((mean - min(of), max(of) - mean) for mean, of in zip(means, mean_aps, strict=True)), strict=True
    )
    style = "-o" if len(points) > 1 else "D"
    panel.errorbar(proposals, means, (below, above), fmt=style, color=color, capsize=3, label=name)
    if len(points) > 1:
        recall_panel.plot(proposals, [100 * recall for recall in recalls], ":", color=color)
