"""Tables and figures of results that the tests write."""

import json

import pytest
from PIL import Image

from tf_fast_rcnn.tables.definitions import TABLES
from tf_fast_rcnn.tables.measuring import result_path
from tf_fast_rcnn.tables.report import lines_of, verdict, write_report

FACTS = {"seconds_per_image": 0.5, "fc_milliseconds": 3.25, "proposals": 100.0, "average_recall": 0.5}


@pytest.mark.parametrize(
    ("differences", "spreads", "word"),
    [
        ([2.0, 3.0], (0.5, 0.5), "higher"),
        ([-2.0, -3.0], (0.5, 0.5), "lower"),
        ([2.0, -0.1, 3.0], (0.1, 0.1), "noise"),  # the seeds disagree
        ([2.0, 3.0], (1.5, 2.1), "noise"),  # 2.5 is within the 2.58 of both
        ([9.0], (0, 0), "one seed"),
        ([0.0, 0.0], (0, 0), "noise"),
    ],
)
def test_verdict(differences, spreads, word):
    assert verdict(differences, spreads) == word


@pytest.fixture
def setup(setup_in, tmp_path):
    return setup_in(tmp_path)


def write_results(out, name, mean_aps):
    """Writes one result per row and seed; `mean_aps` has a list over seeds for each row."""
    for row, of_row in zip(TABLES[name].rows, mean_aps, strict=True):
        for seed, mean_ap in enumerate(of_row):
            path = result_path(out, row.measurement, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"mean_ap": mean_ap, **FACTS}))
            path.with_name("training.json").write_text(json.dumps({"seconds_per_batch": 0.25 + seed}))


def test_lines(setup):
    write_results(setup.out, "svd", [[0.5, 0.6], [0.4, 0.45, 0.9]])
    trained, compressed = lines_of(TABLES["svd"], setup.out)
    assert trained.mean == pytest.approx(55)
    assert trained.spread == pytest.approx(7.0710678)
    assert (trained.difference, trained.verdict) == (None, "")
    assert compressed.mean == pytest.approx(175 / 3)
    assert compressed.difference == pytest.approx(-12.5)  # over the seeds that both rows have
    assert compressed.verdict == "lower"
    assert compressed.values["fc_milliseconds"] == 3.25
    assert compressed.values["seconds_per_batch"] == 1.25


def test_tables_that_are_not_complete_are_left_out(setup):
    write_results(setup.out, "svd", [[0.5], []])
    assert lines_of(TABLES["svd"], setup.out) == []
    assert write_report(setup) == {}
    assert "##" not in (setup.out / "tables.md").read_text()


def test_markdown(setup):
    write_results(setup.out, "multi-task", [[0.5, 0.52], [0.51, 0.5], [0.53, 0.54], [0.6, 0.62]])
    figures = write_report(setup)
    text = (setup.out / "tables.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == ["", "mAP", "seeds", "difference", "paper, VOC07 (S / M / L)"]
    assert rows[2] == ["classification only", "51.0 ± 1.4", "2", "-10.0, lower", "52.2 / 54.7 / 62.6"]
    assert rows[5] == ["**multi-task training**", "61.0 ± 1.4", "2", "", "57.1 / 59.2 / 66.9"]
    assert len(rows) == 6
    assert figures == json.loads((setup.out / "tables.json").read_text(), object_hook=with_seeds)
    assert "8 images, tested on 4: tiny_network" in text


def with_seeds(value):
    """As read from JSON, whose keys are strings."""
    return {int(key) if key.isdecimal() else key: each for key, each in value.items()}


@pytest.mark.parametrize("name", ["layers", "proposals", "strides"])
def test_pictures_and_columns(setup, name):
    table = TABLES[name]
    write_results(setup.out, name, [[0.5 + 0.01 * row, 0.52] for row in range(len(table.rows))])
    write_report(setup)
    with Image.open(setup.out / f"tables-{name}.png") as picture:
        assert picture.size[0] > 600
    text = (setup.out / "tables.md").read_text()
    assert f"![{table.title}](tables-{name}.png)" in text
    assert ("0.75" in text) == ("seconds_per_batch" in table.columns)
    assert ("VOC07 (S" in text) == any(row.paper for row in table.rows)
