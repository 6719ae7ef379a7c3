"""Seeded, systematic ways to spoil JSON, XML, lines of text and bytes."""

from __future__ import annotations

import copy
import json
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["NAMES", "VALUES", "dump", "spoil_bytes", "spoil_json", "spoil_lines", "spoil_xml"]

HUGE = 10**9
VALUES: Sequence[Any] = (
    *(None, True, False, 0, -1, 1.5, HUGE, 10**30, 2**63, float("nan"), float("inf"), -1e308),
    *("", " ", "x", "1", "\ud800", "a\0b", "\x1b[31mred\x9b2J", "\u202egpj.exe", "9" * 5000, "l" * 70_000),
    *([], [[]], [None], {}, {"": None}, {"a": {"b": []}}, [1, [2, [3]]], [float("nan")] * 4),
)
"""What stands where something else was expected."""

NAMES: Sequence[str] = (
    *("../beside/secret.png", "../../beside/secret.png", "{place}/beside/secret.png", "{place}/beside/new.png"),
    *("..\\beside\\secret.png", "C:\\a.png", "a\0b.png", "a\nb.png", "\x1b]0;x\x07.png", "\x9b31m.png", "l" * 300 + ".png"),
    *("/dev/zero", "/etc/passwd", "link-out.png", "folder/../../beside/secret.png", ".", "..", "/", "a.png/", "~/a.png"),
    *("caf\udce9.png", "con.png", "-.png", "file:///etc/passwd", "a" * 120 + "/" + "b" * 120 + ".png", "d/" * 800 + "a.png"),
)
"""Names of files that lead somewhere else, or nowhere."""

DEEP = 100_000


def dump(value: Any) -> bytes:
    """JSON as Python writes it, NaN and half signs too."""
    return json.dumps(value).encode("ascii")


def _paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if here:
        yield here
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in entries:
        yield from _paths(one, (*here, key))


def _at(value: Any, path: Sequence[Any]) -> Any:
    for key in path:
        value = value[key]
    return value


def spoil_json(value: Any, seed: int = 0, names: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """Yield (what was done, a spoilt copy): every place gets every value, is deleted, or doubled, in a random order.

    Values of the keys ``names`` get names of files instead, more often.
    """
    rng, paths = random.Random(seed), list(_paths(value))
    jobs: list[tuple[tuple[Any, ...], Any]] = [(path, ("put", odd)) for path in paths for odd in VALUES]
    jobs += [(path, (way, None)) for path in paths for way in ("drop", "double", "wrap", "rename")]
    named = [(path, ("put", name)) for path in paths if path[-1] in names for name in NAMES]
    rng.shuffle(jobs)
    rng.shuffle(named)
    while jobs or named:
        for source in (jobs, named) if len(named) * 3 > len(jobs) or rng.random() < 0.4 else (jobs,):
            if source:
                path, (way, odd) = source.pop()
                what = f"{'.'.join(map(str, path))} {way} {odd!r:.30}"
                yield what, _spoil_at(value, path, way, odd)


def _spoil_at(value: Any, path: Sequence[Any], way: str, odd: Any) -> Any:
    spoilt = copy.deepcopy(value)
    holder, key = _at(spoilt, path[:-1]), path[-1]
    if way == "put":
        holder[key] = copy.deepcopy(odd)
    elif way == "wrap":
        holder[key] = [holder[key]]
    elif way == "drop":
        del holder[key]
    elif way == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        name = key if isinstance(holder, dict) else 0
        holder[f"{name}_" if isinstance(holder, dict) else key] = holder[key]
    return spoilt


def spoil_bytes(data: bytes, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, spoilt bytes): cut, flipped, in other encodings, nested deeply, empty, not text at all."""
    rng = random.Random(seed)
    text = data.decode("utf-8", "replace")
    yield from {
        "empty": b"",
        "blank": b" \n",
        "NUL": b"\0" * 100,
        "no text": bytes(range(256)) * 4,
        "mark": b"\xef\xbb\xbf" + data,
        "utf-16": text.encode("utf-16"),
        "utf-16-be without a mark": text.encode("utf-16-be"),
        "utf-32": text.encode("utf-32"),
        "half utf-16": text.encode("utf-16")[:-1],
        "gb2312": text.encode("gb2312", "replace"),
        "deep lists": b"[" * DEEP + b"]" * DEEP,
        "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        "deep tags": b"<a>" * 20_000 + b"</a>" * 20_000,
        "rest": data + b"}",
        "twice": data + data,
        "null": b"null",
        "number": b"1e999",
        "long number": b"9" * 5000,
        "list": b"[]",
        "object": b"{}",
        "text": b'"text"',
    }.items()
    while True:
        place = rng.randrange(1, max(len(data), 2))
        yield f"cut at {place}", data[:place]
        flipped = bytearray(data)
        for _ in range(rng.choice((1, 1, 3, 20))):
            flipped[rng.randrange(len(data))] = rng.randrange(256)
        yield f"flipped near {place}", bytes(flipped)


WORDS = ("nan", "inf", "-1", "1e999", "1e9", "0", "", "x", "0.5 0.5", "1,5", "\x1b[0m", "９", "0x1p3", "1_0", "9" * 400, "-0.0")


def spoil_lines(text: str, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (what was done, spoilt text): words put in the place of others, words and lines left out or doubled."""
    rng, lines = random.Random(seed), text.splitlines()
    while True:
        rows = [line.split(" ") for line in lines]
        row = rng.choice(rows)
        k, way = rng.randrange(len(row)), rng.choice(("put", "put", "put", "drop", "add", "double", "tab", "long"))
        word = rng.choice(WORDS)
        if way == "put":
            row[k] = word
        elif way == "drop":
            del row[k]
        elif way == "add":
            row.insert(k, word)
        elif way == "double":
            rows.append(list(row))
        elif way == "tab":
            row[:] = ["\t".join(row)]
        else:
            row.extend(["0.5"] * 2 * rng.randrange(1, 2000))
        yield f"{way} {word!r:.20} in word {k}", "\n".join(" ".join(row) for row in rows) + "\n"


XML_VALUES = (
    *("", " ", "nan", "inf", "-1", "0", "1e999", "1000000000", "1000000000000000000000", "x", "1,2", "&lt;a&gt;", "9" * 5000),
    *("\u202egpj", "\x85\x9b", "l" * 70_000, "1;2;3", "1.5", "0,0;1,1", "９"),
)


def spoil_xml(text: str, seed: int = 0, names: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield (what was done, spoilt XML): attributes and texts of every element replaced, left out, doubled; odd heads."""
    rng = random.Random(seed)
    yield "entity", f'<!DOCTYPE a [<!ENTITY x "smuggled">]>{text.replace(">1<", ">&x;<", 1)}'
    yield "unknown entity", re.sub(">1<", ">&x;<", text, count=1)
    yield "encoding of nowhere", f'<?xml version="1.0" encoding="klingon"?>{text}'
    yield "wrong encoding", f'<?xml version="1.0" encoding="utf-16"?>{text}'
    yield "other root", f"<other>{text}</other>"
    while True:
        tree = ET.fromstring(text)
        one = rng.choice(list(tree.iter()))
        value = rng.choice([*XML_VALUES, *(n for n in NAMES if n.isprintable() and max(n) < "\ud800")])
        ways = [f"@{key}" for key in one.attrib] * 2 + ["text", "drop", "double", "empty", "tag"]
        yield _spoil_element(tree, one, rng.choice(ways), value), ET.tostring(tree, encoding="unicode")


def _spoil_element(tree: ET.Element, one: ET.Element, way: str, value: str) -> str:
    holder = next((e for e in tree.iter() if one in list(e)), tree)
    if way.startswith("@"):
        one.set(way[1:], value)
    elif way == "text":
        one.text = value
    elif way == "drop" and holder is not one and one in list(holder):
        holder.remove(one)
    elif way == "double" and one in list(holder):
        holder.append(copy.deepcopy(one))
    elif way == "empty":
        one.attrib.clear()
    else:
        one.tag = f"{one.tag}x"
    return f"{one.tag} {way} {value!r:.30}"
