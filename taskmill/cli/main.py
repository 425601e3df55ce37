"""The `taskmill` command: the table of its commands, and how each way of failing ends."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from taskmill._version import __version__
from taskmill.runtime.errors import TaskmillError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

#: Ended by Ctrl-C: 128 + SIGINT, as shells tell it.
_INTERRUPTED = 130


class Entry(NamedTuple):
    """A command: where it is defined, and its line in `taskmill --help`."""

    target: str
    help: str


#: Imported only when asked for, so that `taskmill --help` stays quick.
COMMANDS: dict[str, Entry] = {
    "broker": Entry("taskmill.cli.broker:broker", "Run a local Apache Kafka, data kept."),
    "cancel": Entry("taskmill.cli.cancel:cancel", "Have a task end, wherever it stands."),
    "config": Entry("taskmill.cli.config:config", "Show the effective settings."),
    "console": Entry("taskmill.cli.console:console", "Serve the HTTP API and the dashboard."),
    "decode": Entry("taskmill.cli.wire:decode", "Print a value of ours as JSON."),
    "dev": Entry("taskmill.cli.dev:dev", "Run a broker, a worker, a scheduler, a console."),
    "dlq": Entry("taskmill.cli.dlq:dlq", "Look at dead letters, and replay them."),
    "encode": Entry("taskmill.cli.wire:encode", "Write a task's bytes, for any Kafka client."),
    "enqueue": Entry("taskmill.cli.enqueue:enqueue", "Put one task on Kafka, or a file of them."),
    "queues": Entry("taskmill.cli.queues:queues", "Look at queues; pause one, and go on."),
    "replay": Entry("taskmill.cli.replay:replay", "Run finished tasks again, on purpose."),
    "reschedule": Entry(
        "taskmill.cli.reschedule:reschedule", "Give a scheduled task another time."
    ),
    "result": Entry("taskmill.cli.status:result", "Print what a task returned."),
    "scheduler": Entry("taskmill.cli.scheduler:scheduler", "Enqueue what waits for its time."),
    "schedules": Entry("taskmill.cli.schedules:schedules", "Have tasks enqueued by the clock."),
    "schemas": Entry("taskmill.cli.wire:schemas", "Export the Avro schemas."),
    "status": Entry("taskmill.cli.status:status", "Show where a task stands."),
    "tokens": Entry("taskmill.cli.tokens:tokens", "Say who may use the console."),
    "tasks": Entry("taskmill.cli.tasks:tasks", "List tasks, as a console knows them."),
    "top": Entry("taskmill.cli.top:top", "Show queues, rates, lag and failures, live."),
    "topics": Entry(
        "taskmill.cli.topics:topics", "Create, check and migrate the topics of queues."
    ),
    "worker": Entry("taskmill.cli.worker:worker", "Run the tasks of an App."),
}


#: What a shell's start-up file says (docs/terminal.md).
_COMPLETION = {
    "bash": 'eval "$(_TASKMILL_COMPLETE=bash_source taskmill)"',
    "zsh": 'eval "$(_TASKMILL_COMPLETE=zsh_source taskmill)"',
    "fish": "_TASKMILL_COMPLETE=fish_source taskmill | source",
}


class Frame(click.Group):
    """A group that imports a command when it is asked for, and ends every failure in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            near = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            ctx.fail(f"no command {cmd_name!r}; {hint}commands are {', '.join(sorted(COMMANDS))}")
        module, name = entry.target.split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands without an import of any; options as everywhere."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        from click.shell_completion import CompletionItem

        found = [name for name in sorted(COMMANDS) if name.startswith(incomplete)]
        return [CompletionItem(name, help=COMMANDS[name].help) for name in found]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Completion"):
            formatter.write_dl(list(_COMPLETION.items()))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in sorted(COMMANDS)])

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,
    ) -> NoReturn:
        """Run, and exit with the code that the contract gives to what happened."""
        extra["standalone_mode"] = False
        try:
            code = super().main(args, prog_name or "taskmill", **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader (`| head`) has gone; nothing is left to be said, not at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except (KeyboardInterrupt, click.Abort):
            code = _INTERRUPTED
        except Exception as error:
            if _debug():
                traceback.print_exc()
            code = _tell(error)
        sys.exit(code if isinstance(code, int) else 0)


def _debug() -> bool:
    return logging.getLogger("taskmill").level == logging.DEBUG


def _tell(error: Exception) -> int:
    """Say on stderr what failed, in one line where one is enough; the exit code."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        click.echo(str(error), err=True)
        return 2
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        where = f"{context.command_path}" if context else "taskmill"
        click.echo(f"{where}: {error.format_message()}", err=True)
        return error.exit_code
    if isinstance(error, TaskmillError):
        click.echo(f"taskmill: {error}", err=True)
        return error.exit_code
    kind = type(error).__name__
    click.echo(f"taskmill: unexpected {kind}: {error} (`taskmill --debug …` shows where)", err=True)
    return 1


@click.group(cls=Frame)
@click.option("--debug", is_flag=True, help="Log everything, and show where an error came from.")
@click.version_option(__version__, prog_name="taskmill", message="%(prog)s %(version)s")
def cli(debug: bool) -> None:
    """A task platform whose only broker, log and source of truth is Apache Kafka.

    Settings are read from TASKMILL_… variables and taskmill.toml (`taskmill config` lists them).
    Exit codes: 0 done, 1 the work failed, 2 wrong use or bad input, 3 broker or store unreachable.
    """
    logger = logging.getLogger("taskmill")
    if debug:
        logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)
        logger.setLevel(logging.DEBUG)
    elif not logger.handlers:
        # Short commands speak through their errors alone; a worker sets its own log up.
        logger.addHandler(logging.NullHandler())


def main() -> NoReturn:
    """The console script."""
    cli.main()
