"""Where networks run, and how precisely."""

from __future__ import annotations

import platform

import numpy as np
import torch

from tomocensus.errors import InputError


def choose_device(device: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("device 'cuda' was asked for, and no GPU is there. Use 'auto' or 'cpu'.")
    return torch.device(device)


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether bfloat16 is fast on the device (CPU: AVX512-BF16 or AMX; not merely emulated).

    PyTorch takes it on every x86 processor with AVX-512; where the processor has no such
    instructions that is two to three times slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    try:
        if platform.machine().lower() in ("x86_64", "amd64"):
            return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on a device; a GPU goes on with its work meanwhile."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
