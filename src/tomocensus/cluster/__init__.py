"""Probability map to instances, by connectivity and convexity."""

from tomocensus.cluster.clustering import (
    Clustering,
    ClusterParameters,
    cluster,
    cluster_labels,
    decode_probability,
)
from tomocensus.cluster.labelling import label_slabs
from tomocensus.cluster.necks import depth_map, find_basins, split_at_necks
from tomocensus.cluster.shells import fill_slices, find_lumens, find_shared_walls
from tomocensus.cluster.solidity import digital_solidity, lattice_hull

__all__ = [
    "ClusterParameters",
    "Clustering",
    "cluster",
    "cluster_labels",
    "decode_probability",
    "depth_map",
    "digital_solidity",
    "fill_slices",
    "find_basins",
    "find_lumens",
    "find_shared_walls",
    "label_slabs",
    "lattice_hull",
    "split_at_necks",
]
