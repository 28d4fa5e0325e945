"""The few commands of conda that Snakemake uses, with rattler's solver and installer.

CHANNEL in the environment is the folder that stands for every channel.
"""

import argparse
import asyncio
import json
import os
import sys

import yaml
from rattler import Channel, Gateway, VirtualPackage, install, solve


async def create(file, prefix):
    """Solve an environment file and install what was found."""
    with open(file, encoding="utf-8") as stream:
        wanted = yaml.safe_load(stream)
    assert set(wanted) <= {"channels", "dependencies"}, wanted
    records = await solve(
        sources=[Channel(f"file://{os.environ['CHANNEL']}")],
        specs=wanted["dependencies"],
        gateway=Gateway(),
        platforms=["linux-64", "noarch"],
        virtual_packages=VirtualPackage.detect(),
    )
    cache = os.path.join(os.environ["CHANNEL"], "cache")
    await install(records, target_prefix=prefix, cache_dir=cache, show_progress=False)


def main(words):
    if words == ["--version"]:
        print("conda 25.1.0")
    elif words == ["info", "--json"]:
        prefix = os.path.dirname(os.path.dirname(os.environ["CONDA_EXE"]))
        print(json.dumps({"conda_prefix": prefix, "platform": "linux-64"}))
    elif words == ["config", "--get", "channel_priority", "--json"]:
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif words[:2] == ["env", "create"]:
        options = argparse.ArgumentParser()
        options.add_argument("--quiet", action="store_true")
        options.add_argument("--no-default-packages", action="store_true")
        options.add_argument("--file")
        options.add_argument("--prefix")
        chosen = options.parse_args(words[2:])
        asyncio.run(create(chosen.file, chosen.prefix))
        # rattler's threads still run now and then and crash a Python that is being taken down.
        os._exit(0)
    elif words[:1] != ["clean"]:
        sys.exit(f"unknown: {words}")


main(sys.argv[1:])
