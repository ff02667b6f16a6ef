"""RoI max pooling and its gradient as naive loops: the reference of every implementation's tests."""

import math

import numpy as np


def c_round(value):
    """Halves away from zero; exact, since a float32 plus a half is exact in double precision."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


def naive_spans(low, high, spatial_scale, bins, cells):
    """[begin, end) of every bin of one side of a RoI, in float32 as the original computes it."""
    start, end = (c_round(np.clip(np.float32(pixel) * np.float32(spatial_scale), -4096, 4096)) for pixel in (low, high))
    step = np.float32(max(end - start + 1, 1)) / np.float32(bins)
    begins = [start + int(np.floor(np.float32(p) * step)) for p in range(bins)]
    ends = [start + int(np.ceil(np.float32(p + 1) * step)) for p in range(bins)]
    return [(min(max(b, 0), cells), min(max(e, 0), cells)) for b, e in zip(begins, ends, strict=True)]


def naive_roi_pool(features, rois, output_size, spatial_scale):
    """Maxima [B, R, P, Q, C] and their cells y * W + x, -1 where a bin is empty."""
    images, height, width, channels = features.shape
    pooled = np.zeros((images, rois.shape[1], *output_size, channels), features.dtype)
    argmax = np.full(pooled.shape, -1)
    for b, r in np.ndindex(rois.shape[:2]):
        if np.isnan(rois[b, r]).any():
            continue
        y1, x1, y2, x2 = rois[b, r]
        for p, (top, bottom) in enumerate(naive_spans(y1, y2, spatial_scale, output_size[0], height)):
            for q, (left, right) in enumerate(naive_spans(x1, x2, spatial_scale, output_size[1], width)):
                cells = [(y, x) for y in range(top, bottom) for x in range(left, right)]
                for c in range(channels) if cells else ():
                    y, x = max(cells, key=lambda cell: features[b, cell[0], cell[1], c])  # the first among equals
                    pooled[b, r, p, q, c], argmax[b, r, p, q, c] = features[b, y, x, c], y * width + x
    return pooled, argmax


def naive_gradient(features, argmax, pooled_gradient):
    gradient = np.zeros_like(features)
    cells = gradient.reshape(features.shape[0], -1, features.shape[3])
    for b, r, p, q, c in zip(*np.nonzero(argmax >= 0), strict=True):
        cells[b, argmax[b, r, p, q, c], c] += pooled_gradient[b, r, p, q, c]
    return gradient
