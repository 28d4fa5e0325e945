# The entry: everything stands in workflow/Snakefile, which other workflows can import as a module.
include: "workflow/Snakefile"


# An included file's default target does not count.
rule everything:
    default_target: True
    input:
        rules.all.input,
