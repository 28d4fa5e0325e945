"""Probability map to instances, by connectivity and convexity."""

from tomocensus.cluster.clustering import (
    Clustering,
    ClusterParameters,
    cluster,
    cluster_labels,
    decode_probability,
)
from tomocensus.cluster.solidity import digital_solidity, lattice_hull

__all__ = [
    "ClusterParameters",
    "Clustering",
    "cluster",
    "cluster_labels",
    "decode_probability",
    "digital_solidity",
    "lattice_hull",
]
