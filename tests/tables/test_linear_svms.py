"""Linear SVMs: the optimum against the dual problem solved otherwise, hard negatives, the model that they go into."""

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.tables.linear_svms import ClassSVM, negatives_of, with_linear_svms

C, BIAS, POSITIVE_WEIGHT = 0.001, 10.0, 2.0  # R-CNN's


def solved_by_the_dual(positives, negatives):
    """Weights and bias that minimise |w, b/10|^2 / 2 + C sum hinge, positives counting twice, by L-BFGS on the dual."""
    rows = np.concatenate([positives, -negatives])
    signs = np.repeat([BIAS, -BIAS], [len(positives), len(negatives)])
    rows = np.column_stack([rows, signs])
    limits = np.repeat([C * POSITIVE_WEIGHT, C], [len(positives), len(negatives)])

    def negative_dual(shares):
        weights = shares @ rows
        return weights @ weights / 2 - shares.sum(), rows @ weights - 1

    bounds = [(0, limit) for limit in limits]
    options = {"maxiter": 20_000, "maxfun": 100_000, "ftol": 1e-14, "gtol": 1e-10}
    found = scipy.optimize.minimize(negative_dual, limits / 2, jac=True, bounds=bounds, options=options)
    weights = found.x @ rows
    return weights[:-1], BIAS * weights[-1]


def features(count, center, seed):
    return np.random.default_rng(seed).normal(center, 4, (count, 6)).astype(np.float32)


def fresh_svm(positives):
    return ClassSVM(positives, np.zeros((0, 6), np.float32), np.zeros(6))


def test_scores_are_those_of_the_optimum():
    positives, negatives = features(20, 3, 0), features(60, -3, 1)
    svm = fresh_svm(positives)
    svm.mine(negatives)  # all score 0 before there is an SVM, and so are hard
    weights, bias = solved_by_the_dual(positives, negatives)
    everything = np.concatenate([positives, negatives])
    np.testing.assert_allclose(svm.scores(everything), everything @ weights + bias, atol=0.02)


def test_hard_negatives_are_kept_and_easy_ones_are_not():
    positives = features(20, 3, 0)
    svm = fresh_svm(positives)
    svm.mine(features(30, -3, 1))
    before = len(svm.negatives)
    hard, easy = positives - 0.5, features(40, -20, 2)
    assert (svm.scores(hard) > -1).any()
    assert (svm.scores(easy) < -1).all()
    expected = hard[svm.scores(hard) > -1]
    weights = svm.weights.copy()
    svm.mine(np.concatenate([hard, easy]))
    np.testing.assert_array_equal(np.concatenate(svm.waiting), expected)
    np.testing.assert_array_equal(svm.weights, weights)  # too few of them to train anew
    svm.fit()
    kept = {tuple(row) for row in svm.negatives}
    assert kept <= {tuple(row) for row in np.concatenate([features(30, -3, 1), expected])}
    assert (svm.scores(svm.negatives) >= -1.2).all()
    assert len(kept) > 0
    assert before <= 30
    assert not np.array_equal(svm.weights, weights)


def test_many_hard_negatives_train_it_anew_at_once():
    svm = fresh_svm(features(20, 3, 0))
    svm.mine(features(10, -3, 1))
    weights = svm.weights.copy()
    svm.mine(np.repeat(features(20, 3, 3), 100, axis=0))
    assert not np.array_equal(svm.weights, weights)
    assert not svm.waiting


def test_negatives_overlap_no_object_of_the_class_by_three_tenths():
    objects = [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]
    proposals = [[0, 0, 0.5, 0.5], [0, 0, 0.5, 1], [0, 0.2, 0.5, 0.9], [0.5, 0.5, 1, 1], [0, 0, 1, 1]]
    record = ImageRecord("image", "", 10, 10, objects, [1, 2], [False, False], proposal_boxes=proposals)
    # IoU with the first object: 1, 1/2, 0.15 / 0.45 = 1/3, 0, 1/4.
    np.testing.assert_array_equal(negatives_of(record, 1), [False, False, False, True, True])
    np.testing.assert_array_equal(negatives_of(record, 3), [True] * 5)


@pytest.fixture(scope="module")
def with_svms(tiny_run, prepared_digits):
    """The tiny run's model and the one with SVMs."""
    run = frcnn.load_run(tiny_run[0])
    settings = frcnn.detection_settings(run)
    return run.model, with_linear_svms(run.model, prepared_digits[0][:4], settings, progress=False)


def some_inputs():
    rng = np.random.default_rng(4)
    corners = np.sort(rng.uniform(0, 96, (1, 50, 2, 2)), axis=2)
    rois = corners.reshape(1, 50, 4).astype(np.float32)
    return {"images": rng.uniform(0, 255, (1, 96, 96, 3)).astype(np.float32), "rois": rois}


def test_all_but_the_class_scores_is_as_it_was(with_svms):
    before, after = with_svms
    inputs = some_inputs()
    found = after(inputs)
    np.testing.assert_array_equal(found["box_deltas"], before(inputs)["box_deltas"])
    np.testing.assert_array_equal(found["class_logits"][..., 0], np.zeros((1, 50)))
    changed = [
        layer.name
        for layer in before.layers
        if not all(map(np.array_equal, layer.get_weights(), after.get_layer(layer.name).get_weights()))
    ]
    assert changed == ["class_logits"]


def test_objects_score_above_background(with_svms, prepared_digits):
    """On the images that the SVMs were trained on."""
    _, model = with_svms
    above = []
    for record in prepared_digits[0][:4]:
        image = tf.image.resize(record.image(), [96, 128])[None].numpy()
        scale = np.float32([96, 128, 96, 128])
        objects, background = (
            model({"images": image, "rois": rois[None] * scale})["class_logits"][0].numpy()
            for rois in (record.boxes, record.proposals()[::20])
        )
        for row, label in zip(objects, record.class_ids, strict=True):
            above.append(row[label] - background[:, label].mean())
    assert np.mean(above) > 0
