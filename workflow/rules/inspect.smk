"""Look at every input before anything heavy starts.

Annotation, ground truth and group are looked at as well, but a change of them alone does not make
input.json stale, as everything follows from it: training and evaluation read these files anew and
check them too.
"""


rule inspect:
    """REQUIRED INPUT: the tomogram and what else its row names. OUTPUT: input.json."""
    input:
        sample_files(*INSPECTED),
    output:
        "results/{tomogram}/input.json",
    log:
        "logs/inspect/{tomogram}.log",
    conda:
        "../../envs/inspect.yaml"
    threads: 1
    resources:
        mem_mb=memory(1500, 8),
        runtime=minutes(10, 20),
    params:
        script=script("inspect_input"),
        row=lambda wildcards, input: sample_of(wildcards).to_json(),
        tracked=tracked_row,
        content=contents(*INSPECTED),
        code=code("inspect_input"),
    shell:
        "python {params.script:q} --row {params.row:q} --output {output:q} --log {log:q}"
