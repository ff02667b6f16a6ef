"""Training on several replicas makes the updates of the whole mini-batch on one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "replica_updates.py"


@pytest.mark.parametrize(
    "replicas", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_an_update_does_not_depend_on_the_number_of_replicas(replicas):
    """Also with shards of unequal size and with sample weights."""
    done = subprocess.run(
        [sys.executable, SCRIPT, str(replicas)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(SCRIPT.parent)])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    even, uneven = [2 * replicas, 2 * replicas], [2 * replicas, 2 * replicas - 1]
    assert [row["images"] for row in rows] == [even, even, uneven, uneven]
    for row in rows:
        assert row["largest_change"] > 1e-3
        assert row["largest_difference"] < 1e-5 * row["largest_change"] + 1e-7, row
        # Keras weights the mini-batches by the images of each replica, so only with equal shards are their means equal.
        if row["images"] == even:
            np.testing.assert_allclose(row["losses_on_all"], row["losses"], rtol=1e-5)
