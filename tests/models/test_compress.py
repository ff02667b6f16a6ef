"""How far layers are compressed: by number, by kept energy."""

import numpy as np
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import InputError, compress, compression_summary
from tf_fast_rcnn.models.truncated_svd import factor_ranks


@pytest.fixture(scope="module")
def model(tiny_backbone):
    """fc6 of 72 x 30 and fc7 of 30 x 20, whose singular values fall slowly and steeply."""
    made = frcnn.fast_rcnn(tiny_backbone, 3, stride=8, roi_output_size=(3, 3), fc_units=(30, 20), seed=5)
    kernel, bias = made.get_layer("fc7").get_weights()
    left, _, right = np.linalg.svd(kernel, full_matrices=False)
    made.get_layer("fc7").set_weights([left * 2.0 ** -np.arange(20.0) @ right, bias])
    return made


def smallest_rank(kernel, energy):
    """By trying them all."""
    squares = np.linalg.svd(np.float64(kernel), compute_uv=False) ** 2
    return next(rank for rank in range(1, len(squares) + 1) if squares[:rank].sum() >= energy * squares.sum() - 1e-9)


def test_the_first_and_the_second_layer_whatever_their_names(model):
    assert factor_ranks(compress(model, fc6=7, fc7=3)) == {"fc6": 7, "fc7": 3}
    assert factor_ranks(compress(model, fc7=3)) == {"fc7": 3}
    assert factor_ranks(compress(model, fc6=7, ranks={"class_logits": 2})) == {"fc6": 7, "class_logits": 2}


@pytest.mark.parametrize("energy", [0.3, 0.8, 0.99, 1.0])
def test_energy(model, energy):
    found = factor_ranks(compress(model, energy=energy))
    expected = {}
    for name, (inputs, outputs) in {"fc6": (72, 30), "fc7": (30, 20)}.items():
        rank = smallest_rank(model.get_layer(name).get_weights()[0], energy)
        # Where two layers would cost as much as one, it stays one.
        if rank * (inputs + outputs) < inputs * outputs:
            expected[name] = rank
    assert found == expected
    assert energy == 1.0 or "fc7" in found


def test_energy_is_for_layers_without_a_number(model):
    found = factor_ranks(compress(model, fc7=9, energy=0.5))
    assert found == {"fc6": smallest_rank(model.get_layer("fc6").get_weights()[0], 0.5), "fc7": 9}
    small = compress(model, fc7=2)
    assert factor_ranks(compress(small, energy=0.5)) == {"fc6": found["fc6"], "fc7": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "compress: found no layer to compress; expected fc6, fc7, energy or ranks"),
        ({"energy": 0}, "energy: found 0; expected a share above 0, at most 1"),
        ({"energy": 1.5}, "energy: found 1.5; expected"),
        ({"fc6": 31}, "fc6: found t = 31; expected a whole number from 1 to 30"),
        ({"fc6": 3, "ranks": {"fc6": 4}}, "fc6: found a second t for fc6, which ranks names"),
        ({"ranks": {"conv1": 4}}, "conv1: found no such fully connected layer"),
    ],
)
def test_what_makes_no_sense(model, options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        compress(model, **options)


def test_a_model_with_one_layer_has_no_fc7(tiny_model):
    with pytest.raises(
        InputError, match=r"^fc7: found the fully connected layers fc6; expected two or more; leave fc7 out"
    ):
        compress(tiny_model, fc7=2)


def test_summary(model):
    summary = compression_summary(model, compress(model, fc6=7))
    (layer,) = summary.layers
    kernel, _ = model.get_layer("fc6").get_weights()
    squares = np.linalg.svd(kernel, compute_uv=False) ** 2
    assert layer[:6] == ("fc6", 72, 30, 7, 72 * 30 + 30, 72 * 7 + 7 * 30 + 30)
    assert layer.energy == pytest.approx(squares[:7].sum() / squares.sum(), rel=1e-5)
    before, after = summary.parameters
    assert before - after == 72 * 30 - 7 * (72 + 30)
    rest = 30 * 20 + 20 * 4 + 20 * 12
    assert summary.flops_per_roi == (2 * (72 * 30 + rest), 2 * (7 * (72 + 30) + rest))
    assert summary.to_json()["layers"]["fc6"]["rank"] == 7
    assert "2,190 -> 744" in summary.table()
