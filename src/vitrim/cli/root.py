"""The application itself: its name, its own options, what all commands share, and how it ends."""

from __future__ import annotations

import atexit
import errno
import json
import logging
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer.core import TyperGroup

from vitrim import __version__
from vitrim.config.names import Device
from vitrim.errors import InputError, by_interrupt

if TYPE_CHECKING:
    from vitrim.progress import Reporter

UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")
"""What typer raises for options that are impossible, unknown or missing; it has no public name."""

PATHS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
"""Errors about a path that the user gave: input, not the machine."""

FAILED = 1
"""Exit status where the machine is at fault (a full disk, too little memory), or vitrim itself."""

FIRST = """Where to begin:
  vitrim study demo                                            the whole procedure on phantoms, in minutes
  vitrim study new --data DIR                                  write a study of your own data
  vitrim study STUDY.yaml --data DIR                           run it
  vitrim compress CHECKPOINT --depth auto --data DIR -o small  a network that is trained already
vitrim --help lists all commands."""

ANYWHERE = ("--quiet", "--verbose", "--debug")
"""Options of every command, before or after its name."""

SHORT = ("-q", "-v")

_stopped_by = signal.SIGINT
"""The last signal that stopped this process."""


_told = False
"""Whether the user was told that the command was stopped."""


def stopped(message: str = "stopped") -> typer.Exit:
    """Tell the user that the command was stopped; return the exception that ends it.

    The exit status is 128 plus the number of the signal.
    """
    global _told
    if not _told:
        typer.echo(f"vitrim: {message}", err=True)
    _told = True
    return typer.Exit(128 + _stopped_by)


class _Commands(TyperGroup):
    """Commands of one word or of two: `study` takes any name, and `study new` is a command of its own."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        two = " ".join(args[:2])
        return (two, self.commands[two], args[2:]) if two in self.commands else super().resolve_command(ctx, args)


app = typer.Typer(
    name="vitrim",
    cls=_Commands,
    help="Trim the transformer of a hybrid medical image segmentation network to the blocks that it needs.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

OnDevice = Annotated[Device, typer.Option("--device", help="Where networks run; auto: a GPU if there is one.")]
ForTraining = Annotated[Device | None, typer.Option("--device", help="The same as --set training.device=NAME.")]

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PLACE",
        help="What builds the model of another library whose weights CHECKPOINT holds: package.module:function or "
        "FILE.py:function, also with literal arguments, package.module:Class(classes=3). This runs the code of that "
        "module or file.",
    ),
]
"""The option `--model`."""


def with_device(settings: list[str] | None, device: Device | None) -> list[str]:
    """Return what `--set` gives, with the device of the trainings."""
    return [*(settings or []), *([f"training.device={device}"] if device is not None else [])]


_progress = True
"""Whether the command that runs shows its progress."""


def make_reporter(*, json: bool = False) -> Reporter:
    """Return what a command prints with; with `json` on standard error, since standard output holds the result."""
    from rich.console import Console

    from vitrim.progress import Reporter

    return Reporter(Console(soft_wrap=True, stderr=json), progress=_progress)


def print_json(value: Any) -> None:
    """Print the result of a command as JSON. Only ASCII, so that no text from a file acts on a terminal."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def examples(*commands: str) -> str:
    """Return the end of a command's help."""
    return "\n\n".join([*(f"Example: {command}" for command in commands), f"Also: {', '.join(ANYWHERE)}."])


def one_of(names: Any) -> str:
    """Return the choices of a Literal for the help, where Typer breaks its own list in the middle of a name."""
    return ", ".join(map(str, get_args(names)))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vitrim {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress; results and notes stay.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say which files are read and written, and what libraries report.")
    ] = False,
) -> None:
    """Trim the transformer of a hybrid medical image segmentation network to the blocks that it needs."""
    global _progress
    _progress = not quiet
    if verbose:
        _be_verbose()
    if ctx.invoked_subcommand is None:
        typer.echo(FIRST)


def main() -> None:
    """Run the command line. Every error is one line: exit status 2 for bad input, 1 for what the machine lacks."""
    global _told
    arguments, _told = _general_first(sys.argv[1:]), False
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that does not know a character must not end a command
            stream.reconfigure(errors="backslashreplace")
    try:
        with _stopped_as_by_the_user():
            status = app(arguments, prog_name="vitrim", standalone_mode=False)
    except InputError as error:
        if "--debug" in arguments:
            raise
        typer.echo(f"vitrim: {error}", err=True)
        sys.exit(2)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
        else:
            typer.echo(f"vitrim: {_one_line(error)}", err=True)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(stopped().exit_code)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        if "--debug" in arguments:
            raise
        if by_interrupt(error):
            sys.exit(stopped().exit_code)
        if isinstance(error, OSError) and error.errno in PATHS:
            typer.echo(f"vitrim: {error.strerror}: {_file(error) or 'the folder that you are in'}", err=True)
            sys.exit(2)
        typer.echo(f"vitrim: {_machine(error)}", err=True)
        sys.exit(FAILED)
    if status == 128 + signal.SIGINT:  # typer's own answer to an interrupt
        status = stopped().exit_code
    if isinstance(status, int):
        sys.exit(status)


def _general_first(arguments: list[str]) -> list[str]:
    """Return the arguments with the options of every command first, where Typer reads them."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    general = [one for one in arguments[:end] if one in (*ANYWHERE, *SHORT)]
    return [*general, *(one for one in arguments[:end] if one not in general), *arguments[end:]]


def _be_verbose() -> None:
    """Print what vitrim and its libraries log, with the time of day, on standard error, and what a report of a fault
    needs to say: versions and machine first, time and memory last.
    """
    from vitrim.errors import printable

    class Printable(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record))

    handler = logging.StreamHandler()
    handler.setFormatter(Printable("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    log, begin = logging.getLogger("vitrim"), time.monotonic()
    machine = platform.python_version(), platform.platform(), os.cpu_count()
    log.info("version %s, Python %s, %s, %s CPUs", __version__, *machine)

    def end() -> None:
        log.info("%.1f s%s", time.monotonic() - begin, _most_memory())

    atexit.register(end)


def _most_memory() -> str:
    """Return the most memory that this process took; empty where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return f", at most {most:.0f} MiB of memory"


@contextmanager
def _stopped_as_by_the_user() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that nothing unfinished is left.

    When the command is done, a signal ends the process without a word: no exception may then rise in what Python and
    the libraries do at their end.
    """
    own = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        global _stopped_by
        if os.getpid() != own:  # a process that was forked
            os._exit(128 + number)
        _stopped_by = signal.Signals(number)
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows: no SIGHUP
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


def _file(error: OSError) -> str:
    from vitrim.errors import printable

    name = printable(str(error.filename)) if error.filename else ""
    return name if len(name) <= 200 else f"{name[:100]}… ({len(name)} characters)"


def _machine(error: Exception) -> str:
    """What the machine lacks, in one line, or that vitrim has a fault."""
    from vitrim.errors import printable

    text = printable(" ".join(str(error).split()))[:300]
    if isinstance(error, MemoryError):
        return f"there is not enough memory{f' ({text})' if text else ''}"
    if isinstance(error, OSError) and error.strerror:
        where = f": {_file(error)}" if error.filename else ""
        return f"{error.strerror}{where}; the same command goes on once that is mended"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return "there is not enough memory on the GPU"
    if type(error).__name__ in ("BackendCompilerFailed", "InductorError"):
        return f"torch cannot compile the network here, so leave training.compile out ({text})"
    return f"unexpected {type(error).__name__}: {text}; this is a fault of vitrim, --debug shows where"


def _one_line(error: BaseException) -> str:
    """A usage error in one line, with the nearest choice where the value is none of several."""
    from vitrim.config.reading import suggestion

    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    choice = re.search(r"Invalid value for '([^']*)'.*?'([^']*)' is not one of (.*)", message)
    if choice is None:
        return message
    known = re.findall(r"'([^']*)'", choice[3])
    return f"{choice[1]}: {choice[2]!r} is unknown{suggestion(choice[2], known)}; choose from {', '.join(known)}"
