"""Labelmap and classes to the instance table, and all instance tables to the census."""


rule measure:
    """REQUIRED INPUT: tomogram, labels, clusters, classes. OUTPUT: the instance table."""
    input:
        unpack(named_files(mask=sample_files("mask"))),
        tomogram=sample_files("path"),
        labels="results/{tomogram}/labels.mrc",
        clusters="results/{tomogram}/clusters.csv",
        classes="results/{tomogram}/classes.csv",
        inspected="results/{tomogram}/input.json",
    output:
        instances="results/{tomogram}/instances.csv",
        record="results/{tomogram}/measure.json",
    log:
        "logs/measure/{tomogram}.log",
    conda:
        "../../envs/measure.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000, 16),
        runtime=minutes(20, 40),
    params:
        script=script("measure"),
        files=options("mask"),
        settings=section("measure"),
        group=lambda wildcards: sample_of(wildcards).group,
        content=contents("path", "mask"),
        code=code("measure"),
    shell:
        "python {params.script:q} --tomogram {input.tomogram:q} {params.files:q}"
        " --labels {input.labels:q} --clusters {input.clusters:q}"
        " --classes {input.classes:q} --inspected {input.inspected:q}"
        " --settings {params.settings:q} --group={params.group:q} --instances {output.instances:q}"
        " --record {output.record:q} --log {log:q}"


rule census:
    """REQUIRED INPUT: all instance tables. OUTPUT: one table of all, counts and densities, groups."""
    input:
        instances=of_all("results/{tomogram}/instances.csv"),
        inspected=of_all("results/{tomogram}/input.json"),
    output:
        csv=report(
            "results/census.csv",
            caption="../report/census.rst",
            category="Census",
            labels={"table": "instances"},
        ),
        parquet="results/census.parquet",
        counts=report(
            "results/counts.csv",
            caption="../report/counts.rst",
            category="Census",
            labels={"table": "counts"},
        ),
        groups=report(
            "results/groups.csv",
            caption="../report/groups.rst",
            category="Census",
            labels={"table": "groups"},
        ),
    log:
        "logs/census.log",
    conda:
        "../../envs/census.yaml"
    threads: 1
    resources:
        mem_mb=memory_of_all(2000, 0, SAMPLES),
        runtime=times_attempt(30),
    params:
        script=script("census"),
        sheet=setting("tomograms"),
        tomograms=sorted(SAMPLES),
        # A function, see `setting`.
        groups=lambda wildcards: [sample.group for _, sample in sorted(SAMPLES.items())],
        code=code("census"),
    shell:
        "python {params.script:q} --sheet {params.sheet:q} --csv {output.csv:q}"
        " --parquet {output.parquet:q} --counts {output.counts:q}"
        " --groups {output.groups:q} --log {log:q}"


rule evaluate:
    """REQUIRED INPUT: results and ground truth where there is one. OUTPUT: scores."""
    input:
        truth_files,
    output:
        "results/evaluation.csv",
    log:
        "logs/evaluate.log",
    conda:
        "../../envs/evaluate.yaml"
    threads: 1
    resources:
        mem_mb=memory_of_all(2000, 18, with_column("ground_truth")),
        runtime=times_attempt(60),
    params:
        script=script("evaluate"),
        sheet=setting("tomograms"),
        examples=setting("examples"),
        example_content=content(config["examples"]),
        truth=[
            content(getattr(SAMPLES[name], column))
            for name in with_column("ground_truth")
            for column in (
                "ground_truth",
                "ground_truth_classes",
                "annotation",
                "mask",
            )
            if getattr(SAMPLES[name], column)
        ],
        code=code("evaluate"),
    shell:
        "python {params.script:q} --sheet {params.sheet:q} --examples {params.examples:q}"
        " --output {output:q} --log {log:q}"
