"""The `tempo up` command."""

import asyncio
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tempo_api.manifest import ManifestError
from tempo_operator.local.config import Wishes
from tempo_operator.local.display import Display
from tempo_operator.local.errors import UpError, tail
from tempo_operator.local.run import Options, run

_EPILOG = """\b
Examples:
  tempo up -f examples/quickstart.yaml
  tempo up -f pool.yaml --port 9000 --replicas 2
  tempo up -f pool.yaml --model Qwen/Qwen2.5-0.5B-Instruct
  tempo up -f pool.yaml --model ./my-model --engine-arg=--max-model-len=4096
  tempo up -f pool.yaml --policy engine      # vLLM's own scheduler, to compare with
"""


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "-f",
    "--filename",
    "manifests",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="SLOClass and TempoPool manifests, the same as for kubectl apply. The pool follows the file's edits.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="Where clients connect; 0: any free one.")
@click.option("--replicas", type=click.IntRange(min=1), help="Engines to run.  [default: as in the manifests]")
@click.option("--model", metavar="NAME|FOLDER", help="A folder, or a name on the Hugging Face hub.")
@click.option(
    "--policy",
    type=click.Choice(["tempo", "fcfs", "priority", "engine"]),
    help="Who runs next; engine: vLLM's own scheduler, untouched.  [default: as in the manifests]",
)
@click.option("--pool", metavar="NAME", help="Which TempoPool, where the manifests declare several.")
@click.option(
    "--log-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where logs go.  [default: ~/.local/state/tempo/POOL-PORT]",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where sidecars keep what they learn of response lengths and programs, model by model; the next run with the "
    "same folder begins with it. Only one run at a time may use it.  [default: learned, in the log folder]",
)
@click.option(
    "--engine-arg",
    "engine_args",
    multiple=True,
    metavar="ARG",
    help="Passed to vLLM as it is; may be given several times.",
)
@click.option(
    "--keys",
    type=click.Path(dir_okay=False, exists=True, resolve_path=True, path_type=Path),
    metavar="FILE",
    help="API keys that clients must have, in YAML; followed while the pool runs.  [default: anybody may ask]",
)
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Written once the pool is ready: JSON with its URLs, process ids and log folder.",
)
def up(pool: str | None, model: str | None, replicas: int | None, policy: str | None, **rest: Any) -> None:
    """Run a whole pool on this machine: real vLLM engines, their sidecars, and one OpenAI endpoint.

    Ctrl-C lets running requests finish and stops everything; a second one stops it at once.
    """
    plugged = policy != "engine"
    wishes = Wishes(pool, model, replicas, policy if plugged else None)
    console = Console()
    try:
        asyncio.run(run(Options(wishes=wishes, plugged=plugged, **rest), Display(console)))
    except ManifestError as error:
        raise click.ClickException(str(error)) from error
    except UpError as error:
        if error.log is not None:
            click.echo(tail(error.log), err=True)
        raise click.ClickException(str(error)) from error
