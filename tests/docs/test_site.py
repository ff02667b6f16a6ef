"""The documentation site: it builds without a warning, has every public name and command, and is self-contained."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser_page import answer_of, browser

import tf_fast_rcnn
from tf_fast_rcnn import cli

ROOT = Path(__file__).parents[2]
# Elements that load what their attribute names; a link is only followed when a reader clicks it.
LOADS = {"audio", "embed", "iframe", "img", "input", "link", "object", "script", "source", "track", "video"}


def build(docs, out):
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-d", f"{out}-doctrees", docs, out]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True, timeout=500
    )


class Page(HTMLParser):
    """The ids, addresses and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.path, self.ids, self.links, self.loads, self.texts = path, [], [], [], []
        self.feed(path.read_text())
        self.text = "".join(self.texts)

    def handle_starttag(self, tag, attributes):
        attributes = {name: value or "" for name, value in attributes}
        self.ids += [attributes["id"]] if "id" in attributes else []
        addresses = [attributes[name] for name in ("href", "src", "data", "poster") if name in attributes]
        addresses += [part.split()[0] for part in attributes.get("srcset", "").split(",") if part.strip()]
        if tag == "link" and attributes.get("rel") in ("next", "prev", "index", "search", "canonical"):
            tag = "a"
        (self.loads if tag in LOADS else self.links).extend(addresses)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "docs"
    ran = build(ROOT / "docs", out)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return out


@pytest.fixture(scope="module")
def pages(site):
    pages = {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html")}
    written = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert len(written) >= 30
    assert written <= set(pages)
    return pages


def test_every_public_name_is_described_once(pages):
    described = Counter(
        name for page in pages.values() for name in page.ids if re.fullmatch(r"tf_fast_rcnn\.\w+", name)
    )
    assert described == Counter(f"tf_fast_rcnn.{name}" for name in tf_fast_rcnn.__all__)


def test_the_overview_links_to_every_public_name(pages):
    linked = {address.partition("#tf_fast_rcnn.")[2] for address in pages["api/index.html"].links}
    assert sorted(linked - {""}) == sorted(tf_fast_rcnn.__all__)


def parsers():
    """`(words of the command, its parser)`, for parts of commands too."""
    for name in cli.COMMANDS:
        parser = cli._parser([name])._subparsers._group_actions[0].choices[name]
        yield [name], parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from (([name, part], choice) for part, choice in action.choices.items())


def squeezed(text):
    return re.sub(r"[\s`]", "", text)


def test_every_command_and_option_is_described_in_the_words_of_its_help(pages):
    page = pages["command_line.html"]
    text, options = squeezed(page.text), 0
    for words, parser in parsers():
        assert "-".join(words) in page.ids
        ids = [name for name in page.ids if name.startswith(f"cmdoption-tf-fast-rcnn-{'-'.join(words)}-")]
        for action in parser._actions:
            hidden = action.help == argparse.SUPPRESS
            if action.dest == "help" or hidden or isinstance(action, argparse._SubParsersAction):
                continue
            options += 1
            name = (action.option_strings or [f"arg-{action.metavar or action.dest}"])[-1].lstrip("-")
            assert f"cmdoption-tf-fast-rcnn-{'-'.join(words)}-{name}" in ids
            assert squeezed(parser._get_formatter()._expand_help(action) if action.help else "") in text
        for line in (parser.epilog or "").splitlines()[1:]:
            assert squeezed(line) in text
    assert options >= 100


def test_no_link_is_dead(pages, site):
    checked = 0
    for name, page in pages.items():
        for address in page.links + page.loads:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            assert target.is_file(), f"{name}: {address}"
            other = pages.get(target.resolve().relative_to(site.resolve()).as_posix())
            if parts.fragment and other:
                assert unquote(parts.fragment) in other.ids, f"{name}: {address}"
            checked += 1
    assert checked > 1000


def test_pages_and_styles_load_nothing_from_elsewhere(pages, site):
    loads = [(name, address) for name, page in pages.items() for address in page.loads]
    styles = list(site.rglob("*.css"))
    for path in styles:
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        loads += [(path.name, address) for address in re.findall(r"url\(\s*['\"]?([^'\")]+)", text)]
        loads += [(path.name, address) for address in re.findall(r"@import\s+['\"]([^'\"]+)", text)]
    assert len(loads) > 100
    assert len(styles) >= 3
    elsewhere = [load for load in loads if urlsplit(load[1]).netloc or urlsplit(load[1]).scheme not in ("", "data")]
    assert elsewhere == []


def test_search_works_from_disk(site, chromium):
    page = site / "search.html"
    query = type("Query", (), {"as_uri": lambda self: f"{page.as_uri()}?q=RoIPooling"})()
    printed, _ = chromium(query, "--dump-dom", "--host-resolver-rules=MAP * ~NOTFOUND")
    found = re.search(r'<div id="search-results">.*', printed, flags=re.DOTALL)[0]
    assert 'href="api/roi_pooling.html#tf_fast_rcnn.RoIPooling"' in found


MEASURE = """<body><script>
const pages = PAGES, answer = [];
async function measure(page, width) {
    const frame = document.body.appendChild(document.createElement("iframe"));
    frame.width = width; frame.height = 800;
    await new Promise(done => { frame.onload = done; frame.src = page; });
    const loaded = frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name);
    answer.push({page, width, scroll: frame.contentDocument.documentElement.scrollWidth,
                 elsewhere: loaded.filter(name => !name.startsWith(location.origin)), loaded: loaded.length});
    frame.remove();
}
(async () => {
    for (const page of pages) for (const width of [390, 1280]) await measure(page, width);
    fetch("/answer", {method: "POST", body: JSON.stringify(answer)});
})();
</script>"""


@pytest.mark.skipif(browser() is None, reason="no Chromium or Chrome on the PATH")
def test_pages_fit_phones_and_desktops_and_load_nothing_from_elsewhere(pages, site):
    (site / "measure.htm").write_text(MEASURE.replace("PAGES", json.dumps(sorted(pages))))
    measured = answer_of(browser(), site, "measure.htm", timeout=300)
    assert len(measured) == 2 * len(pages)
    assert [(one["page"], one["scroll"]) for one in measured if one["scroll"] > one["width"]] == []
    assert [one for one in measured if one["elsewhere"] or not one["loaded"]] == []


@pytest.mark.slow
def test_what_is_missing_or_dead_fails_the_build(tmp_path):
    docs = tmp_path / "docs"
    for name in ("docs", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("node_modules"))
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path)

    def replace(page, old, new):
        text = (docs / page).read_text()
        assert old in text
        (docs / page).write_text(text.replace(old, new))

    replace("api/roi_pooling.md", "\nRoIPooling\n", "\n")
    replace("command_line.md", "```{command} browse\n```\n", "")
    replace("getting_started.md", "(browse.md)", "(browse.md#no-such-heading)")
    ran = build(docs, tmp_path / "out")
    assert ran.returncode != 0
    assert "tf_fast_rcnn.RoIPooling is on no page" in ran.stderr
    assert "the command 'browse' is on no page" in ran.stderr
    assert "no-such-heading" in ran.stderr
