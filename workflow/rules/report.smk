"""Pictures of each tomogram, and the report that shows all."""


rule picture:
    """REQUIRED INPUT: tomogram, map, labels, instances. OUTPUT: slices and overlays as JSON."""
    input:
        tomogram=lambda wildcards: sample_files(wildcards, "path"),
        inspected="results/{tomogram}/input.json",
        probability=lambda wildcards: cluster_maps(wildcards)[:1],
        labels="results/{tomogram}/labels.mrc",
        instances="results/{tomogram}/instances.csv",
    output:
        "results/{tomogram}/pictures.json",
    log:
        "logs/picture/{tomogram}.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000, 3),
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        script=script("picture"),
        slices=config["report"]["slices"],
        content=lambda wildcards: contents(wildcards, "path", "probability"),
        code=code("picture"),
    shell:
        "python {params.script:q} --tomogram {input.tomogram:q} --inspected {input.inspected:q}"
        " --probability {input.probability:q} --labels {input.labels:q}"
        " --instances {input.instances:q} --slices {params.slices} --output {output:q}"
        " --log {log:q}"


rule review:
    """REQUIRED INPUT: embeddings, classes, labels of all. OUTPUT: what to name next, pictures."""
    input:
        tomograms=[ancient(sample.path) for sample in SAMPLES.values()],
        inspected=expand("results/{tomogram}/input.json", tomogram=SAMPLES),
        embeddings=expand("results/{tomogram}/embeddings.npz", tomogram=SAMPLES),
        classes=expand("results/{tomogram}/classes.csv", tomogram=SAMPLES),
        labels=expand("results/{tomogram}/labels.mrc", tomogram=SAMPLES),
    output:
        table="results/review.csv",
        pictures="results/review.json",
    log:
        "logs/review.log",
    conda:
        "../../envs/classify.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        script=script("review"),
        sheet=config["tomograms"],
        code=code("review"),
    shell:
        "python {params.script:q} --sheet {params.sheet:q} --table {output.table:q}"
        " --pictures {output.pictures:q} --log {log:q}"


rule report:
    """REQUIRED INPUT: census, pictures, scores, records. OUTPUT: one HTML file."""
    input:
        "results/census.csv",
        "results/counts.csv",
        "results/evaluation.csv",
        "results/review.json",
        expand("results/{tomogram}/pictures.json", tomogram=SAMPLES),
    output:
        report(
            "results/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"page": "report"},
        ),
    log:
        "logs/report.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        script=script("report"),
        sheet=config["tomograms"],
        models=lambda wildcards: json.dumps(
            {
                kind: folder
                for kind in ("segmenter", "encoder", "classifier")
                if (folder := model_folder(kind))
            }
        ),
        title=config["report"]["title"],
        settings=json.dumps(config, sort_keys=True),
        code=code("report"),
    shell:
        "python {params.script:q} --sheet {params.sheet:q} --models {params.models:q}"
        " --title {params.title:q} --settings {params.settings:q} --output {output:q}"
        " --log {log:q}"
