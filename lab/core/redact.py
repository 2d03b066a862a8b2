"""Secrets are registered once and never reach a log, an error or an evidence file.

Whichever way a secret is written, it is masked: as it is, in the quotes of JSON, Python, a shell or HTML,
percent-encoded (wholly, in part, or twice), and inside base64, wherever in the text that was packed it stood.
"""

from __future__ import annotations

import base64
import html
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from urllib.parse import quote

_MASK = "[redacted]"
_SHORTEST = 6
"""Shortest secret masked everywhere, in characters. A shorter one is masked only behind a secret's name: else
it would mask half of every log."""

_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----")
_KEY_EDGE = re.compile(r"-----(?P<which>BEGIN|END) [A-Z ]{0,40}PRIVATE KEY-----")
_KEY_LINE = re.compile(r"\s*[A-Za-z0-9+/=]{8,}\s*")
_KEY_REST = re.compile(r"(?:\s|\\[nr]|[A-Za-z0-9+/=]{8,}|(?:Proc-Type|DEK-Info):[^\n]*)*")
"""What follows the beginning of a key whose end was cut off."""

_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@:\"']*:[^\s/@\"']+(?=@)")
"""user:password of an address, as in a proxy's: nobody registered it, and it is a secret all the same."""

_NAMES_A_SECRET = re.compile(r"TOKEN|PASSW|PASSPHRASE|SECRET|CREDENTIAL|KEY(?!BOARD|MAP)", re.IGNORECASE)
_BETRAYS = r"(?i:passw\w{0,9}|passphrase|secret|token|key|auth)[\"']?\s?[:=]\s?[\"']?"

_ESCAPED = re.compile("%[0-9A-Fa-f]{2}")
_ESCAPES = (re.compile(rb"%([0-9A-Fa-f]{2})"), re.compile(rb"%(?:25)*([0-9A-Fa-f]{2})"))
"""A byte in percent-encoding: once, and any number of times."""
_WRAPPED_AT = 60
"""Characters: mail has 76 in a line, PEM 64."""
_WRAPPED = re.compile(r"(?:^[ \t]*[A-Za-z0-9+/_-]{60,}[ \t]*\r?\n)+[ \t]*[A-Za-z0-9+/_-]*", re.MULTILINE)
"""base64 as mail and PEM have it, in lines."""
_IN_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")

Span = tuple[int, int]
"""Where in a text something stands: its first character, and the one behind its last."""


class _Needles:
    """What is looked for: texts, and of each the part of its base64 that does not depend on neighbours.

    The sets are replaced and never changed: another thread may be going through them.
    """

    def __init__(self) -> None:
        self.texts: frozenset[str] = frozenset()
        self.cores: frozenset[str] = frozenset()
        self.short: frozenset[str] = frozenset()

    def add(self, secret: str) -> None:
        if len(secret) < _SHORTEST:
            self.short |= {re.escape(secret)}
            return
        new = {text for text in _writings(secret) if text not in _MASK}
        self.texts |= new
        self.cores |= {core for text in new for core in _cores(text)}

    def spans(self, text: str, *, in_bytes: bool = False) -> Iterator[Span]:
        """Where they stand in `text`; `in_bytes` says that each of its characters is one byte of UTF-8."""
        for needle in self.texts:
            yield from _places(text, _as_bytes(needle) if in_bytes else needle)
        for core in self.cores:
            for begin, end in _places(text, core):
                # The characters beside it hold bits of the secret, too.
                before = begin > 0 and text[begin - 1] in _IN_BASE64
                yield begin - before, end + (end < len(text) and text[end] in _IN_BASE64)


_needles = _Needles()


def register(secret: str) -> None:
    """Remember a secret so that `clean` masks it, however it is written.

    One of less than _SHORTEST characters is masked behind `password=` and the like.
    """
    if plain := secret.strip():
        _needles.add(plain)


def register_variables(words: Iterable[str]) -> None:
    """Register the values of those KEY=VALUE words whose names say that they are secrets.

    A value too short to be masked everywhere is masked together with its name.
    """
    for word in words:
        name, assigned, value = word.partition("=")
        if assigned and value and _NAMES_A_SECRET.search(name):
            register(value)
            if len(value.strip()) < _SHORTEST:
                register(word)


def clean(text: str) -> str:
    """`text` with every registered secret, private key and password in an address masked."""
    spans = [match.span() for match in _IN_ADDRESS.finditer(text)]
    spans += _private_keys(text)
    spans += _needles.spans(text)
    if _needles.short:
        behind_a_name = re.compile(rf"{_BETRAYS}(?P<secret>{'|'.join(_needles.short)})(?!\w)")
        spans += [match.span("secret") for match in behind_a_name.finditer(text)]
    if _needles.texts:
        spans += _in_wrapped_base64(text)
        spans += _in_percent_encoding(text)
    return _masked(text, spans)


class Lines:
    """Cleans a text that comes line by line: those that show a secret only together are kept until then."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._size = 0

    def add(self, line: str) -> str:
        """What can be shown now: `line`, nothing, or several lines."""
        edge = _KEY_EDGE.search(line)
        in_key = bool(self._kept) and _KEY_BEGINS.search(self._kept[0]) is not None
        begins = edge is not None and edge["which"] == "BEGIN"
        packed = len(line) > _WRAPPED_AT and _KEY_LINE.fullmatch(line) is not None
        more = not (edge and edge["which"] == "END") if in_key else begins or packed
        self._kept.append(line)
        self._size += len(line)
        return "" if more and self._size <= _LONGEST_KEPT else self.end()

    def end(self) -> str:
        """What is left."""
        text = clean("".join(self._kept))
        self._kept, self._size = [], 0
        return text


_LONGEST_KEPT = 1 << 16
"""Characters; a private key has some thousand."""


def _writings(secret: str) -> set[str]:
    """The ways in which programs write it; percent-encoding in a text is undone before it is looked for."""
    in_json = [json.dumps(secret, ensure_ascii=only)[1:-1] for only in (True, False)]
    in_xml, in_html = html.escape(secret, quote=False), html.escape(secret)
    return {
        secret,
        *in_json,
        *(json.dumps(text)[1:-1] for text in in_json),
        repr(secret)[1:-1],
        secret.replace("'", "'\"'\"'"),  # shlex.quote
        secret.replace("'", r"'\''"),  # `set -x` of a shell
        re.sub(r"([^\w@%+=:,./-])", r"\\\1", secret),  # `printf %q`
        re.sub(r'(["\\$`])', r"\\\1", secret),  # in double quotes
        in_xml,
        in_xml.replace('"', "&quot;"),  # in an attribute
        in_html,
        in_html.replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),  # Jinja
        secret.replace(" ", "+"),  # a form
        quote(secret.encode(errors="surrogatepass"), safe=""),
    }


def _cores(text: str) -> set[str]:
    """In base64 of any text with `text` in it, the characters that depend on nothing but `text`.

    Three bytes are four characters, so there are three ways, by where it begins; and two alphabets.
    """
    data = text.encode(errors="surrogatepass")
    made = set()
    for before in range(3):
        first, behind = (8 * before + 5) // 6, 8 * (before + len(data)) // 6
        packed = base64.b64encode(bytes(before) + data).decode()[first:behind]
        made |= {packed, packed.replace("+", "-").replace("/", "_")}
    return made


def _places(text: str, needle: str) -> Iterator[Span]:
    at = text.find(needle)
    while at >= 0:
        yield at, at + len(needle)
        at = text.find(needle, at + len(needle))


def _private_keys(text: str) -> Iterator[Span]:
    """Private keys, also where the beginning or the end was cut off."""
    begun, behind = None, 0
    for edge in _KEY_EDGE.finditer(text):
        if edge["which"] == "BEGIN":
            begun = edge if begun is None else begun
            continue
        begin = edge.start()
        if begun is None:
            for line in reversed(text[behind:begin].splitlines(keepends=True)):
                if not _KEY_LINE.fullmatch(line):
                    break
                begin -= len(line)
        yield (begun.start() if begun else begin), edge.end()
        begun, behind = None, edge.end()
    if begun and (rest := _KEY_REST.match(text, begun.end())):
        yield begun.start(), rest.end()


def _in_wrapped_base64(text: str) -> Iterator[Span]:
    for block in _WRAPPED.finditer(text):
        parts = [match.span() for match in re.finditer(r"\S+", block.group())]
        begins = [0, *accumulate(end - begin for begin, end in parts)]
        joined = "".join(block.group()[begin:end] for begin, end in parts)
        for begin, end in _needles.spans(joined):
            first, last = bisect_right(begins, begin) - 1, bisect_right(begins, end - 1) - 1
            yield (
                block.start() + parts[first][0] + begin - begins[first],
                block.start() + parts[last][0] + end - begins[last],
            )


def _in_percent_encoding(text: str) -> Iterator[Span]:
    """Where secrets stand once escapes are undone: as they are, and with a form's plus for a space."""
    if not _ESCAPED.search(text):
        return
    data = text.encode(errors="surrogatepass")
    readings = [data]
    if b"+" in data and any(" " in needle for needle in _needles.texts):
        readings.append(data.replace(b"+", b" "))
    spans = [span for reading in readings for escape in _ESCAPES for span in _decoded_spans(reading, escape)]
    if text.isascii():
        yield from spans
    elif spans:
        behind = list(accumulate(len(letter.encode(errors="surrogatepass")) for letter in text))
        for begin, end in spans:
            yield bisect_right(behind, begin), bisect_right(behind, end - 1) + 1


def _decoded_spans(data: bytes, escape: re.Pattern[bytes]) -> Iterator[Span]:
    escapes = list(escape.finditer(data))
    shorter = [0, *accumulate(match.end() - match.start() - 1 for match in escapes)]
    places = [match.start() - before for match, before in zip(escapes, shorter, strict=False)]
    decoded = escape.sub(lambda match: bytes([int(match[1], 16)]), data).decode("latin-1")
    for begin, end in _needles.spans(decoded, in_bytes=True):
        yield begin + shorter[bisect_left(places, begin)], end + shorter[bisect_left(places, end)]


def _as_bytes(text: str) -> str:
    """A character for each byte of UTF-8."""
    return text if text.isascii() else text.encode(errors="surrogatepass").decode("latin-1")


def _masked(text: str, spans: Sequence[Span]) -> str:
    """`text` with each stretch that spans cover replaced by one mask."""
    if not spans:
        return text
    pieces, at = [], 0
    covered = -1
    for begin, end in sorted(spans):
        if begin >= covered:
            pieces += [text[at:begin], _MASK]
        covered = at = max(covered, end)
    return "".join([*pieces, text[at:]])
