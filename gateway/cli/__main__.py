"""The `digitruck` command's entry: its groups, and how every error becomes one line and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong use. A listing that is cut off by a closed pipe is no error worth a line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import click
from aiohttp import ClientError

from gateway.cli.alarms import alarm
from gateway.cli.audit import audit
from gateway.cli.budgets import budget
from gateway.cli.bundles import bundle
from gateway.cli.completion import completion
from gateway.cli.configs import config
from gateway.cli.console import console
from gateway.cli.evidence import coverage, events
from gateway.cli.keys import key
from gateway.cli.ledger import ledger
from gateway.cli.metrics import metrics
from gateway.cli.output import examples, printable
from gateway.cli.reports import report
from gateway.cli.rollouts import quote
from gateway.cli.rolloutsteps import rollout
from gateway.cli.samples import samples
from gateway.cli.session import login
from gateway.cli.tokens import token
from gateway.cli.trucks import enrol, revoke, truck, trucks
from gateway.cli.trust import trust
from gateway.cli.usb import usb
from gateway.cli.verify import verify
from gateway.cli.watch import watch
from gateway.cli.webhooks import webhook
from protocol.errors import DigitruckError

_COMMANDS: tuple[click.Command, ...] = (
    login,
    console,
    key,
    trust,
    enrol,
    trucks,
    truck,
    revoke,
    samples,
    events,
    coverage,
    verify,
    ledger,
    budget,
    alarm,
    webhook,
    report,
    completion,
    config,
    bundle,
    rollout,
    quote,
    usb,
    watch,
    metrics,
    token,
    audit,
)


def _version() -> str:
    try:
        return version("digitruck")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "0"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "digitruck login https://fleet.example.org",
        "digitruck trucks",
        "digitruck samples ke-arrow --since 2h",
        "digitruck bundle push ./maths --name maths --version 2026.11 --key library",
    ),
)
@click.version_option(_version(), message="%(prog)s %(version)s")
def digitruck() -> None:
    """Look after a fleet of trucks from here.

    Configuration, content and trust are signed on this machine, with keys that never leave it.
    """


for each in _COMMANDS:
    digitruck.add_command(each)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        result = digitruck.main(args=arguments, prog_name="digitruck", standalone_mode=False)
        sys.stdout.flush()  # a pipe that was closed shows here, not as a traceback at the end of the process
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "digitruck"
        message = error.format_message()
        stop = "" if message.endswith((".", "?", "?)", ")")) else "."
        return _failed(f"{message}{stop} See: {path} --help", 2)
    except click.ClickException as error:
        return _failed(error.format_message(), 1)
    except (click.Abort, KeyboardInterrupt):
        return _failed("stopped", 1)
    except DigitruckError as error:
        return _failed(str(error), 1)
    except BrokenPipeError:
        # Python flushes standard output once more on exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _failed(f"{error.filename or 'the operating system'}: {error.strerror or error}", 1)
    except ClientError as error:
        return _failed(f"the gateway could not be reached: {error}", 1)
    return result if isinstance(result, int) else 0


def _failed(message: str, code: int) -> int:
    click.echo(f"digitruck: {printable(message)}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
