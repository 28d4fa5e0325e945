"""Name the instances: an encoder's vectors, a head fitted to a few examples, and ``unknown``."""

from tomocensus.classify.embeddings import Embeddings, embed
from tomocensus.classify.examples import (
    append_examples,
    examples_header,
    look_up_examples,
    read_examples,
)
from tomocensus.classify.head import apply_head, fit_head, named_kinds
from tomocensus.classify.review import rank_for_review

__all__ = [
    "Embeddings",
    "append_examples",
    "apply_head",
    "embed",
    "examples_header",
    "fit_head",
    "look_up_examples",
    "named_kinds",
    "rank_for_review",
    "read_examples",
]
