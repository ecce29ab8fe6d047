"""`main`: the commands, and what a person sees when one fails: one sentence and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

import typer

from leakgauge.cli.attack import attack_command
from leakgauge.cli.audit import audit_command
from leakgauge.cli.capture import capture_command
from leakgauge.cli.check import check_command
from leakgauge.cli.compare import compare_command, with_default_rule
from leakgauge.cli.demo import demo_command
from leakgauge.cli.doctor import doctor_command
from leakgauge.cli.filter import filter_command
from leakgauge.cli.inspect import inspect_command
from leakgauge.cli.listing import list_command
from leakgauge.cli.pack import pack_command
from leakgauge.cli.reporting import report_command
from leakgauge.cli.simulate import simulate_command
from leakgauge.cli.tradeoff import tradeoff_command
from leakgauge.cli.validate import validate_command
from leakgauge.errors import LeakgaugeError, did_you_mean

WRONG_USE, INTERRUPTED, BUG = 2, 130, 70

app = typer.Typer(
    name="leakgauge",
    help="Measures how much of a client's private data can be rebuilt from what it shares in federated learning.",
    epilog="Exit codes: 0 fine, 1 a --fail-if rule was broken or a filter has a fault, 2 wrong use or bad input (one sentence).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo_command,
    "check": check_command,
    "inspect": inspect_command,
    "capture": capture_command,
    "pack": pack_command,
    "validate": validate_command,
    "attack": attack_command,
    "filter": filter_command,
    "simulate": simulate_command,
    "tradeoff": tradeoff_command,
    "audit": audit_command,
    "report": report_command,
    "compare": compare_command,
    "list": list_command,
    "doctor": doctor_command,
}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    """Measures how much of a client's private data can be rebuilt from what it shares in federated learning."""
    if show:
        from importlib import metadata

        typer.echo(f"leakgauge {metadata.version('leakgauge')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code.

    Deliberate errors, wrong usage, and failures of disk or memory become one sentence on stderr; anything else is a bug of
    ours and keeps its traceback.
    """
    given = with_default_rule(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=given, prog_name="leakgauge", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("Stopped.", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of stdout has left; so do we
        return 0
    except LeakgaugeError as error:
        return _fail(str(error), error.exit_code)
    except SystemExit:  # typer leaves so where the reader of stdout has gone
        return 0
    except Exception as error:  # noqa: BLE001 - the last resort, which shows what it does not know
        sentence = _sentence(error, given)
        if sentence:
            return _fail(sentence, WRONG_USE)
        traceback.print_exc()
        return _fail("This is a bug in leakgauge; please report it with the lines above.", BUG)
    if code == INTERRUPTED:
        return _fail("Stopped.", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _sentence(error: Exception, given: list[str]) -> str:
    """What a known kind of failure says; '' for an unknown one."""
    if hasattr(error, "format_message"):  # click's exceptions, wherever this version of typer keeps them
        return _usage(error, given)
    if type(error).__name__ == "Abort":
        return "Stopped."
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        return f"{what}: {error.filename!r}." if error.filename else f"{what}."
    if type(error).__name__ == "SafetensorError":
        return f"A tensor file cannot be read or written ({error})."
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower() or "not enough memory" in str(error).lower():
        return "There is not enough memory for this; take smaller pictures, a smaller batch or a smaller model."
    return ""


def _usage(error: Exception, given: list[str]) -> str:
    message = " ".join(str(error.format_message()).split()).replace("Value error, ", "")  # type: ignore[attr-defined]
    if message.lower().startswith("no such command"):
        word = next((part for part in given if not part.startswith("-")), "")
        return f"There is no command {word!r}.{did_you_mean(word, COMMANDS)}"
    context = getattr(error, "ctx", None)
    help_line = f" See: {context.command_path} --help" if context is not None else ""
    return f"{message.rstrip('.')}.{help_line}"


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(" ".join(sentence.split()) + "\n")
    return code
