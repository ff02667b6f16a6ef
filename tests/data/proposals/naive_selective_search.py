"""Selective search as docs/selective_search.md defines it, in plain NumPy and Python, for tiny images.

It does nothing clever: every merge compares all pairs again, and a segment is a set of pixels.
"""

import itertools

import numpy as np

ALIKE = (9, 10)  # IoU of 0.9


def channels_of(image, space):
    """The channels of a colour space, int64 `[C, H, W]`."""
    red, green, blue = np.moveaxis(image.astype(np.int64), 2, 0)
    gray = (4899 * red + 9617 * green + 1868 * blue + 8192) >> 14
    if space == "lab":
        return lab(image)
    if space == "gray":
        return gray[None]
    if space == "red-green":
        return np.stack([red, green, gray])
    largest, span = image.max(axis=2).astype(np.int64), np.ptp(image, axis=2).astype(np.int64)
    sector = np.where(
        largest == red, green - blue, np.where(largest == green, blue - red + 2 * span, red - green + 4 * span)
    )
    sector = np.where(sector < 0, sector + 6 * span, sector)
    hue = (60 * sector + np.maximum(span, 1)) // (2 * np.maximum(span, 1)) % 180
    saturation = (510 * span + np.maximum(largest, 1)) // (2 * np.maximum(largest, 1))
    return hue[None] if space == "hue" else np.stack([hue, saturation, largest])


def lab(image):
    value = np.arange(256) / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    light = np.floor(light * 16383 + 0.5).astype(np.int64)[image]
    xyz = (light @ np.array([[7110, 6164, 3110], [3484, 11717, 1183], [291, 1794, 14299]]).T + 8192) >> 14
    t = np.arange(16384) / 16383
    root = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    x, y, z = np.moveaxis(np.floor(root * 32768 + 0.5).astype(np.int64)[xyz], 2, 0)
    lightness = np.maximum(2958 * y - 403 * 32768, 0) // 327680
    a, b = ((factor * part + 128 * 32768 + 16384) >> 15 for factor, part in ((500, x - y), (200, y - z)))
    return np.clip([lightness, a, b], 0, 255)


def smooth(planes):
    """In units of 1 / 128."""
    taps = np.array([3, 29, 64, 29, 3])
    for axis, rounding in ((2, None), (1, 64)):
        pad = [(0, 0)] * 3
        pad[axis] = (2, 2)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(planes, pad, mode="edge"), 5, axis=axis)
        planes = windows @ taps
        planes = planes if rounding is None else (planes + rounding) // 128
    return planes


def sorted_edges(smoothed):
    """(weight, pixel, pixel) of all edges by increasing weight; ties keep the order of their numbers."""
    _, height, width = smoothed.shape
    edges = []
    for pixel in range(height * width):
        y, x = divmod(pixel, width)
        for direction, (y2, x2) in enumerate([(y, x + 1), (y + 1, x)]):
            if y2 < height and x2 < width:
                difference = (smoothed[:, y, x] - smoothed[:, y2, x2]).tolist()
                if len(difference) == 1:
                    weight = abs(difference[0])
                else:
                    two = np.float32(difference[0] ** 2 + difference[1] ** 2)
                    weight = int(np.sqrt(two + np.float32(difference[2] ** 2)))
                edges.append((weight, 2 * pixel + direction, pixel, y2 * width + x2))
    return [(weight, a, b) for weight, _, a, b in sorted(edges)]


def segment(image, space, k, min_segment):
    """Segment numbers `[H, W]`, as `native_search.segment`."""
    height, width = image.shape[:2]
    edges = sorted_edges(smooth(channels_of(image, space)))
    members = {pixel: {pixel} for pixel in range(height * width)}
    owner = list(range(height * width))
    last_weight = dict.fromkeys(members, 0)

    def merge(a, b, weight):
        for pixel in members[b]:
            owner[pixel] = a
        members[a] |= members.pop(b)
        last_weight[a] = weight

    def takes(a, weight):
        return (weight - last_weight[a]) * len(members[a]) <= 128 * k

    for weight, *pixels in edges:
        a, b = (owner[pixel] for pixel in pixels)
        if a != b and takes(a, weight) and takes(b, weight):
            merge(a, b, weight)
    for _, *pixels in edges:
        a, b = (owner[pixel] for pixel in pixels)
        if a != b and min(len(members[a]), len(members[b])) < min_segment:
            merge(a, b, 0)
    numbers = {}
    labels = [numbers.setdefault(owner[pixel], len(numbers)) for pixel in range(height * width)]
    return np.array(labels, np.int32).reshape(height, width)


def texture_bins(smoothed):
    """Histogram bins `[C * 8, H, W]` of the derivatives in eight directions."""
    padded = np.pad(smoothed, [(0, 0), (1, 1), (1, 1)], mode="edge")
    x, y = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    bins = []
    for channel in range(len(smoothed)):
        for derivative in (x[channel], y[channel], (y + x)[channel], (y - x)[channel]):
            for size in (np.maximum(derivative, 0), np.maximum(-derivative, 0)):
                bins.append((size * ((10 << 27) // (size.max() + 1))) >> 27)
    return np.stack(bins)


class Region:
    """A region's pixels as a mask, and the features for similarities."""

    def __init__(self, mask, planes, textures, level=1, parts=(-1, -1)):
        self.mask, self.level, self.parts = mask, level, parts
        rows, columns = np.nonzero(mask)
        self.box = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
        self.size = int(mask.sum())
        self.color = self.shares([np.bincount(plane[mask] * 25 // 256, minlength=25) for plane in planes])
        self.texture = self.shares([np.bincount(plane[mask], minlength=10) for plane in textures])

    def shares(self, counts):
        scale = np.float32(32767) / np.float32(self.size)
        return (np.concatenate(counts).astype(np.float32) * scale).astype(np.int64)


def touch(a, b):
    """Whether a pixel of one mask is a horizontal or vertical neighbour of one of the other."""
    pairs = [(a[:, 1:], b[:, :-1]), (a[:, :-1], b[:, 1:]), (a[1:], b[:-1]), (a[:-1], b[1:])]
    return any(np.any(one & other) for one, other in pairs)


def similarity(a, b, similarities, channels, pixels):
    """Similarities as integers: 1.0 is 8 * channels * 32767 * pixels."""
    unit, size = 8 * channels * 32767, a.size + b.size
    box = (*np.minimum(a.box[:2], b.box[:2]), *np.maximum(a.box[2:], b.box[2:]))
    parts = {
        "color": 8 * pixels * int(np.minimum(a.color, b.color).sum()),
        "texture": pixels * int(np.minimum(a.texture, b.texture).sum()),
        "size": unit * (pixels - size),
        "fill": unit * (pixels - (int(box[2] - box[0]) * int(box[3] - box[1]) - size)),
    }
    return sum(parts[name] for name in similarities)


def group(image, space, labels, similarities):
    """The rows of `native_search.group` for the segments `labels`."""
    planes = channels_of(image, space)
    textures = texture_bins(smooth(planes))
    regions = [Region(labels == number, planes, textures) for number in range(labels.max() + 1)]
    live = set(range(len(regions)))
    while len(live) > 1:
        pairs = [pair for pair in itertools.combinations(sorted(live), 2) if touch(*(regions[i].mask for i in pair))]
        a, b = max(
            pairs,
            key=lambda pair: (
                similarity(*(regions[i] for i in pair), similarities, len(planes), labels.size),
                -pair[0],
                -pair[1],
            ),
        )
        level = max(regions[a].level, regions[b].level) + 1
        regions.append(Region(regions[a].mask | regions[b].mask, planes, textures, level, (a, b)))
        live = live - {a, b} | {len(regions) - 1}
    return [[*map(int, region.box), region.level, *region.parts] for region in regions]


def random_number(seed, index):
    """splitmix64, as a number in (0, 1]."""
    bits = (seed + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
    bits ^= bits >> 31
    return ((bits >> 11) + 1) / 2**53


def search(image, spaces, ks, strategies, min_segment, seed):
    """Boxes in pixels, ranked."""
    found = set()
    for space, k in itertools.product(spaces, ks):
        labels = segment(image, space, k, min_segment)
        for similarities in strategies:
            found |= {tuple(region[:4]) for region in group(image, space, labels, similarities)}
    large_first = sorted(found, key=lambda box: (-(box[2] - box[0]) * (box[3] - box[1]), box))
    order = sorted(range(len(found)), key=lambda i: (i + 1) * random_number(seed, i))
    ranked, alike = [], []
    for box in (large_first[i] for i in order):
        (alike if any(are_alike(box, other) for other in ranked) else ranked).append(box)
    return ranked + alike


def are_alike(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = int(np.prod(np.maximum(sides, 0)))
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - common
    return ALIKE[1] * common >= ALIKE[0] * both
