"""Instances to embeddings (needs a GPU, changes rarely) and to classes (seconds, changes often)."""


rule embed:
    """REQUIRED INPUT: tomogram, labels, encoder. OUTPUT: one vector for each instance."""
    input:
        tomogram=lambda wildcards: sample_files(wildcards, "path"),
        inspected="results/{tomogram}/input.json",
        labels="results/{tomogram}/labels.mrc",
    output:
        embeddings="results/{tomogram}/embeddings.npz",
        record="results/{tomogram}/embed.json",
    log:
        "logs/embed/{tomogram}.log",
    benchmark:
        "logs/embed/{tomogram}.benchmark.tsv"
    conda:
        "../../envs/embed.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=memory(3000, 3),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        script=script("embed"),
        model=model_path("encoder"),
        model_hash=lambda wildcards: model_hash("encoder"),
        content=lambda wildcards: contents(wildcards, "path"),
        code=code("embed"),
    shell:
        "python {params.script:q} --tomogram {input.tomogram:q} --inspected {input.inspected:q}"
        " --labels {input.labels:q} --model {params.model:q} --threads {threads}"
        " --embeddings {output.embeddings:q} --record {output.record:q} --log {log:q}"


rule classify:
    """REQUIRED INPUT: embeddings, classifier head. OUTPUT: class and confidence of each instance."""
    input:
        embeddings="results/{tomogram}/embeddings.npz",
    output:
        classes="results/{tomogram}/classes.csv",
        record="results/{tomogram}/classify.json",
    log:
        "logs/classify/{tomogram}.log",
    conda:
        "../../envs/classify.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        script=script("classify"),
        model=model_path("classifier"),
        model_hash=lambda wildcards: model_hash("classifier"),
        settings=section("classify", "model"),
        code=code("classify"),
    shell:
        "python {params.script:q} --embeddings {input.embeddings:q} --model {params.model:q}"
        " --settings {params.settings:q} --classes {output.classes:q} --record {output.record:q}"
        " --log {log:q}"
