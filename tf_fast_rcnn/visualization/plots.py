"""Curves and histograms as pictures: losses over training, precision over recall, sizes of objects.

Figures are made through Matplotlib's object interface: no window system, no global state, safe in any thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from tf_fast_rcnn.files import replacing_path
from tf_fast_rcnn.visualization.drawing import PALETTE, class_color

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes

    from tf_fast_rcnn.files import StrPath

_LOSS_NAMES = {"loss": "total", "class_loss": "class (log loss)", "box_loss": "box (smooth L1)"}
_LINE_STYLES = ("-", "--", ":", "-.")
_CHART_SIZE = (6, 3.6)  # inches: two side by side on a page, one on a phone


class HasCurves(Protocol):
    """What is drawn of an `EvaluationResult`, which is defined in a part that builds on this one."""

    @property
    def classes(self) -> Sequence[Any]: ...

    @property
    def iou_threshold(self) -> float | None: ...

    @property
    def mean_ap(self) -> float: ...

    def rule(self) -> str: ...


def plot_losses(rows: Sequence[Mapping[str, Any]], path: StrPath) -> None:
    """Draws losses over training steps, and validation mAP below them where there is any.

    Many points are drawn pale, with their running mean over them.

    Args:
        rows: sequence of dicts with "step" and any of "loss", "class_loss", "box_loss" and other "..._loss" keys,
            and "mean_ap" or "..._mean_ap"; a row need not have every key.
        path: the picture to write; its ending says the format (.png, .svg, .pdf).
    """
    loss_names = _columns(rows, "loss")
    ap_names = _columns(rows, "mean_ap")
    figure = Figure(figsize=(8, 4.5 + 2.5 * bool(ap_names)), layout="constrained")
    ratios = [2, 1] if ap_names else [1]
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for number, name in enumerate(loss_names, start=1):
        _plot_column(panels[0], rows, name, class_color(number))
    panels[0].set(title="Training losses", ylabel="loss", ylim=(0, None))
    for number, name in enumerate(ap_names, start=1):
        steps, values = _column(rows, name)
        panels[1].plot(steps, values, marker="o", color=class_color(number), label=name)
    if ap_names:
        panels[1].set(title="Validation", ylabel="mean AP", ylim=(0, 1))
    panels[-1].set_xlabel("step (mini-batches)")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in panels:
        _finish(panel)
    save_figure(figure, path)


def plot_precision_recall(result: HasCurves, path: StrPath) -> None:
    """Draws the precision-recall curve of each class, with its AP in the legend, best first.

    Args:
        result: `EvaluationResult`; classes without objects are left out.
        path: the picture to write; its ending says the format (.png, .svg, .pdf).
    """
    curves = [
        (label, of_class) for label, of_class in enumerate(result.classes, start=1) if not math.isnan(of_class.ap)
    ]
    columns = 1 + len(curves) // 24
    figure = Figure(figsize=(6 + 2 * columns, 5), layout="constrained")
    axes = figure.subplots()
    for label, of_class in sorted(curves, key=lambda curve: -curve[1].ap):
        style = _LINE_STYLES[(label - 1) // 10 % len(_LINE_STYLES)]  # the ten colours repeat: the style tells apart
        recall, precision = _curve_from_zero(of_class)
        text = f"{of_class.name}  {of_class.ap:.3f}"
        axes.plot(recall, precision, style, color=class_color(label), linewidth=1.8, label=text)
    # COCO's AP averages ten overlaps; the curve that is drawn belongs to the first.
    rule = result.rule() + ("; curves at 0.50" if result.iou_threshold is None else "")
    axes.set(
        title=f"Precision and recall: mean AP {result.mean_ap:.3f} ({rule})",
        xlabel="recall",
        ylabel="precision",
        xlim=(0, 1.01),
        ylim=(0, 1.03),
    )
    if curves:
        axes.legend(title="class  AP", loc="upper left", bbox_to_anchor=(1.0, 1.0), ncols=columns, fontsize="small")
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def plot_breakdown(
    gains: Mapping[str, float], counts: np.ndarray, class_names: Sequence[str], path: StrPath, title: str
) -> None:
    """Draws what mending each kind of errors would add to mean AP, and beside it how many there are of each class.

    Args:
        gains: dict from each kind to a number, in the order in which they are drawn from above.
        counts: `[kinds, K]`, errors of each kind and class.
        class_names: names of the classes 1..K.
        path: the picture to write; its ending says the format (.png, .svg, .pdf).
        title: text.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    cost, number = figure.subplots(1, 2, sharey=True)
    cost.barh(list(gains), list(gains.values()), color=class_color(9))
    _label_bars(cost, gains.values(), "{:+.3f}")
    left = np.zeros(len(gains))
    for name, label, of_class in _most_frequent(class_names, np.asarray(counts).T):
        number.barh(list(gains), of_class, left=left, label=name, color=class_color(label))
        left += of_class
    _label_bars(number, left, "{:.0f}")
    if left.any():
        number.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    cost.invert_yaxis()
    cost.set(title="What mending a kind would add", xlabel="mean AP")
    number.set(title="Errors with a score of 0.5 or more", xlabel="detections; missed objects")
    for panel in (cost, number):
        panel.grid(axis="x", alpha=0.3)
    figure.suptitle(title)
    save_figure(figure, path)


def plot_reliability(
    curves: Iterable[tuple[str, int, np.ndarray, np.ndarray]], counts: np.ndarray, path: StrPath
) -> None:
    """Draws precision against score, with the diagonal on which scores are probabilities, and how many detections
    there are of each score.

    Args:
        curves: `(name, label, scores [B], precisions [B])` of each; the label 1..K gives the colour; NaN is left out.
        counts: `[B]`, detections in equal parts of 0 to 1.
        path: the picture to write; its ending says the format (.png, .svg, .pdf).
    """
    figure = Figure(figsize=(6, 5), layout="constrained")
    panel, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    panel.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="score = precision")
    for name, label, scores, precisions in curves:
        exists = ~np.isnan(scores)
        panel.plot(scores[exists], precisions[exists], marker="o", color=class_color(label), label=name)
    panel.set(title="Are scores probabilities?", ylabel="precision", xlim=(0, 1), ylim=(0, 1.03))
    width = 1 / len(counts)
    below.bar((np.arange(len(counts)) + 0.5) * width, counts, width, color=class_color(9), edgecolor="white")
    below.set(xlabel="score", ylabel="detections", yscale="symlog")
    below.set_ylim(0, None)
    below.grid(axis="y", alpha=0.3)
    _finish(panel)
    save_figure(figure, path)


def plot_histogram(
    values: npt.ArrayLike,
    path: StrPath,
    title: str,
    xlabel: str,
    ylabel: str = "objects",
    bins: int | Sequence[float] = 30,
    log: bool = False,
    limit: tuple[float, str] | None = None,
) -> None:
    """Draws how often values occur.

    Args:
        values: finite numbers `[N]`, N may be 0.
        path: the picture to write; its ending says the format (.png, .svg, .pdf).
        title, xlabel, ylabel: texts.
        bins: number of bins, or their edges.
        log: bins of equal width in the logarithm; values and edges are then above 0.
        limit: `(value, text)`: a dashed line to compare with.
    """
    values = np.asarray(values, float)
    figure = Figure(figsize=_CHART_SIZE, layout="constrained")
    axes = figure.subplots()
    if log and isinstance(bins, int):
        low, high = (values.min(), values.max()) if len(values) else (1.0, 1.0)
        # One value alone still needs bins around it.
        bins = np.geomspace(min(low, high / 2), max(high, low * 2), bins + 1).tolist()
    axes.hist(values, bins, color=class_color(1), edgecolor="white", linewidth=0.5)
    if log:
        make_x_logarithmic(axes)
    if limit is not None:
        axes.axvline(limit[0], color="black", linestyle="--", linewidth=1.5, label=limit[1])
        axes.legend()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", alpha=0.3)
    save_figure(figure, path)


def plot_recall(
    curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]], path: StrPath, title: str, xlabel: str, log: bool = False
) -> None:
    """Draws recall, 0 to 1, against what it depends on.

    Args:
        curves: dict, name to `(x [N], recall [N])`; drawn in colours and line styles that differ.
        path: the picture to write; its ending says the format (.png, .svg, .pdf).
        title, xlabel: texts.
        log: x on a logarithmic axis.
    """
    figure = Figure(figsize=_CHART_SIZE, layout="constrained")
    axes = figure.subplots()
    for number, (name, (x, recall)) in enumerate(curves.items()):
        style = _LINE_STYLES[number % len(_LINE_STYLES)]
        axes.plot(x, recall, style, color=class_color(number + 1), linewidth=2, label=name)
    axes.set(title=title, xlabel=xlabel, ylabel="recall", ylim=(0, 1.03))
    if log:
        make_x_logarithmic(axes)
    _finish(axes)
    save_figure(figure, path)


def plot_sampling_speed(results: Sequence[Mapping[str, Any]], path: StrPath) -> None:
    """Draws RoIs a second over the number of images of a mini-batch, both on logarithmic axes.

    Args:
        results: of `benchmarks.sampling.measure_sampling`, of one or several backbones.
        path: the picture to write; its ending says the format (.png, .svg, .pdf).
    """
    figure = Figure(figsize=_CHART_SIZE, layout="constrained")
    panel = figure.subplots()
    for number, backbone in enumerate(dict.fromkeys(result["backbone"] for result in results), start=1):
        rows = sorted((row for row in results if row["backbone"] == backbone), key=lambda row: row["images"])
        images, speeds = [row["images"] for row in rows], [row["rois_per_second"] for row in rows]
        panel.plot(images, speeds, marker="o", color=class_color(number), label=backbone)
    panel.set(
        title=f"Training on {results[0]['rois']} RoIs of N images",
        xlabel="N (images a mini-batch)",
        ylabel="RoIs a second",
    )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _finish(panel)
    save_figure(figure, path)


def plot_search_growth(rows: Sequence[Mapping[str, Any]], path: StrPath) -> None:
    """Draws time over pixels on logarithmic axes, beside n log n through the first point.

    Args:
        rows: of `benchmarks.proposals.measure_growth`.
        path: the picture to write; its ending says the format (.png, .svg, .pdf).
    """
    figure = Figure(figsize=_CHART_SIZE, layout="constrained")
    panel = figure.subplots()
    pixels, milliseconds = (np.array([row[name] for row in rows], float) for name in ("pixels", "milliseconds"))
    panel.plot(pixels, milliseconds, marker="o", color=class_color(1), label="selective search, one thread")
    expected = pixels * np.log(pixels)
    expected *= milliseconds[0] / expected[0]
    panel.plot(pixels, expected, "--", color=class_color(2), label="n log n")
    panel.set(title="One image at growing sizes", xlabel="pixels", ylabel="milliseconds", xscale="log", yscale="log")
    _finish(panel)
    save_figure(figure, path)


def plot_parts(panels: Mapping[str, Mapping[str, Mapping[str, float]]], path: StrPath) -> None:
    """Draws where time goes: a panel for each comparison, in it a bar for each contestant, stacked of its parts.

    Args:
        panels: dict, title to `{contestant: {part: seconds}}`; all panels have the same axis.
        path: the picture to write; its ending says the format (.png, .svg, .pdf).
    """
    bars = max(len(contestants) for contestants in panels.values())
    size = (9, 1.2 + len(panels) * (0.55 + 0.3 * bars))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    parts = dict.fromkeys(part for each in panels.values() for shares in each.values() for part in shares)
    for panel, (title, contestants) in zip(axes, panels.items(), strict=True):
        starts = np.zeros(len(contestants))
        for number, part in enumerate(parts, start=1):
            seconds = np.array([shares.get(part, 0.0) for shares in contestants.values()])
            panel.barh(list(contestants), seconds, left=starts, color=class_color(number), label=part)
            starts += seconds
        for row, total in enumerate(starts):
            panel.text(total, row, f" {total:.3g} s", va="center", fontsize="small")
        panel.invert_yaxis()
        panel.set_title(title, fontsize="medium", loc="left")
        panel.margins(x=0.1)
        panel.grid(axis="x", alpha=0.3)
    axes[-1].set_xlabel("seconds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(4, len(parts)))
    save_figure(figure, path)


def _columns(rows, ending):
    """The keys that are `ending` or end with it, in order of first appearance."""
    names = {name: None for row in rows for name in row}
    return [name for name in names if name == ending or name.endswith(f"_{ending}")]


def _column(rows, name):
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    steps, values = zip(*points, strict=True)
    return np.array(steps), np.array(values, float)


def _plot_column(axes, rows, name, color):
    steps, values = _column(rows, name)
    label = _LOSS_NAMES.get(name, name)
    window = len(values) // 25
    if window < 2:
        axes.plot(steps, values, color=color, label=label)
        return
    axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
    mean = np.convolve(values, np.full(window, 1 / window), mode="valid")
    axes.plot(steps[window - 1 :], mean, color=color, linewidth=1.8, label=f"{label}, mean of {window} points")


def _curve_from_zero(of_class):
    """The curve with its first precision drawn from recall 0, and a fall to 0 where recall ends."""
    if not len(of_class.recall):
        return [0.0, 0.0], [0.0, 0.0]
    recall = np.concatenate([[0.0], of_class.recall, of_class.recall[-1:]])
    precision = np.concatenate([of_class.precision[:1], of_class.precision, [0.0]])
    return recall, precision


def _label_bars(axes, values, form):
    """Numbers beside horizontal bars, with room for them."""
    values = list(values)
    axes.set_xlim(min([0, *values]), 1.2 * max([*values, 1e-3]))
    for position, value in enumerate(values):
        axes.text(max(value, 0), position, f" {form.format(value)}", va="center", fontsize="small")


def _most_frequent(class_names, counts, shown=9):
    """`(name, number of its colour, counts)` of classes that occur: the most frequent ones by themselves, the rest
    together."""
    order = [index for index in np.argsort(-counts.sum(axis=1), kind="stable") if counts[index].any()]
    # As many as there are colours; one rest alone needs no other name.
    kept = order if len(order) <= shown + 1 else order[:shown]
    # Of many classes those that are shown get colours of their own.
    numbers = range(1, len(kept) + 1) if len(class_names) > len(PALETTE) else [index + 1 for index in sorted(kept)]
    rows = [(class_names[index], number, counts[index]) for index, number in zip(sorted(kept), numbers, strict=True)]
    rest = [index for index in order if index not in kept]
    if rest:
        rows.append((f"{len(rest)} other classes", shown + 1, counts[rest].sum(axis=0)))
    return rows


def make_x_logarithmic(axes: Axes) -> None:
    """With numbers as people write them: 30, not 3 x 10^1."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    low, high = axes.get_xlim()
    if high < 30 * low:  # the powers of ten alone are too few then
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        axes.xaxis.set_minor_formatter("{x:g}")


def _finish(axes):
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()


def save_figure(figure: Figure, path: StrPath) -> None:
    """Writes the picture under a temporary name, then renames it: a reader never sees half of it."""
    FigureCanvasAgg(figure)
    with replacing_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
