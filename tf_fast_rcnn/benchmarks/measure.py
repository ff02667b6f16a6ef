"""How everything is measured: contestants take turns in one process, medians count, memory is the process's growth."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm


def median_seconds(functions: Mapping[Any, Callable[[], object]], rounds: int) -> dict[Any, float]:
    """Runs functions in turn, so that what else the machine does meets all of them.

    Args:
        functions: dict of names and functions without arguments.
        rounds: how often each is timed, after one round that does not count.

    Returns:
        Dict of names and median seconds.
    """
    seconds = {name: [] for name in functions}
    for turn in tqdm(range(rounds + 1), "rounds", unit="round", delay=2, leave=False):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_growth(function: Callable[[], Any]) -> tuple[Any, int]:
    """`(result, bytes)`: what a function returns, and by how much the process's memory grew at its peak."""
    sizes, done = [], threading.Event()

    def watch():
        while not done.wait(0.001):
            sizes.append(resident_bytes())

    before, watcher = resident_bytes(), threading.Thread(target=watch)
    watcher.start()
    try:
        result = function()
    finally:
        done.set()
        watcher.join()
    return result, max([before, *sizes]) - before


def resident_bytes(process: int | str = "self") -> int:
    """Memory that a process, given by its number, holds now; this one by default."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
