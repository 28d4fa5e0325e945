"""The columns of the instance table, in order, each with its meaning and unit."""

COLUMNS: dict[str, str] = {
    "tomogram": "name of the tomogram in the sample sheet",
    "group": "experimental condition of the tomogram; may be empty",
    "instance": "number of the object in the labelmap",
    "class": "class of the object; `unknown` when rejected or not classified",
    "confidence": (
        "probability of the likeliest class, 0-1, also where it was too low to name the "
        "object so; empty when not classified"
    ),
    "x_voxel": "centroid, 0-based voxel-centre index along x",
    "y_voxel": "centroid, 0-based voxel-centre index along y",
    "z_voxel": "centroid, 0-based voxel-centre index along z",
    "x_angstrom": "centroid in Å: index times voxel size plus the volume's offset",
    "y_angstrom": "centroid in Å, y",
    "z_angstrom": "centroid in Å, z",
    "volume_angstrom3": "voxel count times the voxel's volume, Å³",
    "surface_angstrom2": "surface area, Å²; Crofton's formula over 13 directions",
    "equivalent_diameter_angstrom": "diameter of the sphere of the same volume, Å",
    "length_angstrom": (
        "longest axis of the solid ellipsoid with the same moments, Å; of a straight rod 1.29 "
        "times its length"
    ),
    "width_angstrom": "middle axis of that ellipsoid, Å",
    "thickness_angstrom": (
        "shortest axis of that ellipsoid, Å; of a flat plate 1.29 times its thickness"
    ),
    "elongation": "length over width; 1 is round or a disc",
    "flatness": "width over thickness; 1 is round or a rod",
    "sphericity": "surface of the sphere of the same volume over the surface, at most 1",
    "major_x": "x of the unit vector along the longest axis; the sign is chosen so that z >= 0",
    "major_y": "y of that vector",
    "major_z": "z of that vector",
    "box_x_min": "first voxel of the bounding box along x",
    "box_x_max": "last voxel of the bounding box along x, included",
    "box_y_min": "first voxel of the bounding box along y",
    "box_y_max": "last voxel of the bounding box along y, included",
    "box_z_min": "first voxel of the bounding box along z",
    "box_z_max": "last voxel of the bounding box along z, included",
    "touches_border": (
        "true where the object reaches a face of the volume, the end of the mask or padding, "
        "and may be cut"
    ),
    "solidity": "voxels over lattice points of the convex hull, 0-1, from clustering",
    "separation": "how clustering made the object: whole, split, merged or sheet",
    "mean_probability": (
        "mean of the probability map over the object without what was filled, 0-1, from clustering"
    ),
    "nearest_instance": "number of the object whose surface is nearest; empty when alone",
    "nearest_distance_angstrom": "surface-to-surface distance to it, Å; 0 when faces touch",
    "contacts": "number of objects no farther than the contact distance",
    "contact_instances": "their numbers, joined by `;`",
    "inside_instance": "innermost object that surrounds it on all sides; empty without one",
}
