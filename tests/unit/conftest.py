import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tomocensus.io import write_mrc
from tomocensus.volume import Volume

# Times of single examples say how busy the machine is, not whether something is right.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")


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


@pytest.fixture
def imod_model():
    """Build binary models of IMOD."""

    def build(*objects, flags=0, reference=None):
        """Return what 3dmod writes for names and contours, with chunks that hold no points."""
        text = b"IMODV1.2" + b"cells".ljust(128, b"\0")
        text += struct.pack(">9i", 40, 60, 80, len(objects), flags, 1, 1, 0, 255)
        text += struct.pack(">6f5ifii3f", *[0] * 3, *[1] * 3, *[0] * 5, 1.0, 0, 7, *[0] * 3)
        for name, *contours in objects:
            head = (name.encode().ljust(64, b"\0"), *[0] * 16, len(contours), 512, 0, 0)
            text += b"OBJT" + struct.pack(">64s16I2i2i", *head)
            text += struct.pack(">3fi8B2i", 0, 1, 0, 1, *[1] * 8, 1, 0)
            for points in contours:
                text += b"CONT" + struct.pack(">iIii", len(points), 0, 0, 0)
                text += np.array(points, ">f4").tobytes()
            text += b"MESH" + struct.pack(">2iI2h", 2, 3, 0, 0, 0) + bytes(2 * 12 + 3 * 4)
            text += b"IMAT" + struct.pack(">i", 16) + bytes(16)
        text += b"VIEW" + struct.pack(">i", 4) + bytes(4)
        if reference is not None:
            text += b"MINX" + struct.pack(">i", 72) + np.array(reference, ">f4").tobytes()
        return text + b"IEOF"

    return build
