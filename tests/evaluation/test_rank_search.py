"""How far layers are compressed by the mAP that may be lost."""

import types

import numpy as np
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import InputError, smallest_ranks
from tf_fast_rcnn.evaluation import rank_search
from tf_fast_rcnn.models.truncated_svd import factor_ranks


@pytest.fixture(scope="module")
def model(tiny_backbone):
    """fc6 of 72 x 30 and fc7 of 30 x 20, whose singular values fall slowly and steeply."""
    made = frcnn.fast_rcnn(tiny_backbone, 3, stride=8, roi_output_size=(3, 3), fc_units=(30, 20), seed=5)
    kernel, bias = made.get_layer("fc7").get_weights()
    left, _, right = np.linalg.svd(kernel, full_matrices=False)
    made.get_layer("fc7").set_weights([left * 2.0 ** -np.arange(20.0) @ right, bias])
    return made


def search(model, monkeypatch, mean_ap, max_loss):
    """`smallest_ranks` where a model with such ranks (72 x 30 and 30 x 20 for layers that are whole) has such a mAP."""
    asked = []

    def evaluate(candidate, dataset, protocol, **options):
        assert (dataset, protocol, options) == ("images", "coco", {"progress": False, "settings": "some"})
        asked.append(factor_ranks(candidate))
        return types.SimpleNamespace(mean_ap=mean_ap(asked[-1]))

    monkeypatch.setattr(rank_search, "evaluate", evaluate)
    found = smallest_ranks(model, "images", max_loss, "coco", progress=False, settings="some")
    return found, asked


def test_search_takes_the_smallest_that_lose_no_more(model, monkeypatch):
    def mean_ap(ranks):
        return 0.6 - 0.001 * max(0, 9 - ranks.get("fc6", 99)) - 0.002 * max(0, 6 - ranks.get("fc7", 99))

    found, asked = search(model, monkeypatch, mean_ap, max_loss=0.3)
    assert found == {"fc6": 6, "fc7": 6}
    assert asked[0] == {}
    assert len(asked) <= 15
    found, _ = search(model, monkeypatch, mean_ap, max_loss=0.0)
    assert found == {"fc6": 9, "fc7": 6}


def test_search_leaves_layers_that_cannot_be_made_smaller(model, monkeypatch):
    found, _ = search(model, monkeypatch, lambda ranks: 0.5 - 0.1 * ("fc6" in ranks), max_loss=1.0)
    assert found == {"fc7": 1}
    found, _ = search(model, monkeypatch, lambda ranks: 0.5 - 0.1 * bool(ranks), max_loss=1.0)
    assert found == {}


@pytest.mark.parametrize("max_loss", [-0.1, float("nan")])
def test_a_loss_is_a_number_of_points(model, max_loss):
    with pytest.raises(InputError, match=r"^max_loss: found .*; expected percentage points of mAP, from 0"):
        smallest_ranks(model, (), max_loss)
