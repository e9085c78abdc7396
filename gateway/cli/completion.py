"""`digitruck completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from gateway.cli.output import examples, note


@click.command(
    epilog=examples(
        "digitruck completion bash > ~/.local/share/bash-completion/completions/digitruck",
        "digitruck completion zsh > ~/.zfunc/_digitruck",
        "digitruck completion fish > ~/.config/fish/completions/digitruck.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes `digitruck`."""
    found = get_completion_class(shell)
    assert found is not None, "click has these three"
    root = context.find_root()
    script = found(root.command, {}, "digitruck", "_DIGITRUCK_COMPLETE").source()
    click.echo(script)
    note("Put it where your shell reads it; --help has where. A new shell completes then.")
