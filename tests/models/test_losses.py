"""The multi-task loss compared with loops over RoIs and with numbers computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_fast_rcnn import multi_task_loss
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.losses import BoxLoss, ClassLoss, smooth_l1

CLASSES = 3
DEVIATION = np.float32([[0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4], [0.5, 0.5, 2, 2]])


def naive_class_loss(labels, logits):
    total, count = 0.0, 0
    for b, r in np.ndindex(labels.shape):
        if labels[b, r] >= 0:
            exponentials = np.exp(logits[b, r].astype(np.float64))
            total -= np.log(exponentials[labels[b, r]] / exponentials.sum())
            count += 1
    return total / max(count, 1)


def naive_box_loss(targets, deltas, std, weight=1.0):
    total, count = 0.0, 0
    for b, r in np.ndindex(targets.shape[:2]):
        label = int(targets[b, r, 0])
        count += label >= 0
        for side in range(4) if label >= 1 else ():
            x = abs(deltas[b, r, label - 1, side] - targets[b, r, 1 + side]) / std[label - 1][side]
            total += 0.5 * x * x if x < 1 else x - 0.5
    return weight * total / max(count, 1)


def random_mini_batch(seed, images=2, rois=9):
    """Labels with ignored, background and all classes; differences on both sides of smooth L1's corner."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.resize(np.arange(-1, CLASSES + 1), images * rois)).reshape(images, rois)
    deltas = rng.normal(size=(images, rois, CLASSES, 4))
    targets = np.concatenate([labels[..., None], rng.normal(size=(images, rois, 4))], axis=-1)
    logits = rng.normal(scale=3, size=(images, rois, CLASSES + 1))
    return labels.astype(np.int32), logits.astype(np.float32), targets.astype(np.float32), deltas.astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("compiled", [False, True])
def test_both_losses_equal_the_naive_loops(seed, compiled):
    labels, logits, targets, deltas = random_mini_batch(seed)
    wrap = tf.function if compiled else lambda function: function
    class_loss = wrap(ClassLoss())(tf.constant(labels), tf.constant(logits))
    box_loss = wrap(BoxLoss(DEVIATION, 0.7))(tf.constant(targets), tf.constant(deltas))
    np.testing.assert_allclose(class_loss, naive_class_loss(labels, logits), rtol=1e-5)
    np.testing.assert_allclose(box_loss, naive_box_loss(targets, deltas, DEVIATION, 0.7), rtol=1e-5)


@pytest.mark.parametrize(("x", "expected"), [(0.0, 0.0), (0.5, 0.125), (1.0, 0.5), (3.0, 2.5)])
def test_smooth_l1_by_hand(x, expected):
    assert smooth_l1(tf.constant(x)).numpy() == smooth_l1(tf.constant(-x)).numpy() == expected


@pytest.mark.parametrize(("x", "slope"), [(0.5, 0.5), (1.0, 1.0), (3.0, 1.0), (-0.5, -0.5), (-1e20, -1.0)])
def test_smooth_l1s_slope_is_at_most_1(x, slope):
    """Section 2.3: the loss is less sensitive to outliers than L2, whose gradients explode."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = smooth_l1(x)
    assert tape.gradient(loss, x).numpy() == np.float32(slope)


def test_one_roi_by_hand():
    """Class 2 of 2, standard deviations 1: differences 0.5, -1, 3 and 0 cost 0.125 + 0.5 + 2.5 + 0 = 3.125."""
    targets = tf.constant([[[2.0, 1.0, 1.0, 1.0, 1.0]]])
    deltas = tf.constant([[[[9.0, 9.0, 9.0, 9.0], [1.5, 0.0, 4.0, 1.0]]]])
    assert BoxLoss(np.ones((2, 4)))(targets, deltas).numpy() == 3.125
    logits = tf.math.log([[[0.25, 0.25, 0.5]]])
    np.testing.assert_allclose(ClassLoss()(tf.constant([[2]]), logits), np.log(2), rtol=1e-6)


def test_both_losses_are_divided_by_the_number_of_labels_from_0_on():
    """One foreground RoI alone, then together with background, then also with ignored RoIs."""
    deltas, logits = tf.zeros([1, 4, 1, 4]), tf.zeros([1, 4, 2])
    for others, count in [([-1, -1, -1], 1), ([0, -1, -1], 2), ([0, 0, 0], 4)]:
        labels = np.float32([[1, *others]])
        targets = np.concatenate([labels[..., None], np.full((1, 4, 4), 1.5, np.float32)], axis=-1)
        np.testing.assert_allclose(BoxLoss(np.ones((1, 4)))(targets, deltas), 4 * 1.0 / count)
        np.testing.assert_allclose(ClassLoss()(labels, logits), np.log(2), rtol=1e-6)


def test_a_mini_batch_of_ignored_rois_costs_nothing():
    """Not even if the network's outputs are large."""
    labels = -np.ones((2, 3), np.int32)
    targets, deltas = tf.fill([2, 3, 5], -1.0), tf.fill([2, 3, CLASSES, 4], 1e6)
    logits = tf.constant(np.random.default_rng(0).normal(scale=1e3, size=(2, 3, CLASSES + 1)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([logits, deltas])
        loss = ClassLoss()(labels, logits) + BoxLoss(DEVIATION)(targets, deltas)
    assert loss.numpy() == 0
    for gradient in tape.gradient(loss, [logits, deltas]):
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


def test_only_the_true_classs_box_has_a_gradient():
    _, _, targets, deltas = random_mini_batch(0)
    deltas = tf.constant(deltas)
    with tf.GradientTape() as tape:
        tape.watch(deltas)
        loss = BoxLoss(DEVIATION)(targets, deltas)
    gradient = tape.gradient(loss, deltas).numpy()
    is_true_class = targets[..., :1] == np.arange(1, CLASSES + 1)
    np.testing.assert_array_equal(gradient[~is_true_class], 0)
    assert (gradient[is_true_class] != 0).all()


@pytest.mark.parametrize("loss", [ClassLoss(), ClassLoss([1, 2, 3, 4]), BoxLoss(DEVIATION, 0.7)])
def test_serialisation_round_trip(loss):
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(copy) is type(loss)
    assert copy.get_config() == loss.get_config()
    labels, logits, targets, deltas = random_mini_batch(1)
    arguments = (labels, logits) if isinstance(loss, ClassLoss) else (targets, deltas)
    assert copy(*arguments).numpy() == loss(*arguments).numpy() > 0


def linear_detector():
    """Regression and scores computed directly from the RoIs, with the layer whose statistics the losses use."""
    from tf_fast_rcnn.models.fast_rcnn import BoxDenormalization

    rois = keras.Input((None, 4), name="rois")
    values = keras.layers.Reshape((-1, CLASSES, 4))(keras.layers.Dense(4 * CLASSES)(rois))
    deltas = BoxDenormalization(np.full((CLASSES, 4), 0.5), DEVIATION, name="box_deltas")(values)
    logits = keras.layers.Dense(CLASSES + 1, name="class_logits")(rois)
    return keras.Model({"rois": rois}, {"class_logits": logits, "box_deltas": deltas})


def test_keras_adds_the_two_losses_up_and_fit_reduces_them():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    rois = rng.uniform(-1, 1, (2, 40, 4)).astype(np.float32)
    labels = np.where(rois[..., 0] > 0.8, -1, (rois[..., 1] > 0) * (1 + (rois[..., 2] > 0))).astype(np.int32)
    targets = np.concatenate([labels[..., None].astype(np.float32), rois @ rng.normal(size=(4, 4))], axis=-1)
    inputs, outputs = {"rois": rois}, {"class_logits": labels, "box_deltas": targets.astype(np.float32)}

    model = linear_detector()
    model.compile(optimizer=keras.optimizers.SGD(0.3), loss=multi_task_loss(model, box_weight=0.5))
    predicted = model.predict(inputs, verbose=0)
    before = model.evaluate(inputs, outputs, verbose=0, return_dict=True)
    class_loss = naive_class_loss(labels, predicted["class_logits"])
    box_loss = naive_box_loss(outputs["box_deltas"], predicted["box_deltas"], DEVIATION, 0.5)
    np.testing.assert_allclose(
        [before["class_logits_loss"], before["box_deltas_loss"], before["loss"]],
        [class_loss, box_loss, class_loss + box_loss],
        rtol=1e-4,
    )
    model.fit(inputs, outputs, epochs=60, verbose=0)
    after = model.evaluate(inputs, outputs, verbose=0, return_dict=True)
    assert after["class_logits_loss"] < 0.6 * before["class_logits_loss"]
    assert after["box_deltas_loss"] < 0.6 * before["box_deltas_loss"]


def test_class_weights_multiply_each_rois_loss():
    """Compared with the loop; the divisor is still the number of RoIs, so the box loss keeps its weight."""
    labels, logits, _, _ = random_mini_batch(3)
    weights = [0.5, 1.0, 3.0, 0.0]
    expected = 0.0
    for b, r in np.ndindex(labels.shape):
        if labels[b, r] >= 0:
            alone = np.full_like(labels, -1)
            alone[b, r] = labels[b, r]
            expected += weights[labels[b, r]] * naive_class_loss(alone, logits)
    expected /= (labels >= 0).sum()
    np.testing.assert_allclose(ClassLoss(weights)(labels, logits), expected, rtol=1e-5)
    np.testing.assert_allclose(ClassLoss([1.0] * 4)(labels, logits), naive_class_loss(labels, logits), rtol=1e-5)


def test_class_weights_reach_the_class_loss_alone():
    losses = multi_task_loss(linear_detector(), class_weights=[1, 2, 3, 4])
    assert losses["class_logits"].class_weights == [1.0, 2.0, 3.0, 4.0]
    assert losses["box_deltas"].get_config() == multi_task_loss(linear_detector())["box_deltas"].get_config()


# --- weights of images and of RoIs ------------------------------------------------------------------------------------

# Two images with two RoIs each: foreground of class 1 and background; foreground of class 1 and an ignored RoI. Three
# labels count. Class losses: p = 1/2, 1/4, 1/8 cost log 2, log 4 and log 8. Box losses: |x| - 0.5 = 1 and 2 for each of
# four sides.
WEIGHED_LABELS = np.int32([[1, 0], [1, -1]])
WEIGHED_LOGITS = np.log(np.float32([[[0.5, 0.5], [0.25, 0.75]], [[0.875, 0.125], [0.5, 0.5]]]))
WEIGHED_TARGETS = np.float32([[[1, 1.5, 1.5, 1.5, 1.5], [0] * 5], [[1, 2.5, 2.5, 2.5, 2.5], [-1, 9, 9, 9, 9]]])
LOG_2 = np.log(2.0)


@pytest.mark.parametrize(
    ("weights", "class_sum", "box_sum"),
    [
        (None, (1 + 2 + 3) * LOG_2, 4 * 1 + 4 * 2),
        ([1, 1], (1 + 2 + 3) * LOG_2, 4 * 1 + 4 * 2),
        ([2, 2], 2 * (1 + 2 + 3) * LOG_2, 2 * (4 * 1 + 4 * 2)),
        ([1, 0], (1 + 2) * LOG_2, 4 * 1),
        ([0, 1], 3 * LOG_2, 4 * 2),
        ([[1], [0]], (1 + 2) * LOG_2, 4 * 1),
        ([[0, 5], [0.5, 7]], (5 * 2 + 0.5 * 3) * LOG_2, 0.5 * 4 * 2),
        ([[0, 0], [0, 1]], 0, 0),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_sample_weights_by_hand(weights, class_sum, box_sum, compiled):
    """As in Keras's losses, a weight multiplies its loss, and the divisor stays: here the three labels from 0 on."""
    wrap = tf.function if compiled else lambda function: function
    weights = None if weights is None else np.float32(weights)
    class_loss = wrap(ClassLoss())(WEIGHED_LABELS, WEIGHED_LOGITS, weights)
    box_loss = wrap(BoxLoss(np.ones((1, 4))))(WEIGHED_TARGETS, np.zeros((2, 2, 1, 4), np.float32), weights)
    np.testing.assert_allclose([class_loss, box_loss], [class_sum / 3, box_sum / 3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weights", [[1, 0], [[1, 1], [0, 0]]])
def test_sample_weights_in_evaluate_and_fit(weights):
    """An image of weight 0 changes nothing but the divisor."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES + 1, (2, 2)).astype(np.int32)
    targets = np.concatenate([labels[..., None], rng.normal(size=(2, 2, 4))], axis=-1).astype(np.float32)
    rois = {"rois": rng.uniform(-1, 1, (2, 2, 4)).astype(np.float32)}
    others = {"rois": np.concatenate([rois["rois"][:1], rois["rois"][1:] + 1])}
    expected = {"class_logits": labels, "box_deltas": targets}
    keras.utils.set_random_seed(0)
    model = linear_detector()
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=multi_task_loss(model))
    weights = np.float32(weights)
    if weights.ndim == 2:  # Keras takes these for each output
        weights = dict.fromkeys(expected, weights)
    first, second = (
        model.evaluate(inputs, expected, sample_weight=weights, batch_size=2, verbose=0) for inputs in (rois, others)
    )
    np.testing.assert_array_equal(first, second)
    assert first[0] < model.evaluate(rois, expected, batch_size=2, verbose=0)[0]
    start = model.get_weights()
    found = []
    for inputs in (rois, others):
        model.set_weights(start)
        model.fit(inputs, expected, sample_weight=weights, batch_size=2, verbose=0, shuffle=False)
        found.append(model.get_weights())
    for one, other, before in zip(*found, start, strict=True):
        np.testing.assert_array_equal(one, other)
        assert (one != before).any()


@pytest.mark.parametrize("shape", [(), (2, 3), (2, 2, 1), (1, 2, 2)])
def test_sample_weights_of_another_shape_are_an_input_error(shape):
    with pytest.raises(InputError, match=r"^sample_weight: found shape .*; expected \[B\] .* or \[B, R\] .*\(2, 2\)"):
        ClassLoss()(WEIGHED_LABELS, WEIGHED_LOGITS, np.ones(shape, np.float32))


def test_the_losses_are_float32_under_any_default():
    before = keras.config.floatx()
    keras.config.set_floatx("float16")
    try:
        losses = ClassLoss(), BoxLoss(DEVIATION)
    finally:
        keras.config.set_floatx(before)
    assert [loss.dtype for loss in losses] == ["float32", "float32"]
    labels = np.ones((1, 70000), np.int32)  # more than float16 can count
    assert losses[0](labels, tf.zeros([1, 70000, 2])).numpy() == pytest.approx(LOG_2, rel=1e-4)
