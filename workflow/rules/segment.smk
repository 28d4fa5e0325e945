"""Tomogram to probability map."""


rule segment:
    """REQUIRED INPUT: tomogram, input.json, segmenter. OUTPUT: a map for each of its heads; uncertainty.mrc
    where asked for.
    """
    input:
        unpack(named_files(mask=sample_files("mask"))),
        tomogram=sample_files("path"),
        inspected="results/{tomogram}/input.json",
    output:
        maps=one_or_all(expand("results/{{tomogram}}/{head}.mrc", head=HEADS)),
        record="results/{tomogram}/segment.json",
    log:
        "logs/segment/{tomogram}.log",
    benchmark:
        "logs/segment/{tomogram}.benchmark.tsv"
    conda:
        "../../envs/segment.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=memory(3000, 8),
        runtime=minutes(30, 120),
    params:
        script=script("segment"),
        files=options("mask"),
        model=model_path("segmenter"),
        model_hash=model_hash("segmenter"),
        settings=section("segment", "model"),
        content=contents("path", "mask"),
        code=code("segment"),
    shell:
        "python {params.script:q} --tomogram {input.tomogram:q} --inspected {input.inspected:q}"
        " {params.files:q} --model {params.model:q} --settings {params.settings:q}"
        " --threads {threads} --maps {output.maps:q} --record {output.record:q} --log {log:q}"
