"""What run.yaml takes from the environment and is not set there, from Prefect's Secret blocks.

`${DB_URL}` is the block `db-url`: names of blocks have no capitals and no underscores. What is found is set for this
process and what it starts.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pipelines.quiet import quiet_prefect
from synth.errors import InvalidConfig
from synth.yaml_file import fill_environment, read_yaml


def fill_from_blocks(run_file: Path) -> None:
    """Set the variables that are missing. Without a server or such a block they stay missing, which loading tells.

    Raises UserError or SynthError when the server that is named does not answer.
    """
    try:
        _, missing = fill_environment(read_yaml(run_file))
    except InvalidConfig:
        return
    if not missing:
        return
    quiet_prefect()
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_API_URL

    from pipelines.deployment import server

    if not PREFECT_API_URL.value():
        return
    with server() as client:
        for name in set(missing):
            with suppress(ObjectNotFound):
                block = client.read_block_document_by_name(name.lower().replace("_", "-"), "secret")
                os.environ[name] = str(block.data["value"])
