"""Probability map to labelmap: one number for each object."""


rule cluster:
    """REQUIRED INPUT: probability and further maps, or a labelmap. OUTPUT: labels, clusters.csv."""
    input:
        unpack(
            named_files(
                maps=cluster_maps,
                boundary=outlines_given,
                given=sample_files("labels"),
                mask=sample_files("mask"),
            )
        ),
        inspected="results/{tomogram}/input.json",
    output:
        labels="results/{tomogram}/labels.mrc",
        table="results/{tomogram}/clusters.csv",
        record="results/{tomogram}/cluster.json",
    log:
        "logs/cluster/{tomogram}.log",
    conda:
        "../../envs/cluster.yaml"
    threads: 2
    resources:
        # What is larger goes to files: LARGE in the script.
        mem_mb=memory_of_clustering(1000, 14, most=500, for_levels=40, most_levels=300),
        runtime=minutes(20, 60),
    params:
        script=script("cluster"),
        files=options("maps", "boundary", "given", "mask"),
        # Given labels are taken as they are.
        settings=known(
            lambda wildcards: (
                "{}"
                if sample_of(wildcards).labels
                else section("cluster", "predict_outlines")
            )
        ),
        content=contents("probability", "boundary", "labels", "mask"),
        code=code("cluster"),
    shell:
        "python {params.script:q} {params.files:q} --inspected {input.inspected:q}"
        " --settings {params.settings:q} --threads {threads} --labels {output.labels:q}"
        " --table {output.table:q} --record {output.record:q} --log {log:q}"
