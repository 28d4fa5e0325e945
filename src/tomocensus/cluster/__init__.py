"""Probability map to instances, by connectivity and convexity."""

from tomocensus.cluster.clustering import (
    Clustering,
    ClusterParameters,
    cluster,
    cluster_labels,
    decode_probability,
    depth_map,
    fill_slices,
    find_lumens,
    find_shared_walls,
    label_slabs,
    split_at_necks,
)
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
    "find_lumens",
    "find_shared_walls",
    "label_slabs",
    "lattice_hull",
    "split_at_necks",
]
