"""A SLURM without accounts, and the SLURM plugin that would ask for them and lose its jobs."""

import importlib.metadata
import sys

from tomocensus.queue import accounts_work

PLUGIN = "snakemake_executor_plugin_slurm"
VERSION = "2.8.0"
"""The version of the plugin that is known to ask so."""


def ask_queue_alone() -> bool:
    """Make the plugin ask `squeue`, again and again, while the controller is silent.

    Where `scontrol` does not answer, the plugin takes `sacct` if there is such a program. Without
    accounts that fails for good, and the plugin waits for ever.

    Returns
    -------
    bool
        Whether an outage can do no harm: False with another version of the plugin.
    """
    if PLUGIN not in sys.modules or accounts_work():
        return True
    if importlib.metadata.version(PLUGIN.replace("_", "-")) != VERSION:
        return False
    plugin = sys.modules[PLUGIN]
    there = plugin.is_query_tool_available
    plugin.is_query_tool_available = lambda tool: tool != "sacct" and there(tool)
    return True
