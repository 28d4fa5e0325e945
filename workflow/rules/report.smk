"""Pictures of each tomogram, and the report that shows all."""


rule picture:
    """REQUIRED INPUT: tomogram, map, labels, tables. OUTPUT: slices and overlays as JSON."""
    input:
        tomogram=sample_files("path"),
        inspected="results/{tomogram}/input.json",
        probability=probability_map,
        labels="results/{tomogram}/labels.mrc",
        clusters="results/{tomogram}/clusters.csv",
        instances="results/{tomogram}/instances.csv",
    output:
        "results/{tomogram}/pictures.json",
    log:
        "logs/picture/{tomogram}.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000, 16),
        runtime=minutes(10, 20),
    params:
        script=script("picture"),
        slices=config["report"]["slices"],
        content=contents("path", "probability"),
        code=code("picture"),
    shell:
        "python {params.script:q} --tomogram {input.tomogram:q} --inspected {input.inspected:q}"
        " --probability {input.probability:q} --labels {input.labels:q}"
        " --clusters {input.clusters:q} --instances {input.instances:q} --slices {params.slices} --output {output:q}"
        " --log {log:q}"


rule review:
    """REQUIRED INPUT: embeddings, classes, labels of all. OUTPUT: what to name next, pictures."""
    input:
        tomograms=lambda wildcards: [
            ancient(sample.path) for sample in SAMPLES.values()
        ],
        inspected=of_all("results/{tomogram}/input.json"),
        embeddings=of_all("results/{tomogram}/embeddings.npz"),
        classes=of_all("results/{tomogram}/classes.csv"),
        labels=of_all("results/{tomogram}/labels.mrc"),
    output:
        table="results/review.csv",
        pictures="results/review.json",
    log:
        "logs/review.log",
    conda:
        "../../envs/classify.yaml"
    threads: 1
    resources:
        mem_mb=memory_of_all(4000, 12, SAMPLES),
        runtime=times_attempt(60),
    params:
        script=script("review"),
        sheet=setting("tomograms"),
        examples=setting("examples"),
        example_content=content(config["examples"]),
        code=code("review"),
    shell:
        "python {params.script:q} --sheet {params.sheet:q} --examples {params.examples:q}"
        " --table {output.table:q} --pictures {output.pictures:q} --log {log:q}"


rule report:
    """REQUIRED INPUT: census, pictures, scores, records. OUTPUT: one HTML file."""
    input:
        "results/census.csv",
        "results/counts.csv",
        "results/evaluation.csv",
        "results/review.json",
        expand("results/{tomogram}/pictures.json", tomogram=PICTURED),
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
        mem_mb=memory_of_all(4000, 0, SAMPLES),
        runtime=times_attempt(20),
    params:
        script=script("report"),
        sheet=setting("tomograms"),
        models=lambda wildcards, input: json.dumps(report_models(), sort_keys=True),
        model_hashes=lambda wildcards: [
            hashes_of_model(kind) for kind in report_models()
        ],
        # Functions, for braces in a title are no wildcards.
        title=lambda wildcards: config["report"]["title"],
        settings=lambda wildcards: json.dumps(config, sort_keys=True),
        code=code("report"),
        templates=[
            content(ROOT / "src" / "tomocensus" / "report" / f"report.{kind}")
            for kind in ("html", "css", "js")
        ],
    shell:
        "python {params.script:q} --sheet {params.sheet:q} --models {params.models:q}"
        " --title={params.title:q} --settings {params.settings:q} --output {output:q}"
        " --log {log:q}"
