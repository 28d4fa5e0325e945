"""Simulated tomograms with their truth, asked for by name: nothing else depends on them.

snakemake simulated/cell-{1..20}
"""


rule simulate:
    """OUTPUT: tomogram, instances, membranes, classes and parameters of a preset and a seed."""
    output:
        directory("simulated/{preset}-{seed}"),
    log:
        "logs/simulate/{preset}-{seed}.log",
    wildcard_constraints:
        preset="random|cell|demo",
        seed="[0-9]+",
    conda:
        "../../envs/measure.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        script=script("simulate"),
        code=code("simulate"),
    shell:
        "python {params.script:q} --preset {wildcards.preset:q} --seed {wildcards.seed:q}"
        " --output {output:q} --log {log:q}"
