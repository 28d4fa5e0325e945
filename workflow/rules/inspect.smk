"""Look at every input before anything heavy starts."""


rule inspect:
    """REQUIRED INPUT: the tomogram and what else its row names. OUTPUT: input.json."""
    input:
        lambda wildcards: sample_files(
            wildcards,
            "path",
            "annotation",
            "mask",
            "probability",
            "labels",
            "ground_truth",
        ),
    output:
        "results/{tomogram}/input.json",
    log:
        "logs/inspect/{tomogram}.log",
    conda:
        "../../envs/inspect.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000, 1),
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        script=script("inspect_input"),
        row=lambda wildcards: SAMPLES[wildcards.tomogram].to_json(),
        content=lambda wildcards: contents(
            wildcards,
            "path",
            "annotation",
            "mask",
            "probability",
            "labels",
            "ground_truth",
        ),
        code=code("inspect_input"),
    shell:
        "python {params.script:q} --row {params.row:q} --output {output:q} --log {log:q}"
