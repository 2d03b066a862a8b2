"""Whichever way a secret is written, it is masked, in whatever text; and long texts take no long time."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus, urlencode
from xml.sax import saxutils

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lab.core import redact

LETTERS = "abcXYZ019 '\"\\$&<>%+/=:@!ü€-_.~"
SECRETS = st.text(LETTERS, min_size=6, max_size=24).map(str.strip).filter(lambda word: len(word) >= 6)
AROUND = st.text("qQ7 ,;(){}#\n", max_size=20)
PACKED = st.text('qQ7:{}"', max_size=20)


@contextlib.contextmanager
def knowing(*secrets: str) -> Iterator[None]:
    before = redact._needles
    redact._needles = redact._Needles()
    try:
        for secret in secrets:
            redact.register(secret)
        yield
    finally:
        redact._needles = before


def in_part(secret: str, which: int, *, upper: bool = True) -> str:
    """Percent-encoding of those bytes that the bits of `which` say; others that may not stand alone too."""
    made = ""
    for number, byte in enumerate(secret.encode()):
        must = byte > 126 or byte < 33 or chr(byte) in "%+"
        code = f"%{byte:02X}" if upper else f"%{byte:02x}"
        made += code if must or which >> (number % 32) & 1 else chr(byte)
    return made


WRITINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent, all": lambda secret: "".join(f"%{byte:02X}" for byte in secret.encode()),
    "percent, all, small letters": lambda secret: "".join(f"%{byte:02x}" for byte in secret.encode()),
    "percent, as needed": lambda secret: quote(secret, safe=""),
    "percent, as a path": quote,
    "percent, twice": lambda secret: quote(quote(secret, safe=""), safe=""),
    "a form": lambda secret: urlencode({"password": secret}),
    "a form's value": quote_plus,
    "JSON": json.dumps,
    "JSON in letters of its own": lambda secret: json.dumps(secret, ensure_ascii=False),
    "JSON in JSON": lambda secret: json.dumps(json.dumps({"a": secret})),
    "Python": repr,
    "a shell": shlex.quote,
    "HTML": html.escape,
    "XML": saxutils.escape,
    "an attribute of XML": saxutils.quoteattr,
}


@pytest.mark.parametrize("write", WRITINGS.values(), ids=WRITINGS)
@given(secret=SECRETS, before=AROUND, after=AROUND)
def test_a_secret_is_masked_however_it_is_written(
    write: Callable[[str], str], secret: str, before: str, after: str
) -> None:
    """What stands around it stays."""
    with knowing(secret):
        cleaned = redact.clean(f"{before}{write(secret)}{after}")
    assert cleaned.startswith(before)
    assert cleaned.endswith(after)
    middle = cleaned[len(before) : len(cleaned) - len(after)]
    assert "[redacted]" in middle
    rest = middle.replace("[redacted]", "").removeprefix("password=")
    assert not re.search(r"[a-zA-Z019]", rest.replace('{\\"a\\": ', "").replace("x27", ""))


@given(secret=SECRETS, which=st.integers(0, 2**32 - 1), upper=st.booleans(), around=AROUND)
def test_percent_encoding_in_part(secret: str, which: int, upper: bool, around: str) -> None:
    with knowing(secret):
        text = f"é{around}{in_part(secret, which, upper=upper)}{around}é"
        assert redact.clean(text) == f"é{around}[redacted]{around}é"


@given(secret=SECRETS, before=PACKED, after=PACKED, safe=st.booleans(), padded=st.booleans())
def test_base64_of_whatever_it_stands_in(
    secret: str, before: str, after: str, safe: bool, padded: bool
) -> None:
    """As user:password in a header: nothing is left that could be unpacked to a part of it."""
    data = f"{before}{secret}{after}".encode()
    packed = (base64.urlsafe_b64encode if safe else base64.b64encode)(data).decode()
    packed = packed if padded else packed.rstrip("=")
    with knowing(secret):
        cleaned = redact.clean(f"Basic {packed} ")
    assert cleaned.count("[redacted]") == 1
    head, _, tail = cleaned.removeprefix("Basic ").strip().partition("[redacted]")
    assert packed.startswith(head)
    assert packed.endswith(tail)
    assert len(head) * 6 // 8 <= len(before.encode())
    assert len(tail.rstrip("=")) * 6 // 8 <= len(after.encode())


@given(
    secret=SECRETS, before=st.integers(40, 130), after=st.integers(60, 130), width=st.sampled_from([64, 76])
)
def test_base64_in_lines(secret: str, before: int, after: int, width: int) -> None:
    packed = base64.b64encode(b"q" * before + secret.encode() + b"Q" * after).decode()
    lines = "\n".join(packed[at : at + width] for at in range(0, len(packed), width))
    with knowing(secret):
        cleaned = redact.clean(f"mail:\n{lines}\nend")
        streamed = redact.Lines()
        by_line = "".join(streamed.add(f"{line}\n") for line in f"mail:\n{lines}\nend".split("\n"))
        by_line += streamed.end()
    for text in (cleaned, by_line):
        assert "[redacted]" in text
        kept = "".join(text.split("[redacted]")).replace("mail:", "").replace("end", "").replace("\n", "")
        assert len(kept) <= len(packed) - len(secret.encode()) * 8 // 6


@given(secret=SECRETS)
def test_base64_that_is_percent_encoded_and_json_in_base64(secret: str) -> None:
    header = base64.b64encode(json.dumps({"password": secret}, ensure_ascii=False).encode()).decode()
    with knowing(secret):
        for text in (header, quote(header, safe=""), f"https://x/?auth={quote(header)}"):
            assert "[redacted]" in redact.clean(text)


@given(text=st.text(max_size=300), secrets=st.lists(SECRETS, max_size=4))
def test_any_text_is_cleaned_once_and_for_all(text: str, secrets: list[str]) -> None:
    with knowing(*secrets):
        cleaned = redact.clean(text)
        assert redact.clean(cleaned) == cleaned
        for secret in secrets:
            assert secret not in cleaned or secret in "[redacted]"


@given(st.text(LETTERS + "\n", max_size=200))
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assume("://" not in text)
    with knowing("a-secret-that-is-nowhere"):
        assert redact.clean(text) == text
        lines = redact.Lines()
        kept = "".join(lines.add(line) for line in text.splitlines(keepends=True))
        assert kept + lines.end() == text


@given(st.lists(SECRETS, min_size=2, max_size=4), st.text("abcXYZ", max_size=5))
def test_secrets_beside_and_within_each_other(secrets: list[str], between: str) -> None:
    with knowing(*secrets, *(secret[1:] + secret for secret in secrets)):
        cleaned = redact.clean(between.join([*secrets, secrets[0][1:] + secrets[0]]))
        assert cleaned.startswith("[redacted]")
        assert not any(secret in cleaned for secret in secrets)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("password=abc", "password=[redacted]"),
        ('"Password": "abc"', '"Password": "[redacted]"'),
        ("VNC_PASSWORD: abc.", "VNC_PASSWORD: [redacted]."),
        ("token = abc, abc", "token = [redacted], abc"),
        ("password=abcd", "password=abcd"),
        ("the alphabet begins with abc", "the alphabet begins with abc"),
    ],
)
def test_a_short_secret_is_masked_behind_its_name(text: str, wanted: str) -> None:
    with knowing("abc"):
        assert redact.clean(text) == wanted


BODY = "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"] * 3)
BEGIN, END = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"a\n{BEGIN}\n{BODY}\n{END}\nb", "a\n[redacted]\nb"),
        (f"a\n{BEGIN}\nProc-Type: 4,ENCRYPTED\n\n{BODY}", "a\n[redacted]"),
        (f"a\n{BEGIN}\n{BODY}\n(log ends)", "a\n[redacted](log ends)"),
        (f"the end of one:\n{BODY}\n{END}\nb", "the end of one:\n[redacted]\nb"),
        (f"{BODY}\n{END}\n{BEGIN}\n{BODY}\n{END}\n", "[redacted]\n[redacted]\n"),
        (json.dumps({"key": f"{BEGIN}\n{BODY}\n{END}\n"}), '{"key": "[redacted]\\n"}'),
        ("it should begin with -----BEGIN PRIVATE KEY-----, and does not",) * 2,
    ],
)
def test_private_keys_whole_and_cut(text: str, wanted: str) -> None:
    if wanted == text:
        wanted = "it should begin with [redacted], and does not"
    assert redact.clean(text) == wanted


def test_a_private_key_that_comes_line_by_line() -> None:
    lines = redact.Lines()
    shown = [lines.add(f"{line}\n") for line in f"a\n{BEGIN}\n{BODY}\n{END}\nb".split("\n")]
    assert (shown[0], "".join(shown) + lines.end()) == ("a\n", "a\n[redacted]\nb\n")
    for line in [BEGIN, *["A" * 64] * 5000]:
        assert len(lines.add(f"{line}\n")) < 1 << 17
    lines.end()


def test_a_real_shell_writes_what_is_known() -> None:
    """`set -x` and `printf %q`, as logs of scripts have them."""
    secret = 'it\'s $5 & "more" ü'
    script = 'set -x; : "$0"; printf "%q\\n" "$0"'
    done = subprocess.run(["bash", "-c", script, secret], capture_output=True, text=True, check=True)
    with knowing(secret):
        assert "more" in done.stdout and "more" in done.stderr
        assert "more" not in redact.clean(done.stdout + done.stderr)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 2_000_000,
        "%41" * 500_000,
        "%25" * 500_000,
        "A" * 76 + "\n",
        f"{BEGIN}\n",
        f"{END}\n",
        "AAAAAAAA\n",
        "://a:b",
        "passwpassw",
        "hunter2-hunter2 ",
        "hunter2%2Dhunter2 é",
        base64.b64encode(b"hunter2-hunter2").decode() + "\n",
        "a" * 61 + "\nb\n",
    ],
)
def test_no_text_takes_long(text: str) -> None:
    """A million characters and more of whatever a guest may write; what is quadratic would take minutes."""
    whole = (text * (1_000_000 // len(text) + 1))[:2_000_000]
    with knowing("hunter2-hunter2", "two words", "abc", *(f"secret number {n}" for n in range(20))):
        began = time.process_time()
        redact.clean(whole)
        assert time.process_time() - began < 20
