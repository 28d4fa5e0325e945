from pathlib import Path

import numpy as np
import pytest

from tomocensus.io import write_mrc
from tomocensus.volume import Volume


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def shared_data():
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data beside the repository are not there")
    return folder


@pytest.fixture
def blobs(rng):
    """Noise of deviation 1 with nine compact dense (here: bright) balls."""
    data = rng.normal(size=(32, 48, 48)).astype(np.float32)
    z, y, x = np.indices(data.shape)
    for cz, cy, cx in rng.integers(6, 26, size=(9, 3)):
        data[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= 9] += 5
    return data


@pytest.fixture
def tomogram(tmp_path, blobs):
    """Write a small tomogram with dark blobs and give its path."""
    path = tmp_path / "tomogram.mrc"
    write_mrc(path, Volume(-blobs, 20.0, (100.0, -50.5, 7.0), (1, 2, -3)))
    return path
