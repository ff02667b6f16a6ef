"""The paper's three networks in NumPy, as Caffe computes them: maps are `[C, H, W]`, the layers those of the prototxts.

Sizes are written out from rbgirshick/fast-rcnn, models/*/train.prototxt, and from the ImageNet networks' pool5.
"""

import math

import numpy as np

S = """
conv1 conv 96 kernel 11 stride 4 pad 5
pool1 pool kernel 3 stride 2 pad 1
norm1 lrn alpha 0.0001 k 1
conv2 conv 256 kernel 5 pad 2 group 2
pool2 pool kernel 3 stride 2 pad 1
norm2 lrn alpha 0.0001 k 1
conv3 conv 384 kernel 3 pad 1
conv4 conv 384 kernel 3 pad 1 group 2
conv5 conv 256 kernel 3 pad 1 group 2
pool5 pool kernel 3 stride 2
fc6 fc 4096
fc7 fc 4096
"""
M = """
conv1 conv 96 kernel 7 stride 2
norm1 lrn alpha 0.0005 k 2
pool1 pool kernel 3 stride 2
conv2 conv 256 kernel 5 stride 2 pad 1
norm2 lrn alpha 0.0005 k 2
pool2 pool kernel 3 stride 2
conv3 conv 512 kernel 3 pad 1
conv4 conv 512 kernel 3 pad 1
conv5 conv 512 kernel 3 pad 1
pool5 pool kernel 3 stride 2
fc6 fc 4096
fc7 fc 1024
"""
L = """
conv1_1 conv 64 kernel 3 pad 1
conv1_2 conv 64 kernel 3 pad 1
pool1 pool kernel 2 stride 2
conv2_1 conv 128 kernel 3 pad 1
conv2_2 conv 128 kernel 3 pad 1
pool2 pool kernel 2 stride 2
conv3_1 conv 256 kernel 3 pad 1
conv3_2 conv 256 kernel 3 pad 1
conv3_3 conv 256 kernel 3 pad 1
pool3 pool kernel 2 stride 2
conv4_1 conv 512 kernel 3 pad 1
conv4_2 conv 512 kernel 3 pad 1
conv4_3 conv 512 kernel 3 pad 1
pool4 pool kernel 2 stride 2
conv5_1 conv 512 kernel 3 pad 1
conv5_2 conv 512 kernel 3 pad 1
conv5_3 conv 512 kernel 3 pad 1
pool5 pool kernel 2 stride 2
fc6 fc 4096
fc7 fc 4096
"""
TEXTS = {"caffenet": S, "vgg_cnn_m_1024": M, "caffe_vgg16": L}
# Rows and columns that RoI pooling makes; fc6 takes as many as the ImageNet network's pool5 has.
POOLED = {"caffenet": 6, "vgg_cnn_m_1024": 6, "caffe_vgg16": 7}
MEAN_BGR = np.array([102.9801, 115.9465, 122.7717])
# A sixteenth of all channels and units.
SHRINK = 16


def layers(network):
    """`(name, kind, options)` of each layer; `options["out"]` are its channels or units, shrunk."""
    for line in TEXTS[network].strip().splitlines():
        name, kind, *rest = line.split()
        options = {} if kind in ("pool", "lrn") else {"out": int(rest.pop(0)) // SHRINK}
        numbers = [float(word) if "." in word else int(word) for word in rest[1::2]]
        yield name, kind, {**options, **dict(zip(rest[::2], numbers, strict=True))}


def random_weights(network, seed=0, classes=1000):
    """Dict from layer to `[weights, bias]` in Caffe's shapes, fc8 included; scaled so that values stay near 1."""
    rng = np.random.default_rng(seed)
    weights, channels = {}, 3
    for name, kind, options in layers(network):
        if kind == "conv":
            shape = (options["out"], channels // options.get("group", 1), options["kernel"], options["kernel"])
        elif kind == "fc":
            shape = (options["out"], channels * POOLED[network] ** 2 if name == "fc6" else channels)
        else:
            continue
        weights[name] = random_layer(rng, shape)
        channels = options["out"]
    weights["conv1" if "conv1" in weights else "conv1_1"][0] *= 0.02  # pixels are large
    return {**weights, "fc8": random_layer(rng, (classes, channels))}


def random_layer(rng, shape):
    deviation = math.sqrt(2 / math.prod(shape[1:]))
    return [rng.normal(0, deviation, shape).astype("f4"), rng.normal(0, 0.1, shape[0]).astype("f4")]


def convolutional_maps(network, weights, image):
    """Dict from layer to its output `[C, H, W]`, after ReLU, up to pool5; image `[H, W, 3]`, RGB."""
    x = (image[..., ::-1].astype(np.float64) - MEAN_BGR).transpose(2, 0, 1)
    maps = {}
    for name, kind, options in layers(network):
        if kind == "fc":
            break
        if kind == "conv":
            x = np.maximum(convolve(x, *weights[name], **without_out(options)), 0)
        else:
            x = max_pool(x, **options) if kind == "pool" else normalize(x, **options)
        maps[name] = x
    return maps


def without_out(options):
    return {name: value for name, value in options.items() if name != "out"}


def convolve(x, weight, bias, kernel, stride=1, pad=0, group=1):
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad)])
    height, width = ((side - kernel) // stride + 1 for side in x.shape[1:])
    outputs = []
    for part, filters in zip(np.split(x, group), np.split(weight, group), strict=True):
        taps = [
            np.tensordot(
                filters[:, :, i, j], part[:, i:, j:][:, : stride * height : stride, : stride * width : stride], 1
            )
            for i in range(kernel)
            for j in range(kernel)
        ]
        outputs.append(sum(taps))
    return np.concatenate(outputs) + bias[:, None, None]


def pooled_size(side, kernel, stride, pad):
    """PoolingLayer::Reshape of Caffe's pooling_layer.cpp."""
    size = math.ceil((side + 2 * pad - kernel) / stride) + 1
    if pad and (size - 1) * stride >= side + pad:
        size -= 1
    return size


def max_pool(x, kernel, stride, pad=0):
    """PoolingLayer::Forward_cpu of Caffe's pooling_layer.cpp: windows are cut at the map's edges."""
    height, width = x.shape[1:]
    pooled = np.empty((len(x), pooled_size(height, kernel, stride, pad), pooled_size(width, kernel, stride, pad)))
    for i, j in np.ndindex(*pooled.shape[1:]):
        top, left = i * stride - pad, j * stride - pad
        window = x[:, max(top, 0) : min(top + kernel, height), max(left, 0) : min(left + kernel, width)]
        pooled[:, i, j] = window.max(axis=(1, 2))
    return pooled


def normalize(x, alpha, k, local_size=5, beta=0.75):
    """LRNLayer::CrossChannelForward_cpu of Caffe's lrn_layer.cpp."""
    out = np.empty_like(x)
    for c in range(len(x)):
        near = x[max(c - local_size // 2, 0) : c + local_size // 2 + 1]
        out[c] = x[c] / (k + alpha / local_size * (near**2).sum(axis=0)) ** beta
    return out


def hidden_units(weights, vector):
    """fc6 and fc7 with their ReLUs; where an SVD has split them, L without and U with bias and ReLU."""
    for name in ("fc6", "fc7"):
        if f"{name}_L" in weights:
            vector = weights[f"{name}_L"][0] @ vector
            weight, bias = weights[f"{name}_U"]
        else:
            weight, bias = weights[name]
        vector = np.maximum(weight @ vector + bias, 0)
    return vector


def softmax(logits):
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()
