"""The `tempo` command: finds its sub-commands in the packages that are installed, and loads only the one that runs."""

import logging
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import click

GROUP: Final = "tempo.commands"
_EXTRAS: Final = {"up": "local", "router": "router", "sidecar": "sidecar", "bench": "bench"}
"""Which extra of the distribution brings what a command imports."""


class LazyGroup(click.Group):
    """A group whose commands are entry points; one that can't be loaded says what to install."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Names of the commands, in alphabetical order."""
        return sorted(entry_points(group=GROUP).names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command called `cmd_name`, or None."""
        found = entry_points(group=GROUP, name=cmd_name)
        return _load(next(iter(found))) if found else None


def _load(entry: EntryPoint) -> click.Command:
    try:
        command = entry.load()
    except ModuleNotFoundError as error:
        return _missing(entry.name, error.name or str(error))
    if not isinstance(command, click.Command):
        raise TypeError(f"the entry point {entry.value} is no click command")
    return command


def _missing(name: str, module: str) -> click.Command:
    """Stands in for a command whose dependencies are not installed, so that the others still work."""
    extra = _EXTRAS.get(name, name)
    remedy = f"needs the module {module}; install it with: pip install 'tempo-serving[{extra}]'"

    @click.command(name, short_help=f"({remedy})", context_settings={"ignore_unknown_options": True})
    @click.argument("args", nargs=-1)
    def stand_in(args: tuple[str, ...]) -> None:  # noqa: ARG001  # click passes them by name
        raise click.ClickException(f"`tempo {name}` {remedy}")

    return stand_in


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tempo-serving", prog_name="tempo")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="How much is logged, to stderr.",
)
def main(log_level: str) -> None:
    """Tempo: SLO-aware LLM serving.

    \b
    Serve a small real model on this machine, with three kinds of traffic:
      tempo up -f examples/quickstart.yaml
    """  # noqa: D301  # click's mark for text that is not to be wrapped
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")


if __name__ == "__main__":
    main(prog_name="tempo")


if __name__ == "__main__":
    main()
