"""Cellular scenes with known truth, put through an electron microscope."""

from tomocensus.simulate.microscope import image_labels
from tomocensus.simulate.scenes import KINDS, Scene, draw_scene
from tomocensus.simulate.tomogram import SimulatedTomogram, simulate_tomogram, write_dataset

__all__ = [
    "KINDS",
    "Scene",
    "SimulatedTomogram",
    "draw_scene",
    "image_labels",
    "simulate_tomogram",
    "write_dataset",
]
