"""The rows of the tables: every row can be measured, and no two results share a file."""

import itertools

import pytest

from tf_fast_rcnn.tables.definitions import TABLES, measurements
from tf_fast_rcnn.tables.proposals import ProposalChoice
from tf_fast_rcnn.tables.trainings import TRAININGS, base_recipe, five_scales, middle_layer

# Of the paper's tables 4 to 8: mAP of S, M, L on VOC07.
PAPER = {
    "multi-task": [(52.2, 54.7, 62.6), (53.3, 55.5, 63.4), (54.6, 56.6, 64.0), (57.1, 59.2, 66.9)],
    "svms": [(57.1, 59.2, 66.9), (56.3, 58.7, 66.8)],
    "svd": [(57.1, 59.2, 66.9), (56.5, 58.7, 66.6)],
}


def test_measurements_have_different_files():
    found = measurements(TABLES)
    assert len({(each.training, each.name) for each in found}) == len(found) == len(set(found))
    assert {each.training for each in found} <= set(TRAININGS)


def test_measurements_are_grouped_by_training():
    trainings = [each.training for each in measurements(TABLES)]
    assert len(set(trainings)) == 1 + sum(one != other for one, other in itertools.pairwise(trainings))


def test_each_table_has_its_reference_and_its_curves_have_rows():
    for table in TABLES.values():
        assert 0 <= table.reference < len(table.rows)
        assert all(0 <= row < len(table.rows) for curve in table.curves.values() for row in curve.rows)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_figures(name):
    assert [tuple(row.paper.values()) for row in TABLES[name].rows] == PAPER[name]
    assert all(list(row.paper) == ["S", "M", "L"] for row in TABLES[name].rows)


def test_a_full_training_serves_the_papers_tables():
    named = ("multi-task", "layers", "scales", "svms", "proposals", "svd")
    assert all(
        TABLES[name].rows[TABLES[name].reference].measurement == TABLES["svd"].rows[0].measurement for name in named
    )


def test_names_describe_the_measurement():
    names = {each.name for each in measurements(TABLES)}
    assert {"as-trained", "no-boxes", "svms", "svd", "5-scales", "2-passes", "selective-search-50-random"} <= names
    assert ProposalChoice() == ProposalChoice("selective search")


def test_the_base_recipe_keeps_the_proportions_of_the_image_limits():
    recipe = base_recipe("voc07", 50, 300)
    assert (recipe.steps, recipe.network.stride) == (50, 16)
    assert (recipe.sampling.shorter_side, recipe.sampling.longer_side) == (300, 500)
    assert five_scales(recipe) == ((240, 288, 344, 432, 600), 1000)
    assert five_scales(base_recipe("voc07", 50, 600)) == ((480, 576, 688, 864, 1200), 2000)  # section 5.2


def test_middle_layer(tiny_backbone):
    assert middle_layer(tiny_backbone, 8) == "conv2"
