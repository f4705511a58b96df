"""The group that commands join, and the options that they all take."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import click

from cli_commands.text import json_text
from paramdelta import __version__

if TYPE_CHECKING:
    from registry.config import Settings
    from registry.progress import Progress
    from registry.registry import Registry


class Result(Protocol):
    def to_json(self) -> dict[str, Any]: ...


@dataclass
class State:
    """The global options, wherever on the line they stood."""

    settings: dict[str, Any] = field(default_factory=dict)
    json: bool = False
    quiet: bool = False
    verbose: bool = False

    def resolved(self) -> Settings:
        from registry.config import Settings

        return Settings.resolve(**self.settings)

    @contextmanager
    def registry(self) -> Iterator[Registry]:
        from registry.registry import Registry

        with Registry.open(self.resolved(), self.progress()) as registry:
            yield registry

    def progress(self) -> Progress:
        """Bars on a terminal only."""
        from registry.progress import NoProgress

        if self.json or self.quiet or not sys.stderr.isatty():
            return NoProgress()
        from cli_views.progress import Bars

        return Bars()

    def emit(self, document: dict[str, Any], view: Callable[[], None]) -> None:
        """One JSON document, or the human view."""
        if self.json:
            sys.stdout.write(json_text(document) + "\n")
        else:
            view()

    def say(self, document: dict[str, Any], text: str) -> None:
        """One JSON document, or one line."""
        from cli_views.common import said

        self.emit(document, lambda: said(text))


def _set(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keeps a global option's value if it was given here."""
    state = context.ensure_object(State)
    name = option.name or ""
    if value is None or value is False:
        return
    if name in ("json", "quiet", "verbose"):
        setattr(state, name, True)
    else:
        state.settings[name] = value


def _global_options() -> list[click.Option]:
    def option(*names: str, **more: Any) -> click.Option:
        return click.Option(names, callback=_set, expose_value=False, **more)

    return [
        option("--registry", metavar="DIR", help="Folder of the embedded registry."),
        option("--catalog", metavar="URL", help="sqlite:///FILE or postgresql://…"),
        option("--store", metavar="URL", help="Where blobs lie: a folder or a store's URL."),
        option("--threads", type=int, metavar="N", help="Tensors worked on at once."),
        option("--trust", metavar="FILE", help="Allowed signers: refuse what none of them signed."),
        option("--accept-rollback", is_flag=True, help="Accept what a store or catalog took back."),
        option("--json", is_flag=True, help="Print one JSON document."),
        option("-q", "--quiet", is_flag=True, help="No progress bars."),
        option("-v", "--verbose", is_flag=True, help="Tracebacks of unexpected errors."),
    ]


class Command(click.Command):
    """A command that takes the global options too."""

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        return [
            *super().get_params(context)[:-1],
            *_global_options(),
            *super().get_params(context)[-1:],
        ]


class Group(click.Group):
    command_class = Command

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        return [*_global_options(), *super().get_params(context)]


Group.group_class = Group

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Group, context_settings=HELP)
@click.version_option(__version__, prog_name="paramdelta")
def cli() -> None:
    """Keep post-training, and move it to the next base model.

    A delta is post-trained weights minus base weights. Publish it once; add it to any newer base of
    the same lineage; restore the original bit for bit.

    \b
    paramdelta publish skills/chat --base ./llama-3 --post ./llama-3-instruct
    paramdelta query --base ./llama-3.1
    paramdelta apply skills/chat --base ./llama-3.1 --out ./llama-3.1-chat
    """


pass_state = click.make_pass_decorator(State, ensure=True)
