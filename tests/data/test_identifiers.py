import hashlib
import hmac
import os
import stat

import numpy as np
import pytest

from ecgjax.data import identifiers

KEY = b"0123456789abcdef"


def test_hash_is_truncated_hmac_sha256():
    want = hmac.new(KEY, b"subject\x001234567", hashlib.sha256).digest()[:8]
    assert identifiers.hash_identifier("1234567", key=KEY, kind="subject") == want


def test_another_key_or_kind_gives_another_hash():
    mine = identifiers.hash_identifier("1", key=KEY, kind="subject")
    assert mine != identifiers.hash_identifier("1", key=KEY[::-1], kind="subject")
    assert mine != identifiers.hash_identifier("1", key=KEY, kind="record")


def test_a_short_key_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has 15 bytes; give at least 16"):
        identifiers.hash_identifier("1", key=KEY[:15], kind="subject")
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(b"short\n")
    with pytest.raises(ValueError, match="holds 5 bytes"):
        identifiers.read_key(path)


def test_a_made_key_is_private_random_and_never_replaced(tmp_path):
    key = identifiers.create_key(tmp_path / "a")
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o600
    assert identifiers.read_key(tmp_path / "a") == key
    assert identifiers.create_key(tmp_path / "b") != key
    with pytest.raises(ValueError, match="exists already"):
        identifiers.create_key(tmp_path / "a")
    assert identifiers.read_key(tmp_path / "a") == key


def test_a_key_that_others_can_read_is_refused(tmp_path):
    identifiers.create_key(tmp_path / "key")
    os.chmod(tmp_path / "key", 0o640)
    with pytest.raises(ValueError, match=r"mode 0640.*chmod 600"):
        identifiers.read_key(tmp_path / "key")


def test_a_missing_key_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist"):
        identifiers.read_key(tmp_path / "nowhere")


def test_a_collision_is_an_error(monkeypatch):
    assert len(identifiers.hash_identifiers(map(str, range(1000)), key=KEY, kind="subject")) == 1000
    monkeypatch.setattr(identifiers, "HASH_BYTES", 1)
    with pytest.raises(ValueError, match="share a 8-bit hash; use another key"):
        identifiers.hash_identifiers(map(str, range(300)), key=KEY, kind="subject")


def test_hex_form_keeps_all_eight_bytes():
    digest = identifiers.hash_identifier("1", key=KEY, kind="record")
    text = identifiers.as_hex(np.stack([identifiers.as_array(digest)] * 2))
    assert text.dtype == "U16"
    assert text.tolist() == [digest.hex()] * 2
