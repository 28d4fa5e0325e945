"""Cellular scenes with known truth, put through an electron microscope."""

from tomocensus.simulate.finish import Finish
from tomocensus.simulate.labels import simulate_from_labels
from tomocensus.simulate.microscope import Imaging, image_labels
from tomocensus.simulate.scenes import KINDS, Scene, draw_scene
from tomocensus.simulate.specimen import Specimen
from tomocensus.simulate.tomogram import SimulatedTomogram, simulate_tomogram, write_dataset

__all__ = [
    "KINDS",
    "Finish",
    "Imaging",
    "Scene",
    "SimulatedTomogram",
    "Specimen",
    "draw_scene",
    "image_labels",
    "simulate_from_labels",
    "simulate_tomogram",
    "write_dataset",
]
