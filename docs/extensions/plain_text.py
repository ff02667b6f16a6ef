"""Converts plain text with `code`, such as docstrings and help texts, to reStructuredText that reads the same."""

import re

# What is code already in reStructuredText (``literal``, :role:`text`), and `code`.
_CODE = re.compile(r"``.+?``|:[\w:]+:`[^`]+`|`([^`]+)`", flags=re.DOTALL)
# Characters that would start emphasis, a substitution or a link.
_SPECIAL = re.compile(r"[\\*|]|(?<=\w)_(?!\w)")


def rst_of_text(text):
    """One paragraph. Code is marked as such, everything else is shown as it is."""
    parts, end = [], 0
    for code in _CODE.finditer(text):
        parts.append(_escaped(text[end : code.start()]))
        # Markup must be set off from letters, which a backslash and a space do without showing.
        parts.append("\\ " if re.match(r"\w", text[code.start() - 1 : code.start()]) else "")
        parts.append(f"``{' '.join(code[1].split())}``" if code[1] else code[0])
        parts.append("\\ " if re.match(r"\w", text[code.end() : code.end() + 1]) else "")
        end = code.end()
    return "".join([*parts, _escaped(text[end:])])


def rst_of_docstring(lines):
    """The lines of a docstring, without changing what is in doctest and literal blocks."""
    result, paragraph, verbatim = [], [], False
    for line in [*lines, ""]:
        if not verbatim and line.strip() and not line.lstrip().startswith(">>>"):
            paragraph.append(line)
            continue
        result += _rst_of_paragraph(paragraph)
        paragraph = []
        result.append(line)
        verbatim = bool(line.strip())
    return result[:-1]


def _rst_of_paragraph(lines):
    if not lines:
        return []
    # `*` and `**` before the names of arguments are napoleon's to escape.
    stars = [re.match(r"\s*\*{1,2}(?=\w[\w, *]*:)|\s*\* (?=\S)", line) for line in lines]
    heads = [star[0] if star else "" for star in stars]
    texts = [line.removeprefix(head) for head, line in zip(heads, lines, strict=True)]
    if not any(heads):
        return rst_of_text("\n".join(texts)).split("\n")
    return [head + rst_of_text(text) for head, text in zip(heads, texts, strict=True)]


def _escaped(text):
    return _SPECIAL.sub(lambda character: f"\\{character[0]}", text)
