#!/usr/bin/env bash
# TensorFlow 2.21.0 with oneDNN 3.7.3 on CPUs with AVX2 but not AVX-512: a 1x1 convolution with ReLU6 takes several times
#   as long for one image as for a batch of two.
# Packages: tensorflow 2.21.0, numpy 2.2.6
# Expected: half the time of two images, or a little more; that fusing the bias and ReLU6 into the convolution pays.
# Seen: one image takes 6 times as long as two (90 ms and 14 ms on two cores). TensorFlow fuses ReLU6 into the
#   convolution; for one image oneDNN selects the implementation "gemm:jit", which is slow with ReLU6, and for two or more
#   "brgconv_1x1:avx2", whatever the number of threads. ELU is as slow. ReLU, leaky ReLU and no activation are not, and neither is Eigen
#   (TF_ENABLE_ONEDNN_OPTS=0). Networks such as MobileNet and EfficientNet-Lite consist of such layers. TensorFlow uses
#   oneDNN by default where the CPU has VNNI, also without AVX-512; ONEDNN_MAX_CPU_ISA=AVX2 shows it on any other.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 numpy==2.2.6
cd "$place"
cat > convolve.py <<'PYTHON'
import statistics
import time

import tensorflow as tf

kernel, bias = tf.random.normal([1, 1, 16, 96]), tf.random.normal([96])


def milliseconds(images, activation):
    maps = tf.random.normal([images, 240, 320, 16])
    convolve = tf.function(lambda: activation(tf.nn.bias_add(tf.nn.conv2d(maps, kernel, 1, "SAME"), bias)))
    times = []
    for _ in range(9):
        started = time.perf_counter()
        convolve()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[2:])


for activation in (tf.nn.relu6, tf.nn.relu):
    one, two = milliseconds(1, activation), milliseconds(2, activation)
    print(f"{activation.__name__}: one image {one:.0f} ms, two images {two:.0f} ms")
    assert (one > 2 * two) == (activation is tf.nn.relu6)
PYTHON
export TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=1 ONEDNN_MAX_CPU_ISA=AVX2
venv/bin/python convolve.py
ONEDNN_VERBOSE=1 venv/bin/python convolve.py > verbose.txt
for images in 1 2; do
    echo "oneDNN for $images: $(grep "mb${images}_" verbose.txt | grep eltwise_clip | cut -d, -f7 | sort -u)"
done
grep "eltwise_clip" verbose.txt | grep "mb1_" | grep -q "gemm:jit"
grep "eltwise_clip" verbose.txt | grep "mb2_" | grep -q "brgconv_1x1:avx2"
