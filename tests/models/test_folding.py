"""Networks with batch normalisation in their convolutions against Keras's own run of the same layers."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.models.folding import Followers, compiled_convolutions, followers_of_convolutions
from tf_fast_rcnn.models.pretrained import PretrainedNetwork, freeze_normalization

layers = keras.layers


def with_random_weights(network, seed=0):
    """Sets all weights, including the statistics of batch normalisation, to random values."""
    rng = np.random.default_rng(seed)
    for variable in network.variables:
        if variable.path.endswith(("variance", "gamma")):
            variable.assign(rng.uniform(0.3, 3, variable.shape))
        else:
            variable.assign(rng.normal(0, 1 / np.sqrt(max(1, np.prod(variable.shape[:-1]))), variable.shape))
    return network


def images(seed=0, channels=3):
    return np.random.default_rng(seed).normal(size=(2, 13, 11, channels)).astype(np.float32)


def pair(inputs, outputs):
    """The same layers as a plain Keras model, whose batch normalisation is not frozen, and as a `PretrainedNetwork`."""
    plain = with_random_weights(keras.Model(inputs, outputs))
    return plain, PretrainedNetwork(inputs, outputs)


def operations(network, inputs):
    """The kinds of the operations on feature maps in inference; without those on kernels."""
    function = tf.function(lambda x: network(x, training=False), autograph=False)
    graph = function.get_concrete_function(tf.TensorSpec(inputs.shape)).graph
    found = [each for each in graph.get_operations() if each.outputs and each.outputs[0].shape.rank == 4]
    kernels = ["ReadVariableOp" in {source.op.type for source in each.inputs} and each.type == "Mul" for each in found]
    return collections.Counter(each.type for each, of_kernel in zip(found, kernels, strict=True) if not of_kernel)


def gradients(network, inputs, training):
    """The outputs, and the gradients of their weighted sum by variable."""
    with tf.GradientTape() as tape:
        outputs = keras.tree.flatten(network(inputs, training=training))
        weights = [tf.random.stateless_normal(each.shape, (0, 1)) for each in outputs]
        total = tf.add_n([tf.reduce_sum(each * weight) for each, weight in zip(outputs, weights, strict=True)])
    variables = network.trainable_variables
    found = tape.gradient(total, [each.value for each in variables])
    return outputs, dict(zip([each.path for each in variables], found, strict=True))


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def assert_same(network, other, inputs):
    """Outputs and gradients are the same, the batch normalisation of both being frozen."""
    freeze_normalization(network)
    for training in (False, True):
        (expected, by_path), (found, mine) = (gradients(each, inputs, training) for each in (network, other))
        for one, two in zip(found, expected, strict=True):
            assert_close(one, two)
        assert mine.keys() == by_path.keys()
        for path, gradient in by_path.items():
            assert_close(mine[path], gradient)


@given(
    kind=st.sampled_from([layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D]),
    use_bias=st.booleans(),
    scale=st.booleans(),
    center=st.booleans(),
    strides=st.sampled_from([1, 2]),
    padding=st.sampled_from(["same", "valid"]),
    multiplier=st.sampled_from([1, 2]),
)
@settings(max_examples=30, deadline=None)
def test_a_convolution_includes_its_normalization(kind, use_bias, scale, center, strides, padding, multiplier):
    several = {} if kind is layers.Conv2D else {"depth_multiplier": multiplier}
    filters = () if kind is layers.DepthwiseConv2D else (5,)
    inputs = keras.Input((None, None, 3))
    maps = kind(*filters, kernel_size=3, strides=strides, padding=padding, use_bias=use_bias, name="conv", **several)(
        inputs
    )
    maps = layers.BatchNormalization(scale=scale, center=center, epsilon=0.01, name="bn")(maps)
    plain, network = pair(inputs, layers.ReLU(6.0, name="relu")(maps))
    assert followers_of_convolutions(plain) == {"conv": Followers("bn", "relu", "relu6")}
    assert_same(plain, network, tf.constant(images()))
    found = operations(network, images())
    assert found["BiasAdd"] == 1
    assert not found["Mul"] + found["AddV2"] + found["Sub"], found


def graph_of(network, shape, training, differentiate=False):
    """The kinds of all operations of a call, and of the gradients with respect to the trainable weights."""

    @tf.function(autograph=False)
    def call(maps):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(network(maps, training=training))
        return tape.gradient(total, [each.value for each in network.trainable_variables]) if differentiate else total

    operations = call.get_concrete_function(tf.TensorSpec(shape)).graph.get_operations()
    return collections.Counter(each.type for each in operations)


def separable(activation):
    """A network of a depthwise and a 1x1 convolution, each followed by normalisation and an activation."""
    inputs = keras.Input((None, None, 3))
    maps = activation(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(inputs)))
    outputs = activation(layers.BatchNormalization()(layers.Conv2D(4, 1)(maps)))
    plain, network = pair(inputs, outputs)
    freeze_normalization(plain)
    return plain, network


@pytest.mark.parametrize("training", [False, True])
def test_only_training_uses_compiled_ops_by_itself(training):
    """Graphs for inference can be exported."""
    _, network = separable(layers.ReLU(6.0))
    names = graph_of(network, [1, 9, 9, 3], training, differentiate=True)
    compiled = {name for name in names if name.startswith("TfFastRcnn")}
    # Nothing needs the gradient of the images.
    assert compiled >= {"TfFastRcnn>DepthwiseConv", "TfFastRcnn>DepthwiseConvFilterGrad"} if training else not compiled
    assert ("DepthwiseConv2dNativeBackpropFilter" in names) != training
    assert ("Conv2D" in names) != training


@pytest.mark.parametrize(
    ("activation", "included"),
    [
        (layers.ReLU(6.0), True),
        (layers.ReLU(), True),
        (layers.Activation("relu6"), True),
        (layers.Activation("relu"), True),
        (layers.Activation("swish"), False),
        (layers.ReLU(5.0), False),
        (layers.ReLU(negative_slope=0.1), False),
        (layers.ReLU(threshold=0.5), False),
    ],
    ids=lambda value: str(getattr(value, "get_config", lambda value=value: value)()),
)
@pytest.mark.parametrize("training", [False, True])
def test_compiled_convolutions(activation, included, training):
    plain, network = separable(
        lambda maps: type(activation).from_config(activation.get_config() | {"name": None})(maps)
    )
    with compiled_convolutions():
        names = graph_of(network, [1, 9, 9, 3], training)
        found = network(images(), training=training)
    assert_close(found, plain(images(), training=training))
    assert names["TfFastRcnn>DepthwiseConv"] == 1
    assert "DepthwiseConv2dNative" not in names
    assert "Conv2D" not in names
    if included:  # The matrix product has TensorFlow's activation, and the compiled op has its own.
        assert names["Relu"] + names["Relu6"] == 1


def test_an_activation_that_is_used_twice():
    """Its own output may have any users, but the map before it has no others."""
    inputs = keras.Input((None, None, 3))
    maps = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(inputs))
    plain, network = pair(inputs, layers.Add()([layers.ReLU(6.0)(maps), maps]))
    assert [each.activation for each in followers_of_convolutions(plain).values()] == [None]
    with compiled_convolutions():
        assert_same(plain, network, tf.constant(images()))


def test_compiled_convolutions_in_bfloat16():
    """The compiled op computes in float32 only, so TensorFlow's runs."""
    with keras.device("cpu"):
        inputs = keras.Input((None, None, 3))
        maps = layers.DepthwiseConv2D(3, dtype="mixed_bfloat16")(inputs)
        plain, network = pair(inputs, layers.ReLU(6.0)(layers.BatchNormalization()(maps)))
    freeze_normalization(plain)
    with compiled_convolutions():
        assert "TfFastRcnn>DepthwiseConv" not in graph_of(network, [1, 9, 9, 3], training=True)
        found = network(images())
    np.testing.assert_allclose(found, plain(images()), atol=0.1)


def test_other_spacing():
    inputs = keras.Input((None, None, 3))
    maps = layers.BatchNormalization()(layers.Conv2D(4, 3, dilation_rate=2, groups=1, name="conv")(inputs))
    maps = layers.BatchNormalization()(layers.DepthwiseConv2D(3, dilation_rate=2, name="depthwise")(maps))
    plain, network = pair(inputs, layers.BatchNormalization()(layers.Conv2D(6, 3, groups=2)(maps)))
    assert len(followers_of_convolutions(plain)) == 3
    # Keras pads kernels with dilation by other operations: only the results are compared.
    for training in (False, True):
        freeze_normalization(plain)
        assert_close(network(images(), training=training), plain(images(), training=training))


def conv(**options):
    return layers.Conv2D(3, 3, padding="same", name="conv", **options)


def after_activation(inputs):
    return layers.BatchNormalization()(conv(activation="relu")(inputs))


def map_used_twice(inputs):
    maps = conv()(inputs)
    return layers.Add()([layers.BatchNormalization()(maps), maps])


def map_is_an_output(inputs):
    maps = conv()(inputs)
    return [maps, layers.BatchNormalization()(maps)]


def shared_convolution(inputs):
    shared = conv()
    return layers.Add()([layers.BatchNormalization()(shared(inputs)), shared(2 * inputs)])


def shared_normalization(inputs):
    shared = layers.BatchNormalization()
    return layers.Add()([shared(conv()(inputs)), shared(2 * inputs)])


def over_rows(inputs):
    return layers.BatchNormalization(axis=1)(conv()(inputs))


class Standardized(layers.Conv2D):
    """A convolution whose weights are not what it multiplies by."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel / keras.ops.std(kernel))


def subclass(inputs):
    return layers.BatchNormalization()(Standardized(3, 3, name="conv")(inputs))


def with_activity_loss(inputs):
    return layers.BatchNormalization()(conv(activity_regularizer="l2")(inputs))


@pytest.mark.parametrize(
    "build",
    [
        after_activation,
        map_used_twice,
        map_is_an_output,
        shared_convolution,
        shared_normalization,
        over_rows,
        subclass,
        with_activity_loss,
    ],
)
def test_what_cannot_be_included_stays(build):
    inputs = keras.Input((13, 11, 3))
    plain, network = pair(inputs, build(inputs))
    assert not followers_of_convolutions(plain)
    assert_same(plain, network, tf.constant(images()))


def test_normalization_that_is_trained_stays():
    inputs = keras.Input((13, 11, 3))
    plain, network = pair(inputs, layers.BatchNormalization(name="bn")(conv()(inputs)))
    network.get_layer("bn").trainable = True
    before = network.get_layer("bn").moving_mean.numpy()
    found = network(images(), training=True).numpy()
    # Its statistics are those of the mini-batch, and it learns them.
    np.testing.assert_allclose(
        (found - plain.get_layer("bn").beta) / plain.get_layer("bn").gamma,
        (lambda maps: (maps - maps.mean((0, 1, 2))) / np.sqrt(maps.var((0, 1, 2)) + 1e-3))(
            plain.get_layer("conv")(images()).numpy()
        ),
        atol=1e-4,
    )
    assert np.abs(network.get_layer("bn").moving_mean.numpy() - before).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("efficientnet_lite0", {"stride": (8, 16, 32), "lateral_channels": 8}),
        ("resnet50", {}),
        ("mobilenetv2", {"stride": 16}),
    ],
)
def test_detectors(name, options, monkeypatch):
    model = with_random_weights(frcnn.fast_rcnn(name, 3, weights=None, **options))
    inputs = {
        "images": tf.constant(np.random.default_rng(1).uniform(0, 255, (1, 96, 128, 3)), tf.float32),
        "rois": tf.constant([[[0.0, 0.0, 60.0, 80.0], [20.0, 30.0, 90.0, 120.0]]]),
    }
    found = model(inputs, training=False)
    for part in (model.get_layer("convolutions"), *[layer for layer in model.layers if layer.name == "last_stage"]):
        maps = np.zeros((1, *(side or 64 for side in part.input.shape[1:])), np.float32)
        kinds = operations(part, maps)
        assert kinds["BiasAdd"] >= 5
        # What is left are the sums of skip connections.
        assert kinds["Mul"] + kinds["Sub"] == 0, kinds
    monkeypatch.delattr(PretrainedNetwork, "call")
    expected = model(inputs, training=False)
    for output in expected:
        assert_close(found[output], expected[output])


def test_weights_and_configuration_stay_the_same(tmp_path):
    inputs = keras.Input((13, 11, 3))
    plain, network = pair(inputs, layers.BatchNormalization()(conv()(inputs)))
    assert [each.path for each in network.variables] == [each.path for each in plain.variables]
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert type(loaded) is PretrainedNetwork
    assert_close(loaded(images()), plain(images(), training=False))


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_half_types(dtype):
    inputs = keras.Input((13, 11, 3))
    maps = layers.Conv2D(8, 3, dtype=dtype)(inputs)
    maps = layers.ReLU()(layers.BatchNormalization(dtype="float32")(maps))
    plain, network = pair(inputs, maps)
    found, expected = network(images()), plain(images(), training=False)
    assert found.dtype == expected.dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())
