"""Writes the command reference out of the commands, where a page says so.

Plug-ins for click cannot: typer brings a click of its own, whose commands are no click commands.
"""

from collections.abc import Iterator
from typing import Any

import typer

MARKER = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    if MARKER not in markdown:
        return markdown
    return markdown.replace(MARKER, "\n".join(_describe_all()))


def _describe_all() -> Iterator[str]:
    from srcsnn.cli import app

    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="srcsnn")
    yield from _describe(group, context, "srcsnn")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = typer.Context(command, info_name=name, parent=context)
        yield from _describe(command, inner, f"srcsnn {name}")


def _describe(command: Any, context: Any, name: str) -> Iterator[str]:
    yield f"\n## `{name}`\n\n{command.help or ''}\n"
    yield f"```console\n$ {name} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    for title, kind in (("argument", "argument"), ("option", "option")):
        params = [each for each in command.params if each.param_type_name == kind]
        rows = [record for each in params if (record := each.get_help_record(context))]
        if rows:
            yield f"| {title} | meaning |\n|---|---|"
            yield from (f"| `{names}` | {_cell(text)} |" for names, text in rows)
            yield ""
    if command.epilog:
        what, _, example = command.epilog.partition(": ")
        yield f"{what}:\n\n```console\n$ {example}\n```\n"


def _cell(text: str) -> str:
    # Escapes for rich are none for Markdown; what stands in brackets is no link.
    return " ".join(text.replace("\\[", "[").replace("[", "\\[").replace("|", "\\|").split())
