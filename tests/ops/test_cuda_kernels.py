"""The CUDA kernels, compiled for the CPU: custom_ops/test/cuda_on_cpu/ replaces the CUDA headers.

On a machine with a GPU, `make -C custom_ops cuda-check` runs the same program on it.
"""

import os
import pathlib
import shlex
import subprocess

import pytest

CUSTOM_OPS = pathlib.Path(__file__).parents[2] / "custom_ops"
KERNELS = sorted((CUSTOM_OPS / "cc/kernels/roi_pool/cuda").glob("*.cu"))


def run_check(folder, rounds, *flags):
    program = folder / "roi_pool_cuda_check"
    compiler = [*shlex.split(os.environ.get("CXX", "g++")), "-std=c++20", "-O1", "-g", "-ffp-contract=off", "-pthread"]
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    sources = ["-I", CUSTOM_OPS / "test/cuda_on_cpu", "-x", "c++", CUSTOM_OPS / "test/roi_pool_cuda_check.cu", *KERNELS]
    subprocess.run([*compiler, *warnings, *flags, *sources, "-o", program], check=True)
    ran = subprocess.run([program, str(rounds)], capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{rounds} rounds: all equal" in ran.stdout


def test_kernels_equal_naive_loops(tmp_path):
    assert [path.stem for path in KERNELS] == ["backward", "forward"]
    run_check(tmp_path, 12)


@pytest.mark.slow
def test_kernels_keep_to_their_arrays(tmp_path):
    run_check(tmp_path, 25, "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")


@pytest.mark.slow
def test_threads_of_a_block_wait_for_one_another(tmp_path):
    """A missing __syncthreads() shows up as a data race between the threads that emulate CUDA threads."""
    # No position-independent code: the ThreadSanitizer of older compilers cannot map the addresses of newer kernels.
    run_check(tmp_path, 1, "-fsanitize=thread", "-no-pie", "-fno-pie")
