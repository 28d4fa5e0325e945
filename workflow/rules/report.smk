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


def report_models():
    """Folder of each model that there is."""
    kinds = ("segmenter", "encoder", "classifier")
    return {kind: folder for kind in kinds if (folder := model_folder(kind))}


rule report:
    """REQUIRED INPUT: census, pictures, scores, records. OUTPUT: one HTML file."""
    input:
        "results/census.csv",
        "results/counts.csv",
        "results/evaluation.csv",
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
        models=lambda wildcards, input: json.dumps(report_models(), sort_keys=True),
        model_hashes=lambda wildcards: [model_hash(kind) for kind in report_models()],
        title=config["report"]["title"],
        settings=json.dumps(config, sort_keys=True),
        code=code("report"),
    shell:
        "python {params.script:q} --sheet {params.sheet:q} --models {params.models:q}"
        " --title {params.title:q} --settings {params.settings:q} --output {output:q}"
        " --log {log:q}"
