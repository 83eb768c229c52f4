"""The word list: plain technical English in comments, docstrings, messages, documents and names.

Checked are comments, strings and names of `sdpose_core`, `service`, `client` and `tools`, the
comments of `protos/*.proto` and of the page's JavaScript, and every document outside code. The
tests themselves are not checked.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_UNITS = (
    "second|minute|hour|day|batch|item|image|line|frame|person|stream|call|request|caller|device"
    "|file|joint|cycle|process|page|client|thread|core"
)
_COUNTED = (
    r"\d+|one|two|ms|milliseconds?|seconds?|bytes|MiB|MB|pixels|results?|numbers?|entry|entries"
    "|rows?|times|lines?|files?|values?|requests|images|frames|crops"
)
# What a text must not contain (a regular expression), and what to use instead.
WORDS = {
    r"\b(whoever|whomever|nobody|anybody)\b": "client, caller, user; no client, no one",
    r"\b(can|could|cannot|to|is|was) be had\b|\bwhat there is\b|\bat hand\b": "available",
    r"\b(is|are|was|were) to (see|be)\b": "is visible; must be, is expected",
    r"\banew\b": "again; or the verb itself: rebuild, retrain, reopen",
    r"\bbeforehand\b": "in advance",
    r"\bby (itself|themselves)\b": "automatically, alone",
    r"\bof (its|their) own\b": "its own, separate",
    r"\bpictures?\b": "image",
    r"\b(told|tells?)\b": "reported, given; reports, shows",
    r"\basked\b": "requested, called; request",
    r"\b(such )?as (it|they) (is|are|came|was|were)\b(?! \w+(ed|en|wn|ay)\b)": "unchanged",
    r"\btak(es?|ing) turns\b": "runs one at a time; in a measurement: alternates",
    r"\bthe ways? of\b": "the path of, how X works",
    r"\bit pays\b": "it is faster, it is worth it",
    r"\bbears?\b": "tolerates",
    r"\brefus(e|es|ed|ing|al|als)\b": "rejects, rejection",
    r"\bunder way\b|\bat work\b": "in flight, running",
    rf"\b({_COUNTED}) an? ({_UNITS})\b": "per",
    r"\b(lies?|lay|stands?|stood) (in|at|beside|under|behind)\b": "is in, is stored in",
    r"\bcut short\b": "truncated",
    r"\b(give|gives|gave|given|giving) up\b": "dropped, stops, ended",
    r"\bwhere (there (is|are)|nothing|none|no|not|given)\b"
    r"|\b(none|false|nan|empty) where\b|\braises?\b[^.:;]* where\b": "if",
    r"\b(said|says)\b": "reports, states, names, shows",
    r"\b(wants|wanted)\b": "requested, expected; needs",
    r"\blet in\b": "admitted",
    r"\band the like\b|\bof the kind\b": "and similar; or nothing",
    r"\bcomes? by\b|\bbecomes? of\b": "the verb itself: runs, happens to",
    r"\b(owes?|owed)\b": "the verb itself: is missing, is due",
}
# A docstring opens with what the thing is or does, not with a question or half a sentence.
OPENING = r"\s*(Of|What|Who|Whom|Whose)\b"
# Names that hold a value and do not say which.
NAMES = {"told", "said", "asked", "wanted", "whoever", "of"}
# Phrases in which a word of the list is right.
ALLOWED = (
    r"[Cc]onnections? refused",
    r"tells? (\w+ )?apart",
    r"\btell: ",  # a parameter
    r"says? why",
    r"(chown|USER) nobody",  # a user of the system
)


CODE = ("sdpose_core/*.py", "service/*.py", "client/*.py", "tools/*.py")
OTHERS = ("*.md", "protos/*.proto", "service/web/*.js")


def _tracked(*patterns: str) -> Iterator[tuple[str, str]]:
    """Name and text of the files under version control, without generated ones."""
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if "_pb2" not in name and (ROOT / name).exists():
            yield name, (ROOT / name).read_text()


def _strings(text: str) -> Iterator[tuple[int, str]]:
    """Comments and strings of Python; of f-strings without the code inside."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind in ("COMMENT", "STRING", "FSTRING_MIDDLE"):
            formatted = re.match(r"[rR]?[fF]", token.string)
            yield token.start[0], re.sub(r"\{[^{}]*\}" if formatted else "$^", "", token.string)


def _comments(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if comment := re.search(r"(^|\s)(//|/\*|\*)\s.*", line):
            yield number, comment.group()


def _prose(text: str) -> Iterator[tuple[int, str]]:
    code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code:
            yield number, line


_READERS = {".py": _strings, ".md": _prose}


def words(name: str, text: str) -> Iterator[str]:
    """The places of a file that break the list, each with what to use instead."""
    for start, part in _READERS.get(Path(name).suffix, _comments)(text):
        plain = re.sub(r"``[^`]*``|`[^`]*`|\]\([^)]*\)", "`", part)
        for phrase in ALLOWED:
            plain = re.sub(phrase, "", plain)
        for pattern, instead in WORDS.items():
            for match in re.finditer(pattern.replace(" ", r"[\s#]+"), plain, re.IGNORECASE):
                line = start + plain.count("\n", 0, match.start())
                yield f"{name}:{line}: {match.group()!r}: use {instead}"


def openings(name: str, text: str) -> Iterator[str]:
    """The docstrings of a file that do not open with what the thing is."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(docstring))):
                if re.match(OPENING, docstring):
                    yield f"{name}:{node.lineno}: opens with {docstring.splitlines()[0]!r}"


def names(name: str, text: str) -> Iterator[str]:
    """The functions, parameters, variables and attributes of a file with one of `NAMES`."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.FunctionDef(name=given) | ast.AsyncFunctionDef(name=given):
                pass
            case ast.arg(arg=given) | ast.Name(id=given, ctx=ast.Store()):
                pass
            case ast.Attribute(attr=given, ctx=ast.Store()):
                pass
            case _:
                continue
        if given.strip("_").lower() in NAMES:
            yield f"{name}:{node.lineno}: {given!r} does not say what it holds"


def _report(hits: Iterable[str]) -> str:
    return "\n".join(hits)


def test_texts_keep_to_the_word_list() -> None:
    report = _report(hit for file in _tracked(*CODE, *OTHERS) for hit in words(*file))
    assert not report, report


def test_docstrings_open_with_what_a_thing_is() -> None:
    report = _report(hit for file in _tracked(*CODE) for hit in openings(*file))
    assert not report, report


def test_names_say_what_they_hold() -> None:
    report = _report(hit for file in _tracked(*CODE) for hit in names(*file))
    assert not report, report


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "# made anew"),
        ("a.py", '"""Made\nanew."""'),
        ("a.py", 'print(f"{x} made anew")'),
        ("a.py", "# 3 frames a\n# second, 20 ms a batch"),
        ("a.md", "It is made anew."),
        ("a.proto", "  // Made anew."),
        ("a.js", " * Made anew."),
    ],
)
def test_a_word_of_the_list_is_found(name: str, text: str) -> None:
    assert list(words(name, text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "anew = 1"),
        ("a.py", 'print(f"{anew} made")'),
        ("a.py", "# `anew` names it; connection refused"),
        ("a.md", "```\nanew\n```\nand `anew`, [a link](anew.md)"),
    ],
)
def test_code_and_allowed_phrases_are_not(name: str, text: str) -> None:
    assert not list(words(name, text))


def test_openings_and_names_are_found() -> None:
    text = 'def f(told):\n    """Of a file."""\n    self._asked = wanted = 1\n'
    assert len(list(openings("a.py", text))) == 1
    assert len(list(names("a.py", text))) == 3
