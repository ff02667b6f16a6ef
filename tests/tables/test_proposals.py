"""Proposals that are chosen at random, mixed and replaced."""

import dataclasses

import numpy as np
import pytest

from tf_fast_rcnn.tables.proposals import ALL_SIZES, DENSE, ProposalChoice, choose, proposal_facts

GRID = np.float32([[y, x, y + 0.5, x + 0.5] for y in (0, 0.25, 0.5) for x in (0, 0.25, 0.5)])


def proposals(count):
    corners = np.sort(np.random.default_rng(count).uniform(0, 1, (count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32)


def chosen(choice, of=None, seed=0):
    return choose(proposals(30) if of is None else of, GRID, choice, np.random.default_rng(seed))


def rows(boxes):
    return {tuple(box) for box in boxes}


@pytest.mark.parametrize(("number", "count"), [(5, 5), (30, 30), (500, 30), (None, 30)])
def test_a_number_of_proposals_is_chosen(number, count):
    found = chosen(ProposalChoice(number=number))
    assert len(found) == len(rows(found)) == count
    assert rows(found) <= rows(proposals(30))


def test_a_larger_number_contains_the_smaller_ones_of_the_seed():
    assert rows(chosen(ProposalChoice(number=5))) < rows(chosen(ProposalChoice(number=20)))
    assert rows(chosen(ProposalChoice(number=5))) != rows(chosen(ProposalChoice(number=5), seed=1))


@pytest.mark.parametrize(("dense", "added"), [(0, 0), (4, 4), (100, 9)])
def test_dense_boxes_are_added(dense, added):
    found = chosen(ProposalChoice(dense=dense))
    assert rows(found[:30]) == rows(proposals(30))
    assert len(found) == 30 + added
    assert rows(found[30:]) <= rows(GRID)


def test_each_is_replaced_by_the_dense_box_that_overlaps_it_most():
    near = GRID[[0, 4, 8]] + np.float32([0.01, 0.02, 0, 0.01])
    found = chosen(ProposalChoice(nearest_dense=True), of=near)
    assert rows(found) == rows(GRID[[0, 4, 8]])


def test_an_image_without_proposals_gets_dense_boxes_alone():
    none = np.zeros((0, 4), np.float32)
    assert chosen(ProposalChoice(number=5), of=none).shape == (0, 4)
    assert rows(chosen(ProposalChoice(dense=9), of=none)) == rows(GRID)


def test_a_dataset_with_the_proposals_of_a_choice(setup_in, tmp_path):
    setup = setup_in(tmp_path)
    whole = setup.store.of(setup.test, ProposalChoice(DENSE))
    few = setup.store.of(setup.test, ProposalChoice(DENSE, number=7), seed=3)
    again = setup.store.of(setup.test, ProposalChoice(DENSE, number=7), seed=3)
    assert [len(record.proposals()) for record in few] == [7] * len(setup.test)
    for all_of, some, same in zip(whole, few, again, strict=True):
        assert rows(some.proposals()) <= rows(all_of.proposals())
        np.testing.assert_array_equal(some.proposals(), same.proposals())
        np.testing.assert_array_equal(some.boxes, all_of.boxes)
    assert proposal_facts(few)["proposals"] == 7


def test_facts_are_means(setup_in, tmp_path):
    """Average recall is 1 if the proposals are the ground truth boxes, and 0 without proposals."""
    data = setup_in(tmp_path).store.of(setup_in(tmp_path).test, ProposalChoice(ALL_SIZES, number=1))
    found = data.with_records([dataclasses.replace(record, proposal_boxes=record.boxes) for record in data])
    facts = proposal_facts(found)
    assert facts["average_recall"] == 1
    assert facts["proposals"] == pytest.approx(np.mean([len(record.boxes) for record in data]))
    lost = data.with_records([dataclasses.replace(record, proposal_boxes=np.zeros((0, 4))) for record in data])
    assert proposal_facts(lost) == {"proposals": 0, "average_recall": 0}
