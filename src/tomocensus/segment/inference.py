"""Prediction: slice by slice through the tomogram, straight into the output files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tomocensus.devices import choose_device, has_bfloat16, to_device
from tomocensus.errors import InputError
from tomocensus.models import Model
from tomocensus.padding import without_data
from tomocensus.parallel import ahead
from tomocensus.progress import progress
from tomocensus.segment.contrast import Slices, mirrored, resize_slice
from tomocensus.segment.network import (
    UNet,
    fold,
    from_card,
    halo,
    working_voxel_size,
)
from tomocensus.volume import Volume, looked_in, release_pages, releasing

TILE = 1024
MARGIN = 8
# Slices after which the pages of files that were read and written are let go.
RELEASE_EVERY = 32
# Slices that are read and predicted before they are asked for, while a GPU predicts.
AHEAD = 3


def predict(
    tomogram: Volume,
    model: Model,
    polarity: str = "dark",
    device: str = "auto",
    threads: int | None = None,
    tta: bool = False,
    mask: np.ndarray | None = None,
    tile: int = TILE,
    precision: str = "auto",
    engine: str = "torch",
) -> dict[str, np.ndarray]:
    """Predict every head of a model in memory.

    Parameters
    ----------
    tomogram : Volume
        Density, shape ``(nz, ny, nx)``.
    model : Model
        Of kind ``segmenter``.
    polarity : str
        ``dark`` or ``bright``.
    device, threads, tta, mask, tile, precision, engine
        As in :func:`predict_to_files`.

    Returns
    -------
    dict of str to numpy.ndarray
        By head: int8, per cent, shape of the tomogram.
    """
    maps = {head: np.zeros(tomogram.shape, np.int8) for head in _heads(model)}
    predictor = Predictor(model, device, threads, tta, tile, precision, engine)
    _run(tomogram, model, predictor, maps, None, polarity, mask)
    return maps


def predict_to_files(
    tomogram: Volume,
    model: Model,
    outputs: dict[str, str | Path],
    polarity: str = "dark",
    device: str = "auto",
    threads: int | None = None,
    tta: bool = False,
    mask: np.ndarray | None = None,
    uncertainty: str | Path | None = None,
    tile: int = TILE,
    precision: str = "auto",
    engine: str = "torch",
) -> dict:
    """Predict to MRC files (int8, per cent); memory does not grow with the number of slices.

    Parameters
    ----------
    tomogram : Volume
        Density; may be a memory map.
    model : Model
        Of kind ``segmenter``.
    outputs : dict of str to path-like
        File by head (``probability``, ``boundary``, ``membrane``). A head that the model lacks is
        an error; heads not named are not written.
    polarity : str
        ``dark`` or ``bright``: how protein looks in the tomogram.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    threads : int, optional
        CPU threads.
    tta : bool
        Average over four flips; four times slower.
    mask : numpy.ndarray, optional
        Same shape; the maps are 0 where it is 0, and slices without any are not predicted. They
        are 0 in padding in any case.
    uncertainty : path-like, optional
        Also write the entropy of ``probability``, per cent of a bit.
    tile : int
        Slices with a longer side are cut into tiles of this side.
    precision : str
        ``auto`` (bfloat16 where it is fast), ``bfloat16`` or ``float32``.
    engine : str
        ``torch`` or, on CPUs and where it is installed, ``openvino``.

    Returns
    -------
    dict
        Facts: heads, device, precision, shape the network worked at, median and scale of contrast.

    Raises
    ------
    InputError
        Where a head is missing or a shape does not fit.
    """
    from tomocensus.io import open_mrc_writer

    missing = sorted(set(outputs) - set(_heads(model)))
    if missing:
        raise InputError(
            f"{model.path or 'model'}: has no head {missing}, only {_heads(model)}. "
            "Train it with such annotation, or do without that map."
        )
    paths = dict(outputs)
    with contextlib.ExitStack() as stack:

        def writer(path: str | Path) -> np.ndarray:
            opened = open_mrc_writer(
                path,
                tomogram.shape,
                np.int8,
                tomogram.voxel_size,
                tomogram.origin,
                tomogram.nstart,
            )
            return stack.enter_context(opened)

        maps = {head: writer(path) for head, path in paths.items()}
        entropy = None if uncertainty is None else writer(uncertainty)
        predictor = Predictor(model, device, threads, tta, tile, precision, engine)
        return _run(tomogram, model, predictor, maps, entropy, polarity, mask)


def _heads(model: Model) -> list[str]:
    heads = model.card.get("heads")
    if not heads:
        raise InputError(f"{model.path or 'model'}: its card names no heads. Retrain the model.")
    return list(heads)


def _run(tomogram, model, predictor, maps, entropy, polarity, mask) -> dict:
    """Predict model slice by model slice and put what is ready on the tomogram's grid."""
    if mask is not None and mask.shape != tomogram.shape:
        raise InputError(
            f"the mask has shape {mask.shape}, the tomogram {tomogram.shape}. Give one that fits."
        )
    working = working_voxel_size(model.card, [tomogram.voxel_size])
    source = Slices(tomogram, working, polarity)
    heads = _heads(model)
    for z, image in _output_slices(predictor, source, tomogram.shape, mask):
        if mask is not None:
            image = image * looked_in(mask[z])
        if source.padded:
            blank = without_data(np.asarray(tomogram.data[z]), source.padding)
            image = image if blank is None else image * ~blank
        for head, target in maps.items():
            target[z] = np.rint(image[heads.index(head)] * 100).astype(np.int8)
        if entropy is not None:
            entropy[z] = np.rint(_entropy(image[heads.index("probability")]) * 100)
        if z % RELEASE_EVERY == 0:
            for part in (tomogram.data, mask, entropy, *maps.values()):
                release_pages(part)
    return {
        "heads": list(maps),
        "device": predictor.device.type,
        "precision": str(predictor.dtype).removeprefix("torch."),
        "engine": predictor.engine,
        "model_shape": list(source.shape),
        "model_voxel_size": working,
        "contrast_median": source.median,
        "contrast_scale": abs(source.scale),
        "polarity": polarity,
        "test_time_augmentation": predictor.tta,
    }


def _entropy(p: np.ndarray) -> np.ndarray:
    """Return the binary entropy in bits."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def _output_slices(predictor, source, shape, mask) -> Iterator[tuple[int, np.ndarray]]:
    """Yield ``(z, maps (heads, ny, nx) 0-1)`` on the tomogram's grid, in order of z.

    Only the two model slices around the output slice are held.
    """
    wanted = [
        (z, *_between(z, len(source), shape[0]))
        for z in releasing(range(shape[0]), mask)
        if mask is None or looked_in(mask[z]).any()
    ]
    needed = sorted({k for _, low, high, _ in wanted for k in (low, high)})
    count = AHEAD if predictor.device.type == "cuda" else 0
    slabs = ahead(lambda k: source.slab(k, predictor.slices), needed, count)
    predicted = zip(needed, ahead(predictor, slabs, count), strict=True)
    held: dict[int, np.ndarray] = {}
    for z, low, high, part in progress(wanted, "predicting slices"):
        for old in [old for old in held if old < low]:
            del held[old]
        while high not in held:
            held.update([next(predicted)])
        image = held[low]
        if high != low:
            image = image * (1 - part) + held[high] * part
        yield z, np.stack([resize_slice(one, shape[1:]) for one in image])


def _between(z: int, count: int, outputs: int) -> tuple[int, int, float]:
    """Return the model slices (of `count`) below and above an output slice, and where between."""
    position = min(max((z + 0.5) * count / outputs - 0.5, 0.0), count - 1.0)
    low = int(position)
    part = position - low
    return (low, low, 0.0) if part <= 1e-6 else (low, min(low + 1, count - 1), part)


class Predictor:
    """A network ready to predict: folded, channels last, in the chosen precision."""

    def __init__(
        self,
        model: Model,
        device: str = "auto",
        threads: int | None = None,
        tta: bool = False,
        tile: int = TILE,
        precision: str = "auto",
        engine: str = "torch",
    ):
        if threads:
            torch.set_num_threads(int(threads))
        self.device = choose_device(device)
        network = from_card(model.card, model.weights, str(model.path or "model"))
        self.depth = model.card["architecture"]["depth"]
        self.slices = model.card["architecture"]["slices"]
        fast = has_bfloat16(self.device)
        half = precision == "bfloat16" or (precision == "auto" and fast)
        self.dtype = torch.bfloat16 if half else torch.float32
        self.tta = bool(tta)
        self.tile = tile
        self.network: UNet = fold(network).to(
            self.device, self.dtype, memory_format=torch.channels_last
        )
        self.engine = engine
        if engine == "openvino":
            self.network = openvino_network(network, self.dtype, threads)
        elif engine != "torch":
            raise InputError(f"engine '{engine}' is unknown; use 'torch' or 'openvino'.")

    @torch.inference_mode()
    def __call__(self, slab: np.ndarray) -> np.ndarray:
        """Map a slab ``(slices, ny, nx)`` to probabilities ``(heads, ny, nx)``, float32."""
        image = to_device(np.ascontiguousarray(slab), self.device)
        if self.engine == "torch":
            image = image.to(self.dtype)
        if not self.tta:
            return self._slice(image).cpu().numpy()
        total = 0.0
        for flips in ((), (2,), (1,), (1, 2)):
            total = total + self._slice(image.flip(flips)).flip(flips)
        return (total / 4).cpu().numpy()

    def _slice(self, image: torch.Tensor) -> torch.Tensor:
        """Predict one slice: mirror its borders, cut it into tiles where it is large."""
        step = 2 ** (self.depth - 1)
        ny, nx = image.shape[1:]
        low = -(-MARGIN // step) * step
        for axis, n in ((1, ny), (2, nx)):
            at = mirrored(np.arange(-low, n + low + -n % step), n)
            image = image.index_select(axis, torch.from_numpy(at).to(image.device))
        if max(image.shape[1:]) <= self.tile:
            result = self._network(image)
        else:
            result = self._tiles(image, step)
        return result[:, low : low + ny, low : low + nx]

    def _tiles(self, image: torch.Tensor, step: int) -> torch.Tensor:
        """Predict overlapping tiles on the network's grid and keep what their edges cannot reach.

        So the result does not depend on the tiles.
        """
        edge = halo(self.depth)
        core = max(step, (self.tile - 2 * edge) // step * step)
        result = None
        for y in range(0, image.shape[1], core):
            for x in range(0, image.shape[2], core):
                y0, x0 = max(0, y - edge), max(0, x - edge)
                part = self._network(image[:, y0 : y + core + edge, x0 : x + core + edge])
                if result is None:
                    result = part.new_empty((part.shape[0], *image.shape[1:]))
                target = result[:, y : y + core, x : x + core]
                inner = part[:, y - y0 :, x - x0 :]
                target[...] = inner[:, : target.shape[1], : target.shape[2]]
        return result

    def _network(self, image: torch.Tensor) -> torch.Tensor:
        form = torch.channels_last if self.engine == "torch" else torch.contiguous_format
        tensor = image[None].contiguous(memory_format=form)
        return torch.sigmoid(self.network(tensor).float())[0]


def openvino_network(network: UNet, dtype: torch.dtype, threads: int | None):
    """Return a function like the network, compiled by OpenVINO for this CPU.

    Compiled once for each shape of input: the slices of a tomogram share one.

    Raises
    ------
    InputError
        Where OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise InputError(
            "engine 'openvino' was asked for, and OpenVINO is not installed. Install it "
            '(`pip install "tomocensus[openvino]"`) or use the engine torch.'
        ) from error
    network = network.to("cpu", torch.float32, memory_format=torch.contiguous_format)
    options = {"INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = int(threads)
    compiled = {}

    def run(tensor: torch.Tensor) -> torch.Tensor:
        shape = tuple(tensor.shape)
        if shape not in compiled:
            graph = openvino.convert_model(network, example_input=tensor, input=[shape])
            compiled[shape] = openvino.Core().compile_model(graph, "CPU", options)
        return torch.from_numpy(compiled[shape](tensor.numpy())[0])

    return run
