"""Probability map to labelmap: one number for each object."""


rule cluster:
    """REQUIRED INPUT: probability and further maps, or a labelmap. OUTPUT: labels, clusters.csv."""
    input:
        maps=cluster_maps,
        given=sample_files("labels"),
        inspected="results/{tomogram}/input.json",
        mask=sample_files("mask"),
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
        mem_mb=memory(1000, 16),
        runtime=minutes(20, 60),
    params:
        script=script("cluster"),
        settings=section("cluster"),
        content=contents("probability", "labels", "mask"),
        code=code("cluster"),
    shell:
        "python {params.script:q} --maps {input.maps:q} --given {input.given:q}"
        " --inspected {input.inspected:q} --mask {input.mask:q} --settings {params.settings:q}"
        " --threads {threads} --labels {output.labels:q} --table {output.table:q}"
        " --record {output.record:q} --log {log:q}"
