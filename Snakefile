# The entry: everything stands in workflow/Snakefile, which other workflows can import as well.
module pipeline:
    snakefile:
        "workflow/Snakefile"


use rule * from pipeline
