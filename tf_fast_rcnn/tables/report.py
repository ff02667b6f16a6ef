"""tables.md and pictures of what was measured, beside the paper's figures."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn.files import write_json, write_text
from tf_fast_rcnn.tables.definitions import TABLES, Row
from tf_fast_rcnn.tables.measuring import results_of
from tf_fast_rcnn.tables.pictures import SweepPoint, plot_comparison, plot_proposal_sweep

if TYPE_CHECKING:
    from tf_fast_rcnn.tables.definitions import Table
    from tf_fast_rcnn.tables.trainings import Setup

# Key of a result -> its head in a table, and how it is written.
COLUMNS = {
    "seconds_per_batch": ("s / mini-batch", "{:.2f}"),
    "seconds_per_image": ("s / image", "{:.2f}"),
    "fc_milliseconds": ("ms, fc layers of 300 RoIs", "{:.1f}"),
    "proposals": ("proposals / image", "{:.0f}"),
    "average_recall": ("average recall", "{:.2f}"),
}
PAPER = "paper, VOC07 (S / M / L)"


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of a table with its results.

    Attributes:
        row: `Row`.
        mean_aps: mAP in percent by seed.
        difference: mean over common seeds of what the row has more than the table's reference; None without any.
        verdict: what that says in a word: see `verdict`.
        values: medians over seeds by key of `COLUMNS`.
    """

    row: Row
    mean_aps: dict
    difference: float | None
    verdict: str
    values: dict

    @property
    def mean(self) -> float:
        return statistics.mean(self.mean_aps.values())

    @property
    def spread(self) -> float | None:
        """The standard deviation over seeds; None of a single one."""
        return statistics.stdev(self.mean_aps.values()) if len(self.mean_aps) > 1 else None

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.row.label,
            "mean_ap_by_seed": self.mean_aps,
            "mean_ap": self.mean,
            "spread": self.spread,
            "difference": self.difference,
            "verdict": self.verdict,
            "paper": self.row.paper,
            **self.values,
        }


def verdict(differences: Sequence[float], spreads: Sequence[float]) -> str:
    """Whether a difference is more than noise: "higher", "lower", "noise", or "one seed".

    It is where all seeds agree on its sign and it is larger than the spread over seeds of both rows together.

    Args:
        differences: of each seed.
        spreads: standard deviations over seeds of the two rows.
    """
    if len(differences) < 2:
        return "one seed"
    mean = statistics.mean(differences)
    agree = all(difference * mean > 0 for difference in differences)
    if not agree or abs(mean) <= math.hypot(*spreads):
        return "noise"
    return "higher" if mean > 0 else "lower"


def lines_of(table: Table, out: Path) -> list[Line]:
    """The `Line`s of a table whose rows all have results, or an empty list."""
    found = [results_of(out, row.measurement) for row in table.rows]
    if not all(found):
        return []
    mean_aps = [{seed: 100 * result["mean_ap"] for seed, result in results.items()} for results in found]
    reference = mean_aps[table.reference]
    return [
        _line(row, of_row, results, reference) for row, of_row, results in zip(table.rows, mean_aps, found, strict=True)
    ]


def _line(row, mean_aps, results, reference):
    seeds = sorted(set(mean_aps) & set(reference))
    differences = [mean_aps[seed] - reference[seed] for seed in seeds]
    word, difference = "", None
    if mean_aps is not reference and seeds:
        spreads = [
            statistics.stdev(of[seed] for seed in seeds) if len(seeds) > 1 else 0 for of in (mean_aps, reference)
        ]
        word, difference = verdict(differences, spreads), statistics.mean(differences)
    values = {
        key: statistics.median(result[key] for result in results.values())
        for key in COLUMNS
        if all(key in result for result in results.values())
    }
    return Line(row, mean_aps, difference, word, values)


def write_report(setup: Setup) -> dict[str, Any]:
    """Writes tables.md, tables.json and a picture of each table that is complete into the folder of results.

    Returns:
        The content of tables.json: by table its title and lines.
    """
    found = {name: lines for name, table in TABLES.items() if (lines := lines_of(table, setup.out))}
    for name, lines in found.items():
        _draw(name, TABLES[name], lines, setup.out)
    parts = [_head(setup)] + [_section(name, TABLES[name], lines) for name, lines in found.items()]
    figures = {
        name: {"title": TABLES[name].title, "rows": [line.to_json() for line in lines]} for name, lines in found.items()
    }
    write_text(setup.out / "tables.md", "\n\n".join(parts) + "\n")
    write_json(setup.out / "tables.json", figures)
    return figures


def _head(setup):
    recipe, backbone = setup.recipe, setup.backbone if isinstance(setup.backbone, str) else setup.backbone.name
    return (
        f"Trained on {len(setup.train)} images, tested on {len(setup.test)}: {backbone}, recipe {recipe.name}, "
        f"{recipe.steps} mini-batches, shorter side {recipe.sampling.shorter_sides[0]}. mAP in percent "
        f"({setup.protocol}), mean ± standard deviation over seeds; the difference is to the row in bold, and called "
        "noise where the seeds disagree on its sign or it is within the spread of the two rows. The paper's figures "
        "are for VOC07 test and its networks S, M and L."
    )


def _section(name, table, lines):
    has_paper = any(line.row.paper for line in lines)
    columns = [key for key in table.columns if all(key in line.values for line in lines)]
    head = ["", "mAP", "seeds", "difference", *(COLUMNS[key][0] for key in columns), *([PAPER] if has_paper else [])]
    rows = [head, ["---"] * len(head)]
    for position, line in enumerate(lines):
        label = f"**{line.row.label}**" if position == table.reference else line.row.label
        cells = [label, _mean_ap(line), str(len(line.mean_aps)), _difference(line)]
        cells += [COLUMNS[key][1].format(line.values[key]) for key in columns]
        rows.append(cells + ([_paper(line.row.paper)] if has_paper else []))
    grid = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return f"## {table.title}\n\n{table.finding}\n\n{grid}\n\n![{table.title}]({picture_name(name)})"


def _mean_ap(line):
    return f"{line.mean:.1f}" + ("" if line.spread is None else f" ± {line.spread:.1f}")


def _difference(line):
    return "" if line.difference is None else f"{line.difference:+.1f}, {line.verdict}"


def _paper(paper):
    if list(paper) in ([], ["L"], ["M"]):
        return "".join(f"{value:.1f} ({network})" for network, value in paper.items()) or "-"
    return " / ".join(f"{paper[network]:.1f}" if network in paper else "-" for network in "SML")


def picture_name(name: str) -> str:
    """The file of a table's picture."""
    return f"tables-{name}.png"


def _draw(name, table, lines, out):
    path = out / picture_name(name)
    mean_aps = [list(line.mean_aps.values()) for line in lines]
    if not table.curves:
        plot_comparison(
            [line.row.label for line in lines], mean_aps, [line.row.paper for line in lines], path, table.title
        )
        return
    points = [
        SweepPoint(line.values["proposals"], line.values["average_recall"], values)
        for line, values in zip(lines, mean_aps, strict=True)
    ]
    curves = {curve: ([points[row] for row in of.rows], of.paper) for curve, of in table.curves.items()}
    plot_proposal_sweep(curves, path, table.title)
