"""What all commands share: --json and --debug, where output goes, and how errors end.

Standard output carries the result and nothing else: while a command runs, whatever libraries print is sent to standard
error, where progress and warnings are, too.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from ..errors import FcosError
from ..files import plain
from .progress import Progress

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Result", "Session", "fcos_command", "report"]

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_PLAIN_WIDTH = 120  # of what is written to files and pipes


@dataclass(frozen=True)
class Result:
    """What a command has to say: as data for --json, and for people."""

    data: Mapping[str, Any]
    view: RenderableType
    exit_code: int = 0
    piped: str | None = None  # instead of the view where standard output is no terminal


@dataclass
class Session:
    """State of one run of the command line."""

    json: bool = False
    debug: bool = False
    options: tuple[str, ...] = ("--batch-size", "--image-size", "--workers")  # those of the command
    plugins: tuple[str, ...] = ()  # modules of other projects, whose parts stored configs may name
    no_py: bool = False  # whether configs that are code are refused

    @functools.cached_property
    def log(self) -> Console:
        """Standard error, for progress and warnings."""
        return _console(None)

    def say(self, text: str) -> None:
        """Tell the user what is going on."""
        self.log.print(text, highlight=False, markup=False, soft_wrap=True)

    def start(self, device: str | None = None) -> None:
        """Register all parts, those of plugins too: what a command does once its options have turned out right.

        Raises FcosError if the machine has no such device.
        """
        import fcos_d2

        fcos_d2.register()
        from ..config.plugins import load_plugins
        from ..devices import find_device

        load_plugins(self.plugins)
        find_device(device, "--device")

    def progress(self, title: str, total: int) -> Progress:
        """A bar or lines on standard error; a context with `update(done, note)`."""
        return Progress(self.log, title, total)

    def waiting(self, title: str) -> AbstractContextManager[Any]:
        """Shows that something of unknown length goes on."""
        return self.log.status(title) if self.log.is_terminal else nullcontext()

    @contextmanager
    def running(self) -> Iterator[IO[str]]:
        """While it lasts, everything printed goes to standard error; what is yielded is the real standard output."""
        with _reserved_stdout() as out, warnings.catch_warnings(), _logs_on(self):
            if not self.debug:
                warnings.simplefilter("ignore")  # of libraries, about libraries
            yield out

    @contextmanager
    def no_tables(self) -> Iterator[None]:
        """While it lasts, what libraries print is dropped: pycocotools has a table for each evaluation."""
        with (
            nullcontext() if self.debug else open(os.devnull, "w", encoding="utf-8") as null,
            redirect_stdout(null or sys.stdout),
        ):
            yield


def fcos_command(name: str, **settings: Any) -> Callable[[Callable[..., Result]], click.Command]:
    """Make a click command of a function `f(session, **options) -> Result`, with the options that all commands have."""

    def decorate(function: Callable[..., Result]) -> click.Command:
        @functools.wraps(function)
        def run(**options: Any) -> int:
            context = click.get_current_context()
            session = context.ensure_object(Session)
            session.options = tuple(name for parameter in context.command.params for name in parameter.opts)
            with session.running() as out:
                result = function(session, **options)
                if session.json:
                    out.write(_json(result.data, out) + "\n")
                elif result.piped is not None and not out.isatty():
                    out.write(result.piped)
                else:
                    _console(out).print(result.view, markup=False, crop=False)  # a command to paste may be long
                out.flush()
            if result.exit_code:
                context.exit(result.exit_code)
            return 0

        made = click.command(name, **settings)(run)
        for flag, text in (
            ("--json", "Print the result as one JSON object on stdout."),
            ("--debug", "Show the traceback of an error, and the logs of all parts."),
        ):
            made.params.append(click.Option([flag], is_flag=True, expose_value=False, callback=keep, help=text))
        return made

    return decorate


def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """The value of an option goes to the field of the session that has its name."""
    setattr(context.ensure_object(Session), parameter.name or "", value)


# Standard output and logs


def _json(data: Mapping[str, Any], file: IO[str]) -> str:
    """Data as JSON in letters that a file can have."""
    for only_ascii in (False, True):
        text = json.dumps(plain(data), indent=2, ensure_ascii=only_ascii, allow_nan=False)
        with suppress(UnicodeError):
            text.encode(getattr(file, "encoding", None) or "utf-8")
            break
    return text


def _console(file: IO[str] | None) -> Console:
    """A rich console on `file`, or on standard error; where that is not a terminal, without wrapping at 80 columns."""
    from rich.console import Console

    stream = sys.stderr if file is None else file
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PLAIN_WIDTH
    return Console(file=file, stderr=file is None, width=width, highlight=False, emoji=False)


@contextmanager
def _reserved_stdout() -> Iterator[IO[str]]:
    """Standard output for the result alone; the file descriptor, too, since child processes inherit that."""
    outer, descriptor = sys.stdout, -1
    with suppress(OSError, ValueError):
        descriptor = outer.fileno()
    outer.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        if descriptor == 1:
            with os.fdopen(os.dup(kept), "w", encoding=outer.encoding, errors="backslashreplace") as out:
                yield out
        else:  # e.g. in a notebook
            yield outer
    finally:
        sys.stdout = outer
        os.dup2(kept, 1)
        os.close(kept)


class _Lines(logging.Handler):
    """Shows each record as one line."""

    def __init__(self, session: Session, level: int) -> None:
        super().__init__(logging.DEBUG if session.debug else level)
        self.session = session

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.session.say(f"{record.levelname.lower()}: {record.getMessage()}")
        except Exception:
            self.handleError(record)


@contextmanager
def _logs_on(session: Session) -> Iterator[None]:
    """Show this package's warnings, and errors of Detectron2, whose warnings are frequent."""
    with ExitStack() as undo:
        for name, level in (("fcos_d2", logging.WARNING), ("detectron2", logging.ERROR), ("fvcore", logging.ERROR)):
            logger, handler = logging.getLogger(name), _Lines(session, level)
            undo.callback(setattr, logger, "propagate", logger.propagate)
            undo.callback(logger.setLevel, logger.level)
            undo.callback(logger.removeHandler, handler)
            logger.addHandler(handler)
            logger.propagate = False
            logger.setLevel(logger.level or logging.INFO)
        yield


# Errors


# Errors of libraries that users can do something about: class or a parent of it, text in the message, our sentence.
# What stands in braces depends on the options that the command has, see `_advice`.
_FULL = "The memory is full: {less}."
_KNOWN = (
    ("OutOfMemoryError", "", "The GPU's memory is full: {less}."),
    ("RuntimeError", "can't allocate memory", _FULL),
    ("MemoryError", "", _FULL),
    ("RuntimeError", "bus error", "A data worker ran out of shared memory (/dev/shm): {workers}."),
    ("FloatingPointError", "", "Training diverged: try a lower learning rate, e.g. optimizer.lr=0.0005."),
)


def report(error: BaseException, session: Session) -> int:
    """Tell the user about an error in one sentence on standard error; the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if session.debug:
        traceback.print_exception(error)
    if isinstance(error, click.Abort) and error.__cause__ is not None:  # what click makes of Ctrl-C
        error = error.__cause__
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        click.echo(str(error) or "Interrupted.", err=True)
        return getattr(error, "code", 130)
    sentence = _sentence(error)
    for name, advice in _advice(session.options).items():
        sentence = sentence.replace(name, advice)
    click.echo(f"error: {sentence}", err=True)
    if session.json:
        click.echo(_json({"error": sentence}, sys.stdout))
    return 1


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, FcosError) or (isinstance(error, (ValueError, OSError, ImportError)) and _is_ours(error)):
        return text
    # What another process raised has its traceback as text.
    if told := [line for line in str(error).splitlines() if "FcosError: " in line and not line.startswith(" ")]:
        return told[-1].partition("FcosError: ")[2]
    kinds = {kind.__name__ for kind in type(error).__mro__}
    for kind, contains, sentence in _KNOWN:
        if kind in kinds and contains in text.lower():
            return sentence
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    if isinstance(error, ImportError):
        return f"{text}."
    return f"{type(error).__name__}: {text[:300]} (unexpected; --debug shows where it happened)"


def _advice(options: Sequence[str]) -> dict[str, str]:
    """What to do with a command that needs too much memory; no option is named that it does not have."""
    there = [name for name in ("--batch-size", "--batch", "--image-size", "--size", "--workers") if name in options]
    less = f"lower {', '.join(there[:-1])}{' or ' if there[1:] else ''}{there[-1]}" if there else "take a smaller model"
    return {"{less}": less, "{workers}": "try --workers 0" if "--workers" in options else "let the system have more"}


def _is_ours(error: BaseException) -> bool:
    """Whether this package raised it, as opposed to a library that it called."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and os.path.realpath(frames[-1][0].f_code.co_filename).startswith(_PACKAGE)
