"""The instances in the formats of other programs."""


rule export_tomogram:
    """REQUIRED INPUT: instance table, input.json. OUTPUT: STAR, IMOD points, picks."""
    input:
        instances="results/{tomogram}/instances.csv",
        inspected="results/{tomogram}/input.json",
    output:
        star="results/{tomogram}/export/instances.star",
        points="results/{tomogram}/export/instances.txt",
        classes=directory("results/{tomogram}/export/points"),
        picks="results/{tomogram}/export/instances.ndjson",
    log:
        "logs/export/{tomogram}.log",
    conda:
        "../../envs/measure.yaml"
    threads: 1
    resources:
        mem_mb=times_attempt(1000),
        runtime=times_attempt(10),
    params:
        script=script("export"),
        code=code("export"),
    shell:
        "python {params.script:q} --instances {input.instances:q} --inspected {input.inspected:q}"
        " --star {output.star:q} --points {output.points:q} --classes {output.classes:q}"
        " --picks {output.picks:q} --log {log:q}"


rule export_classes:
    """REQUIRED INPUT: all instance tables. OUTPUT: a STAR file of each class."""
    input:
        instances=of_all("results/{tomogram}/instances.csv"),
        inspected=of_all("results/{tomogram}/input.json"),
    output:
        directory("results/particles"),
    log:
        "logs/export_classes.log",
    conda:
        "../../envs/census.yaml"
    threads: 1
    resources:
        mem_mb=memory_of_all(2000, 0, SAMPLES),
        runtime=times_attempt(30),
    params:
        script=script("export_classes"),
        sheet=setting("tomograms"),
        tomograms=sorted(SAMPLES),
        code=code("export_classes"),
    shell:
        "python {params.script:q} --sheet {params.sheet:q} --folder {output:q} --log {log:q}"


rule copick_objects:
    """REQUIRED INPUT: all instance tables. OUTPUT: configuration of a copick project."""
    input:
        instances=of_all("results/{tomogram}/instances.csv"),
    output:
        "results/copick/copick.json",
    log:
        "logs/copick.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=memory_of_all(2000, 0, SAMPLES),
        runtime=times_attempt(30),
    params:
        script=script("export_copick"),
        sheet=setting("tomograms"),
        tomograms=sorted(SAMPLES),
        # What users save in copick: no output of any rule. copick wants the whole path, so that a
        # project that was moved needs another copick.json.
        overlay=os.path.abspath("copick"),
        code=code("export_copick"),
    shell:
        "python {params.script:q} --sheet {params.sheet:q} --overlay {params.overlay:q}"
        " --config {output:q} --log {log:q}"


rule copick_run:
    """REQUIRED INPUT: labels, instance table, input.json, copick.json. OUTPUT: a copick run."""
    input:
        labels="results/{tomogram}/labels.mrc",
        instances="results/{tomogram}/instances.csv",
        inspected="results/{tomogram}/input.json",
        objects="results/copick/copick.json",
    output:
        directory("results/copick/ExperimentRuns/{tomogram}"),
    log:
        "logs/copick/{tomogram}.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=memory(1500, 3),
        runtime=times_attempt(60),
    params:
        script=script("export_copick"),
        code=code("export_copick"),
    shell:
        "python {params.script:q} --config {input.objects:q} --labels {input.labels:q}"
        " --instances {input.instances:q} --inspected {input.inspected:q} --run {output:q}"
        " --log {log:q}"


rule export_copick:
    """All tomograms as a copick project."""
    input:
        expand("results/copick/ExperimentRuns/{tomogram}", tomogram=SAMPLES),


rule export:
    """All exports of all tomograms."""
    input:
        expand("results/{tomogram}/export/instances.star", tomogram=SAMPLES),
        "results/particles",
