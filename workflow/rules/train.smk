"""Training: asked for by name, never upstream of what uses the model."""


rule train_segmenter:
    """REQUIRED INPUT: annotated tomograms. OUTPUT: models/segmenter."""
    input:
        tomograms=[ancient(SAMPLES[name].path) for name in with_column("annotation")],
        annotations=[
            ancient(SAMPLES[name].annotation) for name in with_column("annotation")
        ],
        inspected=expand("results/{name}/input.json", name=with_column("annotation")),
    output:
        card=update("models/segmenter/model.json"),
        weights=update("models/segmenter/model.safetensors"),
    log:
        "logs/train_segmenter.log",
    conda:
        "../../envs/segment.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=memory_of_all(8000, 8, with_column("annotation"), together=True),
        runtime=times_attempt(120),
    params:
        script=script("train_segmenter"),
        sheet=setting("tomograms"),
        base=base_folder("segmenter"),
        settings=section("train_segmenter", "base"),
        content=[
            content(getattr(SAMPLES[name], column), column in SAMPLED_COLUMNS)
            for name in with_column("annotation")
            for column in ("path", "annotation")
        ],
        base_hash=lambda wildcards: base_hash("segmenter"),
        code=code("train_segmenter"),
    shell:
        "python {params.script:q} --sheet {params.sheet:q} --settings {params.settings:q}"
        " --base {params.base:q} --threads {threads} --output models/segmenter --log {log:q}"


rule train_classifier:
    """REQUIRED INPUT: named examples, embeddings and labels. OUTPUT: models/classifier."""
    input:
        embeddings=expand("results/{name}/embeddings.npz", name=example_tomograms()),
        labels=expand("results/{name}/labels.mrc", name=example_tomograms()),
    output:
        card=update("models/classifier/model.json"),
        weights=update("models/classifier/model.safetensors"),
    log:
        "logs/train_classifier.log",
    conda:
        "../../envs/classify.yaml"
    threads: 1
    resources:
        mem_mb=memory_of_all(4000, 0, example_tomograms()),
        runtime=times_attempt(20),
    params:
        script=script("train_classifier"),
        sheet=setting("tomograms"),
        examples=setting("examples"),
        content=content(config["examples"]),
        base=base_folder("classifier"),
        base_hash=lambda wildcards: base_hash("classifier"),
        settings=section("train_classifier", "base"),
        encoder=model_path("encoder"),
        encoder_hash=model_hash("encoder"),
        code=code("train_classifier"),
    shell:
        "python {params.script:q} --sheet {params.sheet:q} --examples {params.examples:q}"
        " --encoder {params.encoder:q} --base {params.base:q} --settings {params.settings:q}"
        " --output models/classifier --log {log:q}"
