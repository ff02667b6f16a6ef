"""Times the input pipeline (read, decode, resize, flip, sample) against decoding alone, and measures padding.

    python tools/input_pipeline.py voc:VOC2007@trainval --cores 2

The contestants alternate in one process, on the same images and cores, each with the parallelism that tf.data chooses.
The script reports medians of images per second, of the ratios to decoding within a round, and of CPU milliseconds per
image (all threads together), which hardly depend on background load. "decode" only decodes bytes in memory, with the
same ops; "decode, resize" also makes float32 images of the network's size, the minimum for any pipeline that resizes
with TensorFlow. It then prints the fraction of padding in a mini-batch's pixels, in random order and with images of
similar shapes grouped.
"""

import argparse
import os
import time

import numpy as np
import tensorflow as tf
from tqdm import tqdm

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.data.batches.image_order import image_order
from tf_fast_rcnn.data.network_input import decode_image, network_size, resize_to_network
from tf_fast_rcnn.data.prepared.write import with_proposals

_MOST_IMAGES = 500


def contestants(dataset, options):
    """Name -> infinite `tf.data.Dataset`, and the number of images in each of its elements."""
    sides = {"shorter_side": options.shorter_side, "longer_side": options.longer_side}
    encoded = tf.data.Dataset.from_tensor_slices([record.encoded_image() for record in dataset]).repeat()

    def decoded_by(function):
        return encoded.map(function, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)

    batches = frcnn.hierarchical_batches(dataset, options.images_per_batch, options.images_per_batch * 64, **sides)
    return {
        "decode": (decoded_by(decode_image), 1),
        "decode, resize": (decoded_by(lambda image: resize_to_network(decode_image(image), **sides)), 1),
        "pipeline": (batches, options.images_per_batch),
    }


def run(dataset, images_in_element, images):
    """Seconds and CPU seconds per image, after a tenth of the images to let all threads start."""
    elements = max(1, images // images_in_element)
    warm_up = max(2, elements // 10)
    for number, _ in enumerate(dataset.take(warm_up + elements)):
        if number == warm_up - 1:
            started = np.array([time.perf_counter(), time.process_time()])
    finished = np.array([time.perf_counter(), time.process_time()])
    return (finished - started) / (elements * images_in_element)


def measure(dataset, options):
    """Prints the table of speeds."""
    datasets = contestants(dataset, options)
    seconds = {name: [] for name in datasets}
    for turn in tqdm(range(options.rounds + 1), unit="round", delay=2):
        for name, contestant in datasets.items():
            found = run(*contestant, options.images)
            if turn:  # the first round fills the file system's cache
                seconds[name].append(found)
    floor = np.array(seconds["decode"])
    for name, values in seconds.items():
        (wall, processor), ratios = np.median(values, axis=0), np.median(floor / values, axis=0)
        print(
            f"{name:16} {1 / wall:8.1f} images/s {ratios[0]:6.2f} x decode, "
            f"{1e3 * processor:6.2f} ms CPU {ratios[1]:6.2f} x decode"
        )


def padding_share(sizes, images_per_batch, options, similar_shapes):
    """The fraction of padding in the mini-batches of five passes."""
    number = 5 * len(sizes) // images_per_batch * images_per_batch
    order = image_order(len(sizes), images_per_batch, seed=0, sizes=sizes if similar_shapes else None).take(number)
    resized = np.array([network_size(size, options.shorter_side, options.longer_side) for size in sizes])
    batches = resized[[image for _, image in order.as_numpy_iterator()]].reshape(-1, images_per_batch, 2)
    canvas = batches.max(axis=1).prod(axis=1).sum() * images_per_batch
    return 1 - batches.prod(axis=2).sum() / canvas


def print_padding(dataset, options):
    sizes = np.array([(record.height, record.width) for record in dataset])
    for images_per_batch in (2, 4, 8, 16):
        mixed, similar = (padding_share(sizes, images_per_batch, options, flag) for flag in (False, True))
        print(f"padding, N = {images_per_batch:2}: {mixed:6.1%} in random order, {similar:6.1%} with similar shapes")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="example: python tools/input_pipeline.py voc:VOC2007@trainval --cores 2",
    )
    parser.add_argument("spec", metavar="SPEC", help="dataset, as for `tf-fast-rcnn train`")
    parser.add_argument("--cores", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--images-per-batch", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--shorter-side", type=int, default=600, metavar="PIXELS", help="default: 600")
    parser.add_argument("--longer-side", type=int, default=1000, metavar="PIXELS", help="default: 1000")
    parser.add_argument("--images", type=int, default=300, metavar="N", help="images per turn (default: 300)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: 7")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    dataset = with_proposals(frcnn.load_dataset(options.spec)[:_MOST_IMAGES])
    print(f"{dataset.name}, {len(dataset)} images, shorter side {options.shorter_side}, {options.cores} cores")
    measure(dataset, options)
    print_padding(dataset, options)


if __name__ == "__main__":
    main()
