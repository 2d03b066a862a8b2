import json
import os
import re
import tomllib
from pathlib import Path

import pytest
from platformdirs import user_cache_path, user_config_path, user_state_path

from lab.config import Settings, check_name, check_snapshot_name, effective, load
from lab.config.loading import PROJECT
from lab.config.model import leaves
from lab.config.sources import variable
from lab.core import redact
from lab.core.errors import ExitCode, UsageError

FOLDERS = {"state_dir", "cache_dir"}


@pytest.fixture(autouse=True)
def host(monkeypatch, tmp_path):
    """A host of 8 CPUs and 16 GiB, with no settings of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith("LAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("lab.config.loading.host_limits", lambda: (8, 16384))


@pytest.fixture
def mine(monkeypatch, tmp_path):
    """Writes the user's own file."""

    def write(text: str) -> Path:
        path = user_config_path("lab", appauthor=False) / "lab.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def refusal(**more) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(**more)
    assert caught.value.exit_code == ExitCode.USAGE
    return caught.value


def test_lab_toml_is_the_list_of_all_keys_and_agrees_with_the_defaults_in_the_code(tmp_path):
    document = tomllib.loads((PROJECT / "lab.toml").read_text())
    written = {
        f"{name}.{inner}" if isinstance(value, dict) else name: found
        for name, value in document.items()
        for inner, found in (value.items() if isinstance(value, dict) else [("", value)])
    }
    assert set(written) == set(leaves())
    bare = Settings()
    assert {key: value for key, value in written.items() if key not in FOLDERS} == {
        key: bare.value(key) for key in leaves() if key not in FOLDERS
    }
    assert all(written[key] == "" for key in FOLDERS)
    assert load().model_dump() == load(root=tmp_path).model_dump()


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_docs_table_has_every_key_with_its_default_and_none_besides():
    text = (PROJECT / "docs/configuration.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| (empty|`[^`]+`) \|", text, re.M)
    bare = Settings()
    values = {key: "" if key in FOLDERS else _written(bare.value(key)) for key in leaves()}
    expected = {key: f"`{value}`" if value else "empty" for key, value in values.items()}
    assert dict(rows) == expected and len(rows) == len(expected)


def test_each_source_outdoes_the_weaker_ones_and_is_named(monkeypatch, mine):
    path = mine('engine = "qemu"\n[vm]\ncpus = 3\nmemory_mib = 3000\ndisk_gib = 30\n')
    monkeypatch.setenv("LAB_VM__MEMORY_MIB", "2000")
    monkeypatch.setenv("LAB_VM__DISK_GIB", "20")
    monkeypatch.setenv("LAB_VM__NESTED", "false")
    settings = load({"vm.disk_gib": "10", "emulator.kind": "none", "image": None})
    rows = {row.key: (row.value, row.origin) for row in effective(settings)}
    assert rows["image"] == ("auto", "lab.toml")
    assert rows["engine"] == ("qemu", str(path))
    assert rows["vm.cpus"] == (3, str(path))
    assert rows["vm.memory_mib"] == (2000, "environment LAB_VM__MEMORY_MIB")
    assert rows["vm.nested"] == (False, "environment LAB_VM__NESTED")
    assert rows["vm.disk_gib"] == (10, "flag --disk-gib")
    assert rows["emulator.kind"] == ("none", "flag --emulator")
    assert list(rows) == list(leaves())


def test_lab_config_names_the_users_file_instead(monkeypatch, mine, tmp_path):
    mine('engine = "auto"\n')
    other = tmp_path / "other.toml"
    other.write_text('engine = "qemu"\n')
    monkeypatch.setenv("LAB_CONFIG", str(other))
    assert load().origins["engine"] == str(other)
    other.unlink()
    assert str(other) in refusal().what


def test_folders(monkeypatch, mine, tmp_path):

    monkeypatch.setenv("HOME", str(tmp_path))
    settings = load()
    assert settings.state_dir == user_state_path("lab") and settings.origins["state_dir"] == "default"
    assert settings.cache_dir == user_cache_path("lab")
    mine('state_dir = "~/labs"\ncache_dir = "~/cache"')
    monkeypatch.setenv("LAB_CACHE_DIR", "")
    settings = load({"state_dir": ""})
    assert settings.cache_dir == tmp_path / "cache", "an empty variable counts as not set"
    assert settings.state_dir == user_state_path("lab"), "an empty flag asks for the default"
    mine('state_dir = "labs"')
    assert "absolute" in refusal().what


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("[vm]\nmemory = 4096", "vm.memory is not a key", "vm.memory_mib"),
        ("memory_mib = 4096", "memory_mib is not a key", "vm.memory_mib"),
        ("[vmm]\ncpus = 4", "vmm.cpus is not a key", "vm.cpus"),
        ("[deadlines]\nnested-boot = 4", "deadlines.nested-boot is not a key", "deadlines.nested_boot"),
        ('"vm.cpus" = 4', '"vm.cpus" is not a key', "vm.cpus"),
        ("zzz = 1", "zzz is not a key", "docs/configuration.md"),
        ('engine = "qmeu"', "engine = 'qmeu'", "'qemu'"),
        ('[vm]\ncpus = "2"', "vm.cpus = '2' should be a valid integer", ""),
        ("[vm]\ncpus = true", "vm.cpus = True should be a valid integer", ""),
        ("[vm]\nnested = 1", "vm.nested = 1 should be a valid boolean", ""),
        ("[vm]\ncpus = 65", "vm.cpus = 65 should be less than or equal to 64", ""),
        ("[vm.cpus]\nx = 1", "vm.cpus = {'x': 1} should be a valid integer", ""),
        ("vm = 3", "vm is a section", ""),
        ("[ports]\nssh = 22", "ports.ssh = 22 should be 0", ""),
        ("state_dir = 3", "state_dir = 3 should be a path in quotes", ""),
        ("[vm]\nmemory_mib = 16385", "more than this host's 16384 MiB", "vm.memory_mib = 12288"),
        ("[vm]\ncpus = 33", "more than 4 times this host's 8", "vm.cpus = 8"),
        ('emulator = "canary"', "emulator is a section, written [emulator]", "emulator.kind"),
        ("[emulator]\nkind = 'docker'", "emulator.kind = 'docker'", "'docker-android'"),
        ("[emulator]\ndigest = 'sha256:ab'", "should be empty, or sha256:", ""),
        ("[emulator]\nenv = ['A=1', 'B']", "should be KEY=VALUE", ""),
        ("[emulator]\ncpus = 0", "emulator.cpus = 0 should be greater than 0", ""),
        ("[ports]\nadb = 2222\nnovnc = 2222", "are both 2222", "different ports"),
        ("engine = \n", "not valid TOML: Invalid value (at line 1", ""),
    ],
)
def test_a_mistake_in_a_file_names_file_key_and_the_nearest_valid_one(mine, text, what, hint):
    path = mine(text)
    error = refusal()
    assert str(path) in error.what
    assert what in error.what
    assert hint in error.hint


def test_a_byte_order_mark_is_no_mistake(mine):
    """As Windows' editors write it."""
    mine('\ufeffengine = "qemu"\n[vm]\ncpus = 3\n')
    settings = load()
    assert (settings.engine, settings.vm.cpus) == ("qemu", 3)


@pytest.mark.parametrize(
    ("name", "value", "what", "hint"),
    [
        ("LAB_MEMORY", "4096", "LAB_MEMORY", "LAB_VM__MEMORY_MIB"),
        ("LAB_VM_MEMORY_MIB", "4096", "LAB_VM_MEMORY_MIB", "LAB_VM__MEMORY_MIB"),
        ("LAB_VM__CPUZ", "4", "LAB_VM__CPUZ", "LAB_VM__CPUS"),
        ("LAB_VM", "{not json", "LAB_VM ", ""),
        ("LAB_VM__CPUS", "two", "LAB_VM__CPUS = 'two' should be a valid integer", ""),
        ("LAB_EMULATOR", "canary", "LAB_EMULATOR is not a variable", "LAB_EMULATOR__KIND"),
        ("LAB_INSTALL", "nevr", "LAB_INSTALL = 'nevr'", "'never'"),
        ("LAB_IMAGE", "ubunto", "LAB_IMAGE = 'ubunto'", "'ubuntu-24.04'"),
        ("LAB_IMAGE", "debian13", "LAB_IMAGE = 'debian13'", "'debian-13'"),
        ("LAB_VM__MEMORY_MIB", "99999999", "environment LAB_VM__MEMORY_MIB", ""),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(monkeypatch, name, value, what, hint):
    monkeypatch.setenv(name, value)
    error = refusal()
    assert what in error.what
    assert hint in error.hint


def test_a_mistake_in_a_flag_names_the_flag():
    error = refusal(flags={"engine": "vmware"})
    assert "flag --engine = 'vmware'" in error.what


def test_all_problems_are_in_one_error(monkeypatch, mine):
    mine('enigne = "qemu"\n[vm]\ncpus = "2"\n[ports]\nssh = 2222\nadb = 2222\n')
    monkeypatch.setenv("LAB_INSTAL", "never")
    error = refusal(flags={"image": "ubuntu"})
    for part in ("5 problems", "enigne", "vm.cpus", "LAB_INSTAL", "--image", "are both 2222"):
        assert part in error.what
    for part in ("engine?", "LAB_INSTALL?", "'ubuntu-24.04'?"):
        assert part in error.hint


def test_a_hidden_mistake_is_still_one_but_the_hosts_limits_are_for_the_value_in_force(monkeypatch, mine):
    mine("[vm]\nmemory_mib = 99999\n")
    monkeypatch.setenv("LAB_VM__MEMORY_MIB", "1024")
    assert load().vm.memory_mib == 1024
    mine('[vm]\nmemory_mib = "1024"\n')
    assert "vm.memory_mib" in refusal().what


def test_every_variable_is_read(monkeypatch):
    asked = {key: str(load().value(key)) or "x" for key in leaves()}
    asked |= {key: str(2000 + number) for number, key in enumerate(asked) if key.startswith("ports.")}
    asked |= {"emulator.digest": f"sha256:{'0a' * 32}", "nightly.webhook": "json", "nightly.github": "a/b"}
    asked |= {"images.debian_mirror": "http://mirror.example/debian"}
    for key, value in asked.items():
        monkeypatch.setenv(variable(key), value)
    assert load().origins == {key: f"environment {variable(key)}" for key in leaves()}


def test_secrets_among_the_containers_variables_are_masked_wherever_lab_writes(mine, monkeypatch):
    token = 'tok"en — of mine'
    words = [f"API_TOKEN={token}", "MY_PASSWORD=abc", "KEYBOARD_LAYOUT=dvorak", "DEVICE=seen by all"]
    mine(f"[emulator]\nenv = {json.dumps(words)}\n")
    settings = load()
    assert settings.emulator.env == words  # the container gets them
    (row,) = [row for row in effective(settings) if row.key == "emulator.env"]
    shown = ["API_TOKEN=[redacted]", "[redacted]", "KEYBOARD_LAYOUT=dvorak", "DEVICE=seen by all"]
    assert row.value == shown
    for text in (json.dumps(words), json.dumps(words, ensure_ascii=False), repr(words), " ".join(words)):
        assert redact.clean(text).count("[redacted]") == 2, text
        assert "of mine" not in redact.clean(text), text


def test_a_secret_of_settings_that_are_refused_or_replaced_is_masked_too(mine, monkeypatch):
    mine("[emulator]\nenv = ['CLIENT_SECRET=weaker-and-hidden', 'nonsense']\n")
    monkeypatch.setenv("LAB_EMULATOR__ENV", '["X_KEY=stronger-and-hidden"]')
    said = redact.clean(refusal().what)
    assert "should be KEY=VALUE" in said
    assert "and-hidden" not in said
    assert redact.clean("stronger-and-hidden") == "[redacted]"


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load().vm.cpus = 3


@pytest.mark.parametrize("name", ["a", "default", "lab-2", "a" * 31])
def test_names(name):
    assert check_name(name) == check_snapshot_name(name) == name


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("", "default"),
        ("Default", "default"),
        ("my_lab", "my-lab"),
        ("lab-", "lab"),
        ("2nd", "nd"),
        ("../x", "x"),
        ("a" * 32, "a" * 31),
        ("lab\n", "lab"),
    ],
)
def test_bad_names_come_with_a_good_one(name, near):
    for check in (check_name, check_snapshot_name):
        with pytest.raises(UsageError) as caught:
            check(name)
        assert repr(name) in caught.value.what
        assert f"'{near}'" in caught.value.hint


@pytest.mark.parametrize("sign", ["\n", "\r", "\0"])
@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("emulator", "env", ["A=1", "TOKEN=sec{}ret"]),
        ("emulator", "device", "Pixel{}5"),
        ("nightly", "mail_to", "me@example.org{}Bcc: you@example.org"),
        ("virtualbox", "extra_data", ["A=b{}c"]),
    ],
)
def test_a_value_of_two_lines_is_refused_before_anything_is_launched(
    mine, monkeypatch, section, key, value, sign
):
    broken = [item.format(sign) for item in value] if isinstance(value, list) else value.format(sign)
    path = mine(f"[{section}]\n{key} = {json.dumps(broken)}\n")
    assert refusal().what == f"{path}: {section}.{key} should be on one line: a line break or NUL is in it"
    mine("")
    if sign != "\0" or isinstance(broken, list):
        name = variable(f"{section}.{key}")
        monkeypatch.setenv(name, json.dumps(broken) if isinstance(broken, list) else broken)
        assert f"environment: {name} should be on one line" in refusal().what


def test_a_path_is_relative_to_its_file_or_to_where_the_user_stands(mine, monkeypatch, tmp_path):
    path = mine(
        '[emulator]\narchive = "a.tar"\n[qemu]\nbinary = "bin/qemu"\n'
        '[virtualbox]\nhome = "~/vbox"\npython = "python3.12"\n'
    )
    found = load()
    assert found.emulator.archive == str(path.parent / "a.tar")
    assert found.qemu.binary == str(path.parent / "bin/qemu")
    assert found.virtualbox.home == str(Path.home() / "vbox")
    assert found.virtualbox.python == "python3.12", "a name is looked for on PATH"
    monkeypatch.setenv("LAB_CWD", str(tmp_path))
    monkeypatch.setenv("LAB_EMULATOR__ARCHIVE", "./b.tar")
    monkeypatch.setenv("LAB_CONFIG", "mine.toml")
    (tmp_path / "mine.toml").write_text("[vm]\ncpus = 3\n")
    found = load()
    assert (found.emulator.archive, found.vm.cpus) == (str(tmp_path / "b.tar"), 3)
    mine("[emulator]\narchive = ''\n")
    monkeypatch.delenv("LAB_EMULATOR__ARCHIVE")
    assert load().emulator.archive == ""


def test_a_list_in_the_environment_is_written_as_json(monkeypatch):
    monkeypatch.setenv("LAB_EMULATOR__ENV", "A=B")
    monkeypatch.setenv("LAB_VM__CPUS", "3")
    error = refusal()
    assert "environment: LAB_EMULATOR__ENV is not JSON" in error.what and "CPUS" not in error.what
    assert error.hint == 'lists are written as JSON: ["KEY=VALUE"]'
