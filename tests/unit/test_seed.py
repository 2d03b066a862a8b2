from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from lab.guest import keys, seed
from lab.guest.seed import Seed


@pytest.fixture
def made(tmp_path: Path) -> Seed:
    return Seed("0b5c6f9e-uuid", "lab-default", keys.ensure(tmp_path / "keys", "default"))


def cloud_config(files: dict[str, bytes]) -> dict[str, Any]:
    head, body = files["user-data"].split(b"\n", 1)
    assert head == b"#cloud-config"
    answer = json.loads(body)
    assert isinstance(answer, dict)
    return answer


def test_the_iso_is_a_nocloud_seed_in_both_name_schemes(tmp_path: Path, made: Seed) -> None:
    iso = tmp_path / "seed.iso"
    assert seed.write(made, iso)
    assert iso.stat().st_mode & 0o777 == 0o600, "the host's private key is in it"
    image = pycdlib.PyCdlib()
    image.open(str(iso))
    assert image.pvd.volume_identifier.decode().strip() == "cidata"
    names = [child.file_identifier().decode("utf-16-be") for child in image.list_children(joliet_path="/")]
    assert {"user-data", "meta-data", "lab"} <= {name.partition(";")[0] for name in names}
    through_joliet = io.BytesIO()
    image.get_file_from_iso_fp(through_joliet, joliet_path="/user-data")
    image.close()
    files = seed.read(iso)
    assert through_joliet.getvalue() == files["user-data"]
    assert json.loads(files["meta-data"]) == {"instance-id": "0b5c6f9e-uuid", "local-hostname": "lab-default"}
    assert files["lab/hostname"] == b"lab-default\n"


def test_one_user_one_key_the_given_host_key_and_no_password(tmp_path: Path, made: Seed) -> None:
    seed.write(made, tmp_path / "seed.iso")
    files = seed.read(tmp_path / "seed.iso")
    config = cloud_config(files)
    (user,) = config["users"]
    assert user["name"] == seed.USER
    assert user["lock_passwd"] is True
    assert user["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert user["ssh_authorized_keys"] == [made.keys.user.public_line()]
    assert config["ssh_pwauth"] is False
    assert config["ssh_keys"]["ed25519_private"] == made.keys.host.private_text()
    assert files["lab/host_key"].decode() == made.keys.host.private_text()
    assert files["lab/authorized_keys"].decode().strip() == made.keys.user.public_line()
    assert made.keys.user.private_text().encode() not in b"".join(files.values()), "the user's key stays here"


def test_the_same_seed_is_not_written_again_and_another_one_is(tmp_path: Path, made: Seed) -> None:
    iso = tmp_path / "seed.iso"
    assert seed.write(made, iso)
    before = iso.read_bytes()
    assert not seed.write(made, iso)
    assert iso.read_bytes() == before
    grown = dataclasses.replace(made, grow=True)
    assert seed.write(grown, iso)
    config = cloud_config(seed.read(iso))
    assert (config["growpart"]["mode"], config["resize_rootfs"]) == ("auto", True)


@pytest.mark.parametrize("content", [b"", b"\0" * 70000])
def test_a_torn_iso_is_replaced(tmp_path: Path, made: Seed, content: bytes) -> None:
    iso = tmp_path / "seed.iso"
    iso.write_bytes(content)
    assert seed.write(made, iso)
    assert seed.read(iso)["lab/hostname"] == b"lab-default\n"
