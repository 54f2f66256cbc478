"""`personalign merge`: an adapter and its backbone become one model."""

from pathlib import Path
from typing import Annotated

import typer

from personalign.cli._output import emit_json, output_console, quieten

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of the adapter (adapter_config.json).")],
    out: Annotated[Path, typer.Argument(help="Folder for the merged model; must not exist yet.")],
    json: Json = False,
) -> None:
    """Merge an adapter into its backbone, for tools that want a single model."""
    from personalign.methods.models import BESIDE
    from personalign.models.adapters import merge_adapter

    quieten()

    merge_adapter(adapter, out, beside=BESIDE)
    output_console().print(f"merged model in {out}", markup=False, soft_wrap=True)
    if json:
        emit_json({"adapter": adapter, "out": out})
