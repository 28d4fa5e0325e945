import platform
from pathlib import Path

import pytest
import torch

from tomocensus.devices import has_bfloat16

CPU = torch.device("cpu")


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not Path("/proc/cpuinfo").is_file(),
    reason="reads the flags of an x86 processor under Linux",
)
def test_bfloat16_needs_a_processor_with_its_instructions():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert has_bfloat16(CPU) == bool(flags & {"avx512_bf16", "amx_tile"})


def test_bfloat16_is_not_taken_where_it_is_emulated(monkeypatch):
    """PyTorch itself would: it asks for AVX-512 alone."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert has_bfloat16(CPU) is False
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert has_bfloat16(CPU) is True
