"""What all rules share: configuration, sample sheet, models, and what makes a result stale."""

import gc
import inspect
import json
import os
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

ROOT = Path(str(workflow.current_basedir)).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "workflow")]
# Without conda the stages run in the environment that Snakemake runs in; an activated conda
# environment puts itself before it.
search_path = [str(Path(sys.executable).parent), *os.get_exec_path()]
os.environ.update(PATH=os.pathsep.join(search_path))

from slim_graph import save_memory
from slurm_plugin import PLUGIN, ask_queue_alone
from snakemake.exceptions import WorkflowError

from tomocensus.errors import InputError
from tomocensus.fingerprints import Fingerprints
from tomocensus.io import read_header
from tomocensus.models import WEIGHTS, file_sha256, read_card
from tomocensus.provenance import code_hash
from tomocensus.queue import (
    OUTAGE,
    check_no_arrays,
    check_nothing_is_queued,
    forgetting_warning,
)
from tomocensus.samples import FILE_COLUMNS, check_keys, load_config, read_samples

# The graph of thousands of tomograms is millions of objects that all stay: Python need not look
# through them for garbage again and again.
gc.set_threshold(500_000, 50, 100)
save_memory()

SCRIPTS = ROOT / "workflow" / "scripts"
# Large volumes that programs write whole: blocks of them are hashed, not all bytes.
SAMPLED_COLUMNS = ("path", "probability", "boundary")


def with_scale(sample):
    """A sample whose given map is of the configured scale where its row does not say."""
    scale = config["probability_scale"]
    if scale == "auto" or sample.probability_scale or not sample.probability:
        return sample
    return replace(sample, probability_scale=scale)


def check_writable(*folders):
    """Stop with one line where a folder of the project cannot be written or made."""
    for folder in folders:
        if not os.access(folder if os.path.exists(folder) else ".", os.W_OK):
            raise WorkflowError(
                f"{os.path.abspath(folder)} cannot be written: the file system is read-only, or "
                "the folder belongs to somebody else. Use another project (--directory), or "
                "mend that and start again."
            )


# Snakemake writes there even in a dry run and would end with a traceback.
check_writable(".snakemake")


try:
    for path in workflow.configfiles:
        check_keys(path)
    config = load_config(config, "configuration")
    SAMPLES = {
        name: with_scale(sample)
        for name, sample in read_samples(config["tomograms"]).items()
    }
except InputError as error:
    raise WorkflowError(str(error))


# A large report opens in no browser.
PICTURED = list(SAMPLES)[: config["report"]["tomograms"]]


# Not the names themselves: a pattern of thousands of names is slow to match.
wildcard_constraints:
    tomogram="[^/]+",


def sample_of(wildcards):
    """The row of a tomogram."""
    if wildcards.tomogram not in SAMPLES:
        raise WorkflowError(
            f"There is no tomogram '{wildcards.tomogram}' in {config['tomograms']}."
        )
    return SAMPLES[wildcards.tomogram]


def known(function):
    """The function with its signature kept: Snakemake asks for it several times for each job."""
    function.__signature__ = inspect.signature(function)
    return function


def script(stage):
    """Path of the script of a stage.

    A function that takes `input` is not compared with the last run's value: another clone of the
    same commit makes nothing stale. What the script holds is tracked by `code`.
    """
    path = str(SCRIPTS / f"{stage}.py")
    return known(lambda wildcards, input: path)


def code(stage):
    """Hash of a stage's script and of all project code that it imports; comments do not count."""
    return code_hash(SCRIPTS / f"{stage}.py")


CONTENT = Fingerprints(".snakemake/tomocensus/fingerprints.json")
CONTENT.look_at(
    (path, column in SAMPLED_COLUMNS)
    for sample in SAMPLES.values()
    for column in FILE_COLUMNS
    if (path := getattr(sample, column))
)


def content(path, sampled=False):
    """Hash of what a file holds: one replaced by an older one is noticed; see `Fingerprints`."""
    return CONTENT.of(path, sampled)


def contents(*columns):
    """Content hashes of the files that the given columns of a tomogram's row name."""

    def hashes(wildcards):
        sample = sample_of(wildcards)
        return [
            content(path, column in SAMPLED_COLUMNS)
            for column in columns
            if (path := getattr(sample, column))
        ]

    return known(hashes)


def one_or_all(files):
    """The file itself where it is one: a list of one costs Snakemake a kilobyte for each job."""
    return files[0] if len(files) == 1 else files


def sample_files(*columns):
    """Files that the given columns of a tomogram's row name, where they do."""

    def files(wildcards):
        sample = sample_of(wildcards)
        paths = [getattr(sample, column) for column in columns]
        return one_or_all([ancient(path) for path in paths if path])

    return known(files)


def named_files(**functions):
    """Inputs by name, for `unpack`; a name is left out where there is no such file.

    An empty list costs as much as one of one, see above.
    """

    def files(wildcards):
        found = {name: function(wildcards) for name, function in functions.items()}
        return {name: value for name, value in found.items() if value}

    return known(files)


def options(*names):
    """The stage's options for those of the named inputs that there are: --NAME FILE.

    Not compared with the last run's value (see `script`): the inputs themselves are.
    """
    words = {name: f"--{name}" for name in names}

    def given(wildcards, input):
        found = []
        for name, word in words.items():
            if files := input.get(name):
                found += [word, *([files] if isinstance(files, str) else files)]
        return found

    return known(given)


def of_all(pattern, names=SAMPLES):
    """Files of all tomograms, as a function: a rule would keep a list of them beside its job's."""
    return known(lambda wildcards: expand(pattern, tomogram=names))


def model_folder(kind):
    """Folder of the segmenter, encoder or classifier: configured, trained here, or shipped.

    None where there is no such model yet.
    """
    section = {"segmenter": "segment", "encoder": "embed", "classifier": "classify"}[
        kind
    ]
    chosen = config[section]["model"]
    if chosen != "auto":
        return chosen
    for folder in (Path("models") / kind, ROOT / "models" / f"base-{kind}"):
        if (folder / "model.json").is_file():
            return str(folder)
        if (folder / WEIGHTS).is_file():
            # Another model would be used, unsaid.
            raise WorkflowError(
                f"{folder / 'model.json'}: no such file. A model is model.json and its weights: "
                "copy both, or remove the folder."
            )
    return None


HELP = {
    "segmenter": "annotate some slices, name them in the sample sheet's column 'annotation' and "
    "run: snakemake train_segmenter",
    "encoder": "restore models/base-encoder",
    "classifier": "name examples in the file that 'examples:' names and run: "
    "snakemake train_classifier",
}


def model(kind):
    """Folder of a model; a clear error where there is none."""
    folder = model_folder(kind)
    if folder is None:
        raise WorkflowError(f"There is no {kind} yet: {HELP[kind]}")
    return folder


def model_path(kind):
    """Folder of a model as a parameter that is not tracked (see `script`): its content is."""
    return known(lambda wildcards, input: model(kind))


def model_hash(kind):
    """SHA-256 of a model's weights and card, so that any swap makes its results stale."""
    return known(lambda wildcards: hashes_of_model(kind))


def card_of(folder, kind, setting=""):
    """Read a model's card; a clear error, begun with the setting that names it, where it is none."""
    try:
        return read_card(folder, kind)
    except InputError as error:
        raise WorkflowError(f"{setting}{error}")


@cache
def hashes_of_model(kind):
    """SHA-256 of the weights and of the card of a model; a clear error where it is none."""
    folder = Path(model(kind))
    card_of(folder, kind)
    if not (folder / WEIGHTS).is_file():
        raise WorkflowError(
            f"{folder / WEIGHTS}: no such file. A model is model.json and its weights: copy both."
        )
    try:
        return [file_sha256(folder / name) for name in (WEIGHTS, "model.json")]
    except OSError as error:
        raise WorkflowError(
            f"{error.filename}: cannot be read ({error.strerror}). Change its mode, or copy the "
            "model again."
        )


def heads():
    """Names of the maps that the segmenter writes; the first is the probability map."""
    folder = model_folder("segmenter")
    if folder is None:
        return ["probability"]
    return card_of(folder, "segmenter")["heads"]


HEADS = heads()
# Of the maps, that of where one object ends.
OUTLINES = "boundary"


@cache
def megavoxels(tomogram):
    """Size of a tomogram from its header alone, in millions of voxels."""
    sample = SAMPLES[tomogram]
    try:
        shape = read_header(sample.path, sample.voxel_size).shape
    except InputError:
        # What is wrong with the file is for `inspect` to say.
        return 0.0
    return shape[0] * shape[1] * shape[2] / 1e6


def memory(base, bytes_a_voxel):
    """Memory in MB as a function of the volume's size and of the attempt."""
    return known(
        lambda wildcards, attempt: attempt
        * int(base + bytes_a_voxel * megavoxels(wildcards.tomogram))
    )


def memory_of_clustering(base, bytes_a_voxel, most, for_levels, most_levels):
    """Memory in MB, as of `memory`, up to `most` megavoxels; a retry asks for levels as well.

    Few maps of other programs need that, and none is known to before it was clustered.
    """

    def needed(wildcards, attempt):
        voxels = megavoxels(wildcards.tomogram)
        sample = sample_of(wildcards)
        levels = (
            config["cluster"]["levels"]
            and sample.probability
            and not sample.boundary
            and not outlines_wanted()
        )
        more = (
            for_levels * voxels
            if levels and voxels <= most_levels and attempt > 1
            else 0
        )
        return attempt * int(base + bytes_a_voxel * min(voxels, most)) + int(more)

    return known(needed)


def memory_of_all(base, bytes_a_voxel, names, together=False):
    """Memory in MB of a job on several tomograms' tables and volumes, one at a time or together."""

    def needed(wildcards, attempt):
        sizes = [megavoxels(name) for name in names] if bytes_a_voxel else []
        voxels = sum(sizes) if together else max(sizes, default=0)
        return attempt * int(base + bytes_a_voxel * voxels + 2 * len(names))

    return known(needed)


def minutes(base, per_gigavoxel):
    """Time limit in minutes as a function of the volume's size and of the attempt."""
    return known(
        lambda wildcards, attempt: attempt
        * int(base + per_gigavoxel * megavoxels(wildcards.tomogram) / 1000)
    )


def times_attempt(value):
    """Minutes or MB that grow with the attempt, for jobs on tables."""
    return known(lambda wildcards, attempt: value * attempt)


def section(name, *without):
    """A section of the configuration as JSON, keys sorted, some keys left out."""
    values = {key: value for key, value in config[name].items() if key not in without}
    return json.dumps(values, sort_keys=True)


def setting(key):
    """A text of the configuration as a parameter: a function, for braces in it are no wildcards."""
    return known(lambda wildcards: config[key])


def with_column(column):
    """Names of the tomograms whose row fills a column; the order of rows does not matter."""
    return sorted(name for name, sample in SAMPLES.items() if getattr(sample, column))


def check_before_start():
    """Stop before the first job where no result could be kept or others write the same."""
    check_writable("results", "logs")
    if PLUGIN in sys.modules:
        told = ("" if ask_queue_alone() else OUTAGE, forgetting_warning())
        print(*filter(None, told), sep="\n", end="\n" * any(told), file=sys.stderr)
    try:
        check_no_arrays(getattr(workflow.executor_settings, "array_jobs", None))
        check_nothing_is_queued(".")
    except InputError as error:
        raise WorkflowError(str(error))


def tell_results():
    """Say what was made and where."""
    made = {
        "report": "results/report.html",
        "instance tables": "results/census.csv",
        "counts": "results/counts.csv",
        "groups": "results/groups.csv",
        "scores": "results/evaluation.csv",
        "segmenter": "models/segmenter/model.json",
        "classifier": "models/classifier/model.json",
    }
    lines = [
        f"  {what:16} {Path(path).resolve()}"
        for what, path in made.items()
        if Path(path).exists()
    ]
    print("TomoCensus finished. What there is:", *lines, sep="\n", file=sys.stderr)


def cluster_maps(wildcards):
    """The maps to cluster: from the segmenter, or another program's; none where labels are given."""
    sample = sample_of(wildcards)
    if sample.labels:
        return []
    if sample.probability:
        given = ancient(sample.probability)
        if sample.boundary or not outlines_wanted():
            return given
        return [given, f"results/{wildcards.tomogram}/{OUTLINES}.mrc"]
    return one_or_all(
        expand("results/{tomogram}/{head}.mrc", tomogram=wildcards.tomogram, head=HEADS)
    )


@known
def outlines_given(wildcards):
    """The given map of outlines; none where labels are given."""
    sample = sample_of(wildcards)
    given = sample.boundary and not sample.labels
    return ancient(sample.boundary) if given else []


@cache
def outlines_wanted():
    """Whether the segmenter's outlines part the objects of maps of other programs without any."""
    wanted = config["cluster"]["predict_outlines"]
    if wanted and OUTLINES not in HEADS:
        raise WorkflowError(
            f"cluster.predict_outlines: {model('segmenter')} writes no {OUTLINES} map. Use the "
            "shipped segmenter or train one here, or set cluster.predict_outlines to false."
        )
    return wanted


def check_outlines():
    """Stop where outlines are wanted that the segmenter does not write.

    Before jobs are looked for: what an input function raises is dropped where its output is there
    from before, and stale results would pass for new ones.
    """
    asked = any(
        sample.probability and not (sample.boundary or sample.labels)
        for sample in SAMPLES.values()
    )
    # Training another segmenter is one of the remedies; the targets are not known otherwise yet.
    if asked and "train_segmenter" not in sys.argv:
        outlines_wanted()


# The jobs of a run need not be checked again.
if workflow.is_main_process:
    check_outlines()


def probability_map(wildcards):
    """The first of the maps to cluster; none where labels are given."""
    maps = cluster_maps(wildcards)
    return maps if isinstance(maps, str) else maps[:1]


def truth_files(wildcards):
    """Results and truth of the tomograms that have a ground truth."""
    names = with_column("ground_truth")
    files = ["labels.mrc", "classes.csv", "input.json"]
    paths = expand("results/{tomogram}/{file}", tomogram=names, file=files)
    maps = [f"results/{name}/probability.mrc" for name in names if from_segmenter(name)]
    return paths + maps


def from_segmenter(name):
    """Whether the probability map of a tomogram is made here."""
    return not (SAMPLES[name].probability or SAMPLES[name].labels)


def example_tomograms():
    """Names of the tomograms in the examples file that the sample sheet knows."""
    path = Path(config["examples"])
    if not path.is_file():
        return []
    from tomocensus.classify.examples import is_written, read_examples

    try:
        named = set(read_examples(path)["tomogram"]) if is_written(path) else set()
    except InputError as error:
        raise WorkflowError(str(error))
    return sorted(named & set(SAMPLES))


def base_model(kind):
    """Folder of the model that training one of a kind starts from; None where it starts from none."""
    chosen = config[f"train_{kind}"]["base"]
    if chosen == "none":
        return None
    if chosen != "auto":
        return chosen
    shipped = ROOT / "models" / f"base-{kind}"
    if not (shipped / "model.json").is_file():
        return None
    if kind == "classifier" and of_another_encoder(shipped):
        return None
    return str(shipped)


def base_folder(kind):
    """Parameter: the folder of :func:`base_model`, none where there is none."""
    return lambda wildcards, input: [folder] if (folder := base_model(kind)) else []


def of_another_encoder(classifier):
    """Whether a classifier was fitted with another encoder than the one in use."""
    encoder = card_of(model("encoder"), "encoder")
    return card_of(classifier, "classifier")["encoder"] != encoder["sha256"]


def report_models():
    """Folder of each model that there is."""
    kinds = ("segmenter", "encoder", "classifier")
    return {kind: folder for kind in kinds if (folder := model_folder(kind))}


def base_hash(kind):
    """Hash of the weights that training starts from; None for training from scratch."""
    folder = base_model(kind)
    if folder is None:
        return None
    card_of(folder, kind, f"train_{kind}.base: ")
    return content(Path(folder) / WEIGHTS)


def check_kinds():
    """Raise where `classify.kinds` names what neither the classifier nor its base knows."""
    asked = config["classify"]["kinds"]
    folders = {model_folder("classifier"), base_model("classifier")} - {None}
    if not asked or asked == "all" or not folders:
        return
    cards = [card_of(folder, "classifier") for folder in sorted(folders)]
    known = {
        kind for card in cards for kind in card["classes"] + card.get("others", [])
    }
    if wrong := [kind for kind in asked if kind not in known]:
        raise WorkflowError(
            f"classify.kinds: no kind is called {', '.join(wrong)}. There are "
            f"{', '.join(sorted(known))}."
        )


check_kinds()

INSPECTED = ("path", "mask", "probability", "boundary", "labels")
TRACKED = (*INSPECTED, "voxel_size", "polarity", "probability_scale")


@known
def tracked_row(wildcards):
    """What of a tomogram's row its input.json depends on."""
    sample = sample_of(wildcards)
    return json.dumps({key: getattr(sample, key) for key in TRACKED}, sort_keys=True)
