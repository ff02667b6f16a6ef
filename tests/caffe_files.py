"""Writes `.caffemodel` files with protobuf's own encoder, from Caffe's schema written out here."""

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_KINDS = {"int32": 5, "int64": 3, "float": 2, "double": 1, "string": 9, "enum": 5}

# Message -> (field number, name, kind or message, repeated), of Caffe's src/caffe/proto/caffe.proto.
_SCHEMA = {
    "BlobShape": [(1, "dim", "int64", True)],
    "BlobProto": [
        (1, "num", "int32", False),
        (2, "channels", "int32", False),
        (3, "height", "int32", False),
        (4, "width", "int32", False),
        (5, "data", "float", True),
        (6, "diff", "float", True),
        (7, "shape", "BlobShape", False),
        (8, "double_data", "double", True),
    ],
    "ParamSpec": [(1, "name", "string", False), (3, "lr_mult", "float", False), (4, "decay_mult", "float", False)],
    "LayerParameter": [
        (1, "name", "string", False),
        (2, "type", "string", False),
        (3, "bottom", "string", True),
        (4, "top", "string", True),
        (5, "loss_weight", "float", True),
        (6, "param", "ParamSpec", True),
        (7, "blobs", "BlobProto", True),
    ],
    "V1LayerParameter": [
        (2, "bottom", "string", True),
        (3, "top", "string", True),
        (4, "name", "string", False),
        (5, "type", "enum", False),
        (6, "blobs", "BlobProto", True),
        (7, "blobs_lr", "float", True),
    ],
    "NetParameter": [
        (1, "name", "string", False),
        (2, "layers", "V1LayerParameter", True),
        (3, "input", "string", True),
        (4, "input_dim", "int32", True),
        (100, "layer", "LayerParameter", True),
    ],
}


def net_parameter_type(packed=True):
    """The message class NetParameter, whose repeated numbers are packed or not."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for message_name, fields in _SCHEMA.items():
        message = file.message_type.add(name=message_name)
        for number, name, kind, repeated in fields:
            field = message.field.add(number=number, name=name, label=3 if repeated else 1)
            field.type = _KINDS.get(kind, 11)
            if kind not in _KINDS:
                field.type_name = f".caffe.{kind}"
            elif repeated and kind != "string":
                field.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


def encode(weights, version=2, packed=True, old_shape=None, double=False):
    """The bytes of a network.

    Args:
        weights: dict from a layer's name to its arrays, in Caffe's order of axes.
        version: 1 for the field `layers` (V1LayerParameter), 2 for `layer`.
        packed: whether repeated numbers are.
        old_shape: num, channels, height and width in place of `shape`; None: as that version has it.
        double: whether the numbers are doubles.
    """
    net = net_parameter_type(packed)(name="a network", input=["data"], input_dim=[1, 3, 224, 224])
    for name, arrays in weights.items():
        layer = (net.layers if version == 1 else net.layer).add(name=name, bottom=["below"], top=[name])
        layer.type = 4 if version == 1 else "Convolution"
        for array in arrays:
            _fill(layer.blobs.add(), np.asarray(array), version == 1 if old_shape is None else old_shape, double)
        # What a file holds besides, in front of and behind the weights.
        (net.layers if version == 1 else net.layer).add(name=f"relu_{name}", bottom=[name], top=[name])
        if version == 1:
            layer.blobs_lr.extend([1.0, 2.0])
        else:
            layer.param.add(name="w", lr_mult=1.0)
            layer.loss_weight.append(0.5)
    return net.SerializeToString()


def write(path, weights, **options):
    """Writes `encode`'s bytes; returns the path."""
    path.write_bytes(encode(weights, **options))
    return path


def _fill(blob, array, old_shape, double):
    if old_shape:
        sizes = (1,) * (4 - array.ndim) + array.shape
        blob.num, blob.channels, blob.height, blob.width = sizes
    else:
        blob.shape.dim.extend(array.shape)
    (blob.double_data if double else blob.data).extend(array.ravel().tolist())
    blob.diff.extend([9.0, 9.0])
