"""Optimisers against steps of the published rules in NumPy, and against themselves after a file."""

import keras
import numpy as np
import pytest

from tf_fast_rcnn import adamw, fast_rcnn, multi_task_loss, sgd
from tf_fast_rcnn.training.averaging import averaged_weights, keep_raw_weights
from tf_fast_rcnn.training.optimizers import FineTuningAdamW, FineTuningSGD

RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.05


def named_variables():
    """A weight and a bias, as layers make them."""
    layer = keras.layers.Dense(2, kernel_initializer=keras.initializers.RandomNormal(seed=0), bias_initializer="ones")
    layer.build((None, 3))
    return layer.kernel, layer.bias


def gradients(step):
    rng = np.random.default_rng(step)
    return rng.normal(size=(3, 2)).astype(np.float32), rng.normal(size=2).astype(np.float32)


def tiny_detector():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    backbone = keras.Sequential(
        [keras.Input((16, 16, 3)), layers.Conv2D(4, 3, 2), layers.GlobalAveragePooling2D(), layers.Dense(2)]
    )
    return fast_rcnn(backbone, 2, stride=2, roi_output_size=(2, 2), fc_units=(6,), dropout=0.0)


def tiny_mini_batch():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 16, (2, 8, 2, 2)), axis=2).reshape(2, 8, 4)
    labels = rng.integers(-1, 3, (2, 8))
    targets = np.concatenate([labels[..., None], rng.normal(size=(2, 8, 4))], axis=-1)
    inputs = {"images": rng.normal(size=(2, 16, 16, 3)).astype(np.float32), "rois": corners.astype(np.float32)}
    return inputs, {"class_logits": labels.astype(np.int32), "box_deltas": targets.astype(np.float32)}


@pytest.mark.parametrize(("bias_lr_multiplier", "decay_biases"), [(2.0, False), (1.0, False), (2.0, True)])
def test_sgd_takes_caffes_steps(bias_lr_multiplier, decay_biases):
    """V = momentum V + rate_of_w (gradient + decay_of_w w); w = w - V. Biases: rate x multiplier, decay x 0 or 1."""
    kernel, bias = named_variables()
    weights = [kernel.numpy().astype(np.float64), bias.numpy().astype(np.float64)]
    velocities = [0.0, 0.0]
    optimizer = sgd(RATE, MOMENTUM, DECAY, bias_lr_multiplier, decay_biases)
    for step in range(3):
        values = gradients(step)
        optimizer.apply([keras.ops.convert_to_tensor(value) for value in values], [kernel, bias])
        for i, (rate, decay) in enumerate([(RATE, DECAY), (bias_lr_multiplier * RATE, DECAY * decay_biases)]):
            velocities[i] = MOMENTUM * velocities[i] + rate * (values[i] + decay * weights[i])
            weights[i] = weights[i] - velocities[i]
        np.testing.assert_allclose(kernel, weights[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(bias, weights[1], rtol=1e-5, atol=1e-6)


def test_sgds_defaults_are_the_papers():
    """Section 2.3: "a global learning rate of 0.001", momentum 0.9, decay 0.0005, biases at twice the rate."""
    config = sgd().get_config()
    found = [
        config[name] for name in ("learning_rate", "momentum", "gradient_decay", "bias_lr_multiplier", "weight_decay")
    ]
    np.testing.assert_allclose(found[:4], [0.001, 0.9, 0.0005, 2.0], rtol=1e-6)
    assert found[4] is None  # Keras's own decay, which is not Caffe's
    assert config["nesterov"] is False


def adamw_steps(weight, gradient_of_step, rate, decay, steps=3):
    """Algorithm 2 of Loshchilov and Hutter: the decay is a share of the variable's own rate."""
    first = second = 0.0
    for step in range(steps):
        gradient = gradient_of_step(step).astype(np.float64)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        corrected = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        weight = weight * (1 - rate * decay) - rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-7)
    return weight


@pytest.mark.parametrize("slow_lr_multiplier", [1.0, 0.25])
@pytest.mark.parametrize("decay_biases", [False, True])
def test_adamw_moves_and_decays_slow_variables_by_the_multiple(slow_lr_multiplier, decay_biases):
    kernel, bias = named_variables()
    start = kernel.numpy(), bias.numpy()
    decay = 2.0  # so large that a decay at another rate shows
    optimizer = FineTuningAdamW(
        RATE,
        decoupled_decay=decay,
        decay_biases=decay_biases,
        slow_variables=[kernel.path],
        slow_lr_multiplier=slow_lr_multiplier,
    )
    for step in range(3):
        optimizer.apply([keras.ops.convert_to_tensor(value) for value in gradients(step)], [kernel, bias])
    expected_kernel = adamw_steps(start[0], lambda step: gradients(step)[0], slow_lr_multiplier * RATE, decay)
    expected_bias = adamw_steps(start[1], lambda step: gradients(step)[1], RATE, decay * decay_biases)
    np.testing.assert_allclose(kernel, expected_kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bias, expected_bias, rtol=1e-4, atol=1e-5)


def test_adamw_at_one_rate_is_keras_own():
    """Keras's AdamW, which knows no slow variables, as the reference."""
    found, expected = named_variables(), named_variables()
    reference = keras.optimizers.AdamW(RATE, weight_decay=DECAY)
    for optimizer, variables in [
        (FineTuningAdamW(RATE, decoupled_decay=DECAY, decay_biases=True), found),
        (reference, expected),
    ]:
        for step in range(3):
            optimizer.apply([keras.ops.convert_to_tensor(value) for value in gradients(step)], list(variables))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_adamw_slows_the_backbone_alone():
    """Adam's first step is the rate itself, whatever the gradient (unless it is as small as Adam's epsilon)."""
    model = tiny_detector()
    model.compile(optimizer=adamw(model, 0.01, 0.25, weight_decay=0.0), loss=multi_task_loss(model), jit_compile=False)
    before = [variable.numpy() for variable in model.trainable_variables]
    model.train_on_batch(*tiny_mini_batch())
    backbone = {id(variable) for variable in model.get_layer("convolutions").trainable_variables}
    assert len(backbone) == 2
    for variable, start in zip(model.trainable_variables, before, strict=True):
        expected = 0.0025 if id(variable) in backbone else 0.01
        np.testing.assert_allclose(np.abs(variable.numpy() - start).max(), expected, rtol=0.01, err_msg=variable.path)


@pytest.mark.parametrize(
    ("optimizer", "earlier", "name"),
    [
        (FineTuningSGD(0.2, bias_lr_multiplier=3.0), "bias_rate", "bias_lr_multiplier"),
        (FineTuningAdamW(0.2, slow_lr_multiplier=0.3), "slow_rate", "slow_lr_multiplier"),
    ],
    ids=["sgd", "adamw"],
)
def test_a_configuration_of_0_1_is_read(optimizer, earlier, name):
    saved = keras.optimizers.serialize(optimizer)
    saved["config"][earlier] = saved["config"].pop(name)
    read = keras.optimizers.deserialize(saved)
    assert type(read) is type(optimizer)
    assert read.get_config() == optimizer.get_config()


@pytest.mark.parametrize(
    "optimizer",
    [
        FineTuningSGD(0.2, momentum=0.8, gradient_decay=0.03, bias_lr_multiplier=3.0),
        FineTuningAdamW(0.2, decoupled_decay=0.03, slow_variables=["b/kernel", "a/kernel"], slow_lr_multiplier=0.3),
        sgd(keras.optimizers.schedules.CosineDecay(0.1, 50)),
    ],
    ids=["sgd", "adamw", "schedule"],
)
def test_configuration_round_trip(optimizer):
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(copy) is type(optimizer)
    assert copy.get_config() == optimizer.get_config()
    assert {"bias_lr_multiplier", "slow_lr_multiplier"} & set(copy.get_config())


def optimizer_with(name, model, **options):
    """Rates and decays so large that every part of a step shows."""
    return sgd(0.1, weight_decay=0.1, **options) if name == "sgd" else adamw(model, 0.02, 0.2, 5.0, **options)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_saved_model_goes_on_as_if_it_had_not_been_saved(tmp_path, name):
    """Momentum, step count, slow variables and what does not decay: all must survive the file."""
    inputs, targets = tiny_mini_batch()
    model = tiny_detector()
    model.compile(optimizer=optimizer_with(name, model), loss=multi_task_loss(model), jit_compile=False)
    for _ in range(2):
        model.train_on_batch(inputs, targets)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 2
    for each in (model, loaded):
        for _ in range(2):
            each.train_on_batch(inputs, targets)
    assert len(model.trainable_variables) == 8
    for found, expected in zip(loaded.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7, err_msg=expected.path)
    for found, expected in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7, err_msg=expected.path)


# --- accumulated gradients, averaged weights --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_accumulated_parts_are_one_large_mini_batch(name):
    """Two images at once, and one after the other: as many RoIs are used of each, so that the mean of the parts'
    losses is the loss of the whole."""
    inputs, targets = tiny_mini_batch()
    labels = np.abs(targets["class_logits"])
    targets = {"class_logits": labels, "box_deltas": targets["box_deltas"].copy()}
    targets["box_deltas"][..., 0] = labels
    trained = []
    for parts in (1, 2):
        model = tiny_detector()
        options = {"gradient_accumulation_steps": parts} if parts > 1 else {}
        optimizer = optimizer_with(name, model, **options)
        model.compile(optimizer=optimizer, loss=multi_task_loss(model), jit_compile=False)
        for _ in range(3):
            for part in range(parts):
                images = slice(None) if parts == 1 else slice(part, part + 1)
                model.train_on_batch(
                    {key: value[images] for key, value in inputs.items()},
                    {key: value[images] for key, value in targets.items()},
                )
        trained.append(model)
    start = tiny_detector()
    for whole, in_parts, before in zip(*(model.trainable_variables for model in (*trained, start)), strict=True):
        np.testing.assert_allclose(in_parts, whole, rtol=1e-4, atol=2e-5, err_msg=whole.path)
        assert np.abs(whole.numpy() - before.numpy()).max() > 1e-3, whole.path


def test_the_average_of_the_weights_is_the_recursion():
    inputs, targets = tiny_mini_batch()
    model = tiny_detector()
    optimizer = sgd(0.1, use_ema=True, ema_momentum=0.75)
    model.compile(optimizer=optimizer, loss=multi_task_loss(model), jit_compile=False)
    expected = None
    for _ in range(4):
        model.train_on_batch(inputs, targets)
        raw = [variable.numpy() for variable in model.trainable_variables]
        expected = raw if expected is None else [0.75 * a + 0.25 * w for a, w in zip(expected, raw, strict=True)]
    keep_raw_weights(model)
    optimizer.finalize_variable_values(model.trainable_variables)
    with averaged_weights(model):
        found = [variable.numpy() for variable in model.trainable_variables]
    for average, by_hand, weight in zip(found, expected, raw, strict=True):
        np.testing.assert_allclose(average, by_hand, rtol=1e-5, atol=1e-6)
        assert np.abs(average - weight).max() > 1e-5
    for variable, weight in zip(model.trainable_variables, raw, strict=True):
        np.testing.assert_array_equal(variable, weight)


def test_without_an_average_the_weights_are_the_weights():
    model = tiny_detector()
    before = model.get_weights()
    with averaged_weights(model):
        for found, expected in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(found, expected)
