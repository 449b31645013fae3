"""Keyed hashes of subject and record identifiers: the only form in which they reach a shard."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping

import numpy as np
from etils import epath
from jaxtyping import UInt8

MINIMUM_KEY_BYTES = 16
HASH_BYTES = 8


def hash_identifier(identifier: str, *, key: bytes, kind: str) -> bytes:
    """HMAC-SHA256 of `kind` and `identifier`, cut to eight bytes.

    Without the key nobody can test a guessed identifier against a data set; `kind` ("subject" or "record")
    keeps equal texts of different meaning apart.
    """
    if len(key) < MINIMUM_KEY_BYTES:
        raise ValueError(f"The key has {len(key)} bytes; give at least {MINIMUM_KEY_BYTES}.")
    return hmac.new(key, f"{kind}\0{identifier}".encode(), hashlib.sha256).digest()[:HASH_BYTES]


def hash_identifiers(identifiers: Iterable[str], *, key: bytes, kind: str) -> Mapping[str, bytes]:
    """Hashes distinct identifiers; raises ValueError where two of them share a hash."""
    hashes = {name: hash_identifier(name, key=key, kind=kind) for name in identifiers}
    if len(set(hashes.values())) != len(hashes):
        raise ValueError(
            f"Two of {len(hashes)} {kind} identifiers share a {8 * HASH_BYTES}-bit hash; use another key."
        )
    return hashes


def key_digest(key: bytes) -> str:
    """Names a key without giving it away, to tell whether two data sets share it."""
    return hash_identifier("", key=key, kind="key").hex()


def as_array(digest: bytes) -> UInt8[np.ndarray, "8"]:
    """The hash as a field of an example."""
    return np.frombuffer(digest, np.uint8)


def as_hex(hashes: UInt8[np.ndarray, "n 8"]) -> np.ndarray:
    """Hashes as hexadecimal text, `U16` [n]: the form of every table of results."""
    return np.array([row.tobytes().hex() for row in hashes], dtype="U16")


def read_key(path: epath.PathLike) -> bytes:
    """Reads a key file; raises ValueError where it is missing, short, or open to other users."""
    path = epath.Path(path)
    if not path.exists():
        raise ValueError(
            f"Key file {path} does not exist; name an existing one, or leave the key to be made."
        )
    if "://" not in os.fspath(path):
        mode = os.stat(path).st_mode & 0o777
        if mode & 0o077:
            raise ValueError(
                f"Key file {path} has mode {mode:04o}: other users can read it and so undo the hashes; "
                "run chmod 600 on it."
            )
    key = path.read_bytes().strip()
    if len(key) < MINIMUM_KEY_BYTES:
        raise ValueError(
            f"Key file {path} holds {len(key)} bytes; a key needs at least {MINIMUM_KEY_BYTES}. "
            "Make one with: openssl rand -hex 32"
        )
    return key


def create_key(path: epath.PathLike) -> bytes:
    """Makes a random key, writes it with mode 0600, and returns it; an existing file is never replaced."""
    key = secrets.token_hex(32).encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ValueError(f"Key file {path} exists already; a new key would change every hash.") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(key + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return key
