"""The directive `{command} NAME`: documents a command from its argparse parser.

sphinx-argparse would interpret the help texts as markup, including `code` and *, and needs one function that returns a
whole parser, while `tf_fast_rcnn.cli` builds the parser of one command at a time. This directive shows the texts as the
terminal does, with a link to each option. A command that no page documents is a warning, and therefore an error of the
build.
"""

import argparse
import re
import textwrap

from docutils import nodes
from plain_text import rst_of_text
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from tf_fast_rcnn import cli

logger = logging.getLogger(__name__)


class Command(SphinxDirective):
    """The usage, options and examples of one command, or of one part of it, such as `benchmark training`."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        words = self.arguments[0].split()
        if ":".join(words) not in _all_commands():
            raise self.error(f"tf-fast-rcnn has no command {self.arguments[0]!r}")
        documented = self.env.metadata[self.env.docname].setdefault("commands", "")
        self.env.metadata[self.env.docname]["commands"] = f"{documented} {':'.join(words)}".strip()
        lines = ["```{eval-rst}", *_rst_of_command(words), "```"]
        container = nodes.container()
        self.content.data[:] = lines
        self.content.items[:] = [(self.get_source_info()[0], self.lineno)] * len(lines)
        self.state.nested_parse(self.content, self.content_offset, container)
        return container.children


def _parser(words):
    """The parser of a command, and its summary in the command that it belongs to."""
    parser, summary = cli._parser(words[:1]), None
    for word in words:
        action = _parts(parser)
        summary = next(choice.help for choice in action._choices_actions if choice.dest == word)
        parser = action.choices[word]
    return parser, summary


def _parts(parser):
    return next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)


def _all_commands():
    """Every command as `NAME` or `NAME:PART`."""
    for name in cli.COMMANDS:
        yield name
        parts = _parts(_parser([name])[0])
        yield from (f"{name}:{part}" for part in (parts.choices if parts else ()))


def _rst_of_command(words):
    parser, summary = _parser(words)
    description = parser.description or f"{summary[0].upper()}{summary[1:]}."
    usage = parser._get_formatter()
    usage.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    yield from [_rst(description), "", *_block(usage.format_help())]
    yield from [f".. program:: {parser.prog}", ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        actions = [action for action in actions if action.help != argparse.SUPPRESS]
        if actions:
            yield from [f".. rubric:: {_title(group.title)}", ""]
            yield from [_rst(group.description), ""] if group.description else []
        for action in actions:
            yield from _rst_of_action(parser, action)
    yield from _rst_of_epilog(parser.epilog or "")


def _rst_of_action(parser, action):
    formatter = parser._get_formatter()
    if isinstance(action, argparse._SubParsersAction):
        yield from (f"- ``{part.dest}``: {_rst(part.help)}" for part in action._choices_actions)
        yield ""
        return
    yield f".. option:: {formatter._format_action_invocation(action)}"
    yield from ["", f"   {_rst(formatter._expand_help(action))}" if action.help else "", ""]


def _rst_of_epilog(epilog):
    for block in re.split(r"\n\s*\n", epilog.strip()):
        head, _, rest = block.partition("\n")
        if head.endswith(":"):
            yield from [f".. rubric:: {_title(head[:-1])}", "", *_block(rest)]
        elif block.startswith(" "):
            yield from _block(block)
        else:
            yield from [_rst(block), ""]


def _block(text):
    return [".. code-block:: text", "", *textwrap.indent(textwrap.dedent(text).rstrip(), "   ").split("\n"), ""]


def _title(text):
    return f"{text[0].upper()}{text[1:]}".replace("Positional arguments", "Arguments")


def _rst(text):
    # A URL in a help text, such as grpc://HOST:PORT/NAME, is a pattern, not a link.
    return rst_of_text(" ".join(text.split())).replace("://", ":\\//")


def check_all_are_documented(app, env):
    documented = {name for page in env.metadata.values() for name in page.get("commands", "").split()}
    for name in _all_commands():
        if name not in documented:
            logger.warning("the command %r is on no page: add it to docs/command_line.md", name.replace(":", " "))


def setup(app):
    app.add_directive("command", Command)
    app.connect("env-check-consistency", check_all_are_documented)
    return {"parallel_read_safe": True}
