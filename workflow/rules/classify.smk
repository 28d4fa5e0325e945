"""Instances to embeddings (needs a GPU, changes rarely) and to classes (seconds, changes often)."""


rule embed:
    """REQUIRED INPUT: tomogram, labels, encoder. OUTPUT: one vector for each instance."""
    input:
        tomogram=sample_files("path"),
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
        mem_mb=memory(3000, 12),
        runtime=minutes(20, 60),
    params:
        script=script("embed"),
        model=model_path("encoder"),
        model_hash=model_hash("encoder"),
        content=contents("path"),
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
        mem_mb=times_attempt(1000),
        runtime=times_attempt(10),
    params:
        script=script("classify"),
        model=model_path("classifier"),
        model_hash=model_hash("classifier"),
        settings=section("classify", "model"),
        code=code("classify"),
    shell:
        "python {params.script:q} --embeddings {input.embeddings:q} --model {params.model:q}"
        " --settings {params.settings:q} --classes {output.classes:q} --record {output.record:q}"
        " --log {log:q}"
