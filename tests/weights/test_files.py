import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from ecgjax.weights.files import read_safetensors, read_torch, write_safetensors, write_torch
from ecgjax.weights.objects import Record

PROTO, STOP = b"\x80\x02", b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key="0", elements=4, cls=b"ctorch\nFloatStorage\n") -> bytes:
    return b"(" + text("storage") + cls + text(key) + text("cpu") + number(elements) + b"tQ"


def tensor(*, size=(4,), stride=(1,), offset=0, **options) -> bytes:
    rest = b"\x89ccollections\nOrderedDict\n)R"
    parts = storage(**options) + number(offset) + numbers(*size) + numbers(*stride) + rest
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + parts + b"tR"


def state(content: bytes, name="w") -> bytes:
    return b"}" + text(name) + content + b"s"


def write_zip(path, body: bytes, *, records=None, compression=zipfile.ZIP_STORED, root="archive/", **members):
    """A zip as torch.save lays it out; `body` are the opcodes between protocol and stop."""
    records = {"0": np.arange(4, dtype="<f4").tobytes()} if records is None else records
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{root}data.pkl", PROTO + body + STOP)
        for key, content in records.items():
            archive.writestr(f"{root}data/{key}", content)
        for name, content in members.items():
            archive.writestr(f"{root}{name}", content)
    return path


def refused(path, message):
    with pytest.raises(ValueError, match=message):
        read_torch(path)


def test_a_tensor_is_read_by_offset_and_stride(tmp_path):
    content = np.arange(12, dtype="<f4")
    body = state(tensor(elements=12, offset=1, size=(2, 3), stride=(1, 4)))
    got = read_torch(write_zip(tmp_path / "a.pth", body, records={"0": content.tobytes()}))["w"]
    np.testing.assert_array_equal(got, [[1, 5, 9], [2, 6, 10]])
    assert got.dtype == np.float32
    assert not got.flags.writeable


def test_storages_may_be_shared(tmp_path):
    body = b"}" + text("a") + tensor() + b"s" + text("b") + tensor(size=(2,), offset=2) + b"s"
    tree = read_torch(write_zip(tmp_path / "a.pth", body))
    np.testing.assert_array_equal(tree["b"], tree["a"][2:])
    assert np.shares_memory(tree["a"], tree["b"])


@pytest.mark.parametrize(
    ("cls", "stored"),
    [("Double", "<f8"), ("Half", "<f2"), ("Long", "<i8"), ("Int", "<i4"), ("Char", "i1"), ("Bool", "?")],
)
def test_every_number_type(tmp_path, cls, stored):
    values = np.array([0, 1, 1, 0], stored)
    body = state(tensor(cls=f"ctorch\n{cls}Storage\n".encode()))
    got = read_torch(write_zip(tmp_path / "a.pth", body, records={"0": values.tobytes()}))["w"]
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got, values)


def test_bfloat16_becomes_float32(tmp_path):
    values = np.array([1.0, -2.5, 3.140625, 0.0], np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    body = state(tensor(cls=b"ctorch\nBFloat16Storage\n"))
    got = read_torch(write_zip(tmp_path / "a.pth", body, records={"0": upper}))["w"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, values)


def test_big_endian_files_are_read(tmp_path):
    records = {"0": np.arange(4, dtype=">f4").tobytes()}
    got = read_torch(write_zip(tmp_path / "a.pth", state(tensor()), records=records, byteorder=b"big"))["w"]
    np.testing.assert_array_equal(got, np.arange(4))
    assert got.dtype == np.float32
    refused(write_zip(tmp_path / "b.pth", state(tensor()), byteorder=b"middle"), "expected little or big")


def test_settings_come_back_as_records_that_do_nothing(tmp_path):
    body = state(b"cargparse\nNamespace\n)\x81" + state(numbers(1, 12, 2500), "input_size") + b"b", "args")
    got = read_torch(write_zip(tmp_path / "a.pth", body))["args"]
    assert got == Record("argparse.Namespace", (), {"input_size": (1, 12, 2500)})


def test_dunder_names_in_the_state_of_a_record_stay_plain_entries(tmp_path):
    fields = b"}" + text("__class__") + text("evil") + b"s" + text("__setstate__") + b"Ns"
    body = state(b"cargparse\nNamespace\n)\x81" + fields + b"b", "args")
    got = read_torch(write_zip(tmp_path / "a.pth", body))["args"]
    assert type(got) is Record
    assert got.fields == {"__class__": "evil", "__setstate__": None}


def _routes(flag):
    """Pickles that would create the file `flag`, one for every opcode that calls."""
    command = text(f"touch {flag}")
    yield "REDUCE", b"cos\nsystem\n(" + command + b"tR"
    yield "STACK_GLOBAL", text("posix") + text("system") + b"\x93(" + command + b"tR"
    yield "builtins", b"cbuiltins\neval\n(" + text(f"open({str(flag)!r}, 'w')") + b"tR"
    yield "INST", b"(" + command + b"ios\nsystem\n"
    yield "OBJ", b"(cos\nsystem\n" + command + b"o"
    yield "NEWOBJ", b"csubprocess\nPopen\n(" + command + b"t\x81"
    yield "NEWOBJ_EX", b"csubprocess\nPopen\n(" + command + b"t}\x92"
    yield "BUILD", b"cargparse\nNamespace\n)\x81cos\nsystem\nb"
    yield "EXT1", b"\x82\x01(" + command + b"tR"
    yield "PERSID", b"Pposix system\n"
    yield "call of a record", b"cargparse\nNamespace\n)\x81(" + command + b"tR"
    yield "call of a text", text("os.system") + b"(" + command + b"tR"
    yield "getattr", b"cbuiltins\ngetattr\n(cargparse\nNamespace\n" + text("__init__") + b"tR"
    yield "dotted name", b"cargparse\nNamespace.__init__.__globals__\n"
    yield "numpy", b"cnumpy.core.multiarray\n_reconstruct\n(" + command + b"tR"
    yield "load_from_bytes", b"ctorch.storage\n_load_from_bytes\n(" + command + b"tR"
    yield "called type", b"cbuiltins\nlist\n(" + command + b"tR"
    yield "factory", b"ccollections\ndefaultdict\n(" + command + b"tR"


@pytest.mark.parametrize("name", [name for name, _ in _routes("x")])
def test_no_route_of_a_pickle_runs_anything(tmp_path, name):
    flag = tmp_path / "flag"
    path = write_zip(tmp_path / "a.pth", state(dict(_routes(flag))[name]))
    refused(path, r"data\.pkl")
    assert not flag.exists()


def test_the_routes_are_real(tmp_path):
    """Python's own unpickler does run them, so the test above could fail."""
    flag = tmp_path / "flag"
    program = f"import pickle; pickle.loads({PROTO + dict(_routes(flag))['REDUCE'] + STOP!r})"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert flag.exists()


def test_the_error_names_the_global_the_entry_and_the_rule(tmp_path):
    path = write_zip(tmp_path / "a.pth", state(b"cos\nsystem\n(" + text("true") + b"tR"))
    refused(path, r"a\.pth: archive/data\.pkl, byte \d+: the file asks for 'os\.system'.*nothing outside")


class Foreign:
    def __reduce__(self):
        return Foreign, ()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_python_itself(tmp_path, protocol):
    tree = {
        "a": [1, (2.5, None, True), "b" * 300, {}],
        "n": -(2**40),
        "big": 2**70,
        "e": [],
        "t": (1, 2, 3, 4),
    }
    path = tmp_path / "a.pth"
    write_zip(path, pickle.dumps(tree, protocol)[2:-1])
    assert read_torch(path) == tree
    write_zip(path, pickle.dumps({"model": Foreign()}, protocol)[2:-1])
    refused(path, "Foreign")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (5,)}, "reads element 4 of 4"),
        ({"offset": 1}, "reads element 4 of 4"),
        ({"size": (2, 2), "stride": (3, 1)}, "reads element 4 of 4"),
        ({"size": (2,), "stride": (-1,), "offset": 3}, "a tensor of offset 3"),
        ({"size": (-4,)}, "a tensor of offset 0"),
        ({"offset": -1}, "a tensor of offset -1"),
        ({"size": (10**6, 10**6), "stride": (0, 0)}, "expanded view"),
        ({"size": (0, 2**40), "stride": (1, 1)}, "a tensor of size"),
        ({"size": (2**70,)}, "a tensor of offset 0"),
        ({"size": (1,) * 40, "stride": (1,) * 40}, "a tensor of offset 0"),
        ({"size": (2, 2), "stride": (1,)}, "a tensor of offset 0"),
        ({"elements": 5}, "claims 20 bytes, the file holds 16"),
        ({"elements": -1}, "claims -1 elements"),
        ({"key": "7"}, "storage 7 is missing"),
        ({"key": "../0"}, "letters and digits only"),
        ({"cls": b"ctorch\nfloat32\n"}, "storage class torch.float32 is not supported"),
        ({"cls": text("FloatStorage")}, "storage class 'FloatStorage' is not supported"),
    ],
)
def test_a_tensor_stays_within_its_storage(tmp_path, options, message):
    refused(write_zip(tmp_path / "a.pth", state(tensor(**options))), message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (state(b"(" + text("storage") + b"tQ"), "persistent id"),
        (state(text("storage") + b"Q"), "persistent id"),
        (state(storage()), "storage that belongs to no tensor"),
        (b"", "more or less than one object"),
        (b"NN", "more or less than one object"),
        (b"(", "more or less than one object"),
        (b"s", "malformed pickle"),
        (b"h\x09", "malformed pickle"),
        (b"]" + text("a") + b"Nb", "state for 'a'"),
        (b"]" + state(b"N") + b"b", "state for list"),
        (b"}Nas", "appending to dict"),
        (b"})Ns", r"key \(, \.\.\.\)"),
        (b"]q\x00h\x00a", "in a circle"),
        (b"]" * 100 + b"a" * 99, "nested deeper"),
        (number(2**200), "an integer of 201 bits"),
        (b"\x8b\xff\xff\xff\x7f", "data.pkl"),
        (b"\x8e" + b"\xff" * 7 + b"\x00", "data.pkl"),
        (b"r\xff\xff\xff\xff", "malformed pickle"),
    ],
)
def test_forged_pickles_are_refused(tmp_path, body, message):
    refused(write_zip(tmp_path / "a.pth", body), message)


def test_lists_of_lists_of_the_same_list_are_refused(tmp_path):
    """Ten to the 12th leaves in a few hundred bytes."""
    levels = (b"](" + bytes([ord("h"), i]) * 10 + b"eq" + bytes([i + 1]) for i in range(12))
    body = b"]q\x00" + b"".join(levels) + b"\x86" * 12
    refused(write_zip(tmp_path / "a.pth", body), "unrolled to more than")


def test_many_tensors_over_one_storage_are_refused(tmp_path):
    body = b"](" + tensor() * 40 + b"e"
    refused(write_zip(tmp_path / "a.pth", body), "share storages of 16")


def test_truncated_archives_are_refused_at_every_length(tmp_path):
    write_torch(tmp_path / "a.pth", {"model": {"w": np.ones(3, np.float32)}})
    content = (tmp_path / "a.pth").read_bytes()
    for length in range(0, len(content), 37):
        (tmp_path / "b.pth").write_bytes(content[:length])
        refused(tmp_path / "b.pth", "cut short|empty|not what torch.save writes")


def test_flipped_bytes_of_a_member_are_noticed(tmp_path):
    write_torch(tmp_path / "a.pth", {"w": np.full(9, 7, np.float32)})
    content = (tmp_path / "a.pth").read_bytes()
    place = content.index(np.full(9, 7, "<f4").tobytes())
    (tmp_path / "a.pth").write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    refused(tmp_path / "a.pth", "Bad CRC")


def test_a_directory_that_points_before_the_file_is_refused(tmp_path):
    content = bytearray(write_zip(tmp_path / "a.pth", state(tensor())).read_bytes())
    place = content.index(b"PK\x05\x06") + 16
    content[place : place + 4] = struct.pack("<I", struct.unpack_from("<I", content, place)[0] + 30)
    (tmp_path / "a.pth").write_bytes(content)
    refused(tmp_path / "a.pth", "cut short or damaged")


def test_compressed_members_are_read_up_to_a_ratio(tmp_path):
    noise = np.random.default_rng(0).standard_normal(4000).astype("<f4")
    body = state(tensor(elements=4000, size=(4000,)))
    options = {"compression": zipfile.ZIP_DEFLATED}
    got = read_torch(write_zip(tmp_path / "a.pth", body, records={"0": noise.tobytes()}, **options))["w"]
    np.testing.assert_array_equal(got, noise)
    refused(write_zip(tmp_path / "b.pth", body, records={"0": bytes(2**22)}, **options), "would unpack to")
    options = {"compression": zipfile.ZIP_LZMA}
    refused(write_zip(tmp_path / "c.pth", body, records={"0": b""}, **options), "compressed by method 14")


def test_a_bomb_that_lies_about_its_size_is_not_unpacked(tmp_path):
    """Central directory and local header say 16 bytes, the compressed stream holds 4 MB."""
    path = tmp_path / "a.pth"
    write_zip(path, state(tensor()), records={"0": bytes(2**22)}, compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 2**22), struct.pack("<I", 16)))
    refused(path, "cut short")


@pytest.mark.parametrize("name", ["../data/0", "/etc/passwd", "..\\x", "C:x", "a/../../b"])
def test_members_that_point_elsewhere_are_refused(tmp_path, name):
    path = write_zip(tmp_path / "a.pth", state(tensor()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"")
    refused(path, "points out of the archive")


def test_two_members_of_one_name_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.pth", state(tensor()))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data/0", bytes(16))
    refused(path, "two members are named")


def test_encrypted_members_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.pth", state(tensor()))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, "is encrypted")


def test_other_kinds_of_file_say_how_to_save_again(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2))
    refused(path, r"before version 1\.6.*torch\.save\(torch\.load\(FILE, weights_only=True\)")
    path.write_bytes(b"\x93NUMPY")
    refused(path, "not what torch.save writes")
    refused(
        write_zip(path, state(tensor()), **{"constants.pkl": b"", "code/x.py": b""}), "TorchScript program"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", b"")
    refused(path, r"without one data\.pkl")
    module = b"ctorch.nn.modules.linear\nLinear\n)\x81}b"
    refused(write_zip(path, module), r"modules\.linear\.Linear.*torch\.save\(model\.state_dict\(\), FILE\)")


TREE = {
    "model": {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "scalar": np.array(7),
        "empty": np.zeros((0, 3), np.float64),
        "half": np.array([1.5, -2], np.float16),
        "flags": np.array([True, False]),
    },
    "epoch": 399,
    "args": {"text": "ä", "list": [1, (2, 3.5), None, True, -(2**31) - 1, 2**40], "1": {}},
}


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    return type(a) is type(b) and a == b


def test_what_is_written_is_read_back(tmp_path):
    write_torch(tmp_path / "a.pth", TREE)
    assert equal(read_torch(tmp_path / "a.pth"), TREE)
    first = (tmp_path / "a.pth").read_bytes()
    write_torch(tmp_path / "a.pth", TREE)
    assert (tmp_path / "a.pth").read_bytes() == first


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array(["a"]), np.ones(2, np.complex64)])
def test_what_torch_cannot_hold_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match=r"no place in a file of weights|torch files take"):
        write_torch(tmp_path / "a.pth", {"w": value})
    assert not (tmp_path / "a.pth").exists()


def test_torch_reads_what_is_written_and_the_reverse(tmp_path):
    torch = pytest.importorskip("torch")
    write_torch(tmp_path / "a.pth", TREE)
    read = torch.load(tmp_path / "a.pth", weights_only=True)
    for name, want in TREE["model"].items():
        np.testing.assert_array_equal(read["model"][name].numpy(), want)
    assert read["args"] == TREE["args"]
    import argparse

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimiser.step()
    args = argparse.Namespace(input_size=(1, 12, 2500), lr=np.float64(0.5))
    saved = {"model": model.state_dict(), "optimizer": optimiser.state_dict(), "args": args}
    saved |= {"brain": torch.full((2,), 1.5, dtype=torch.bfloat16), "p": torch.nn.Parameter(torch.ones(2))}
    torch.save(saved, tmp_path / "b.pth")
    got = read_torch(tmp_path / "b.pth")
    for name, want in model.state_dict().items():
        np.testing.assert_array_equal(got["model"][name], want.numpy())
    assert got["args"].fields == {"input_size": (1, 12, 2500), "lr": 0.5}
    np.testing.assert_array_equal(
        got["optimizer"]["state"][0]["exp_avg"], optimiser.state_dict()["state"][0]["exp_avg"]
    )
    np.testing.assert_array_equal(got["brain"], [1.5, 1.5])
    np.testing.assert_array_equal(got["p"], [1, 1])


def test_safetensors_both_ways(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", TREE["model"], metadata={"made by": "test"})
    assert equal(read_safetensors(tmp_path / "a.safetensors"), TREE["model"])
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged"):
        read_safetensors(tmp_path / "b.safetensors")


def test_bfloat16_of_safetensors_becomes_float32(tmp_path):
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    values = np.array([1.5, -2], np.float32)
    body = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + body)
    np.testing.assert_array_equal(read_safetensors(tmp_path / "a.safetensors")["w"], values)


def test_without_the_library_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ValueError, match=r"pip install ecgjax\[torch\]"):
        read_safetensors(tmp_path / "a.safetensors")


def test_reading_needs_no_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    write_torch(tmp_path / "a.pth", TREE)
    assert equal(read_torch(tmp_path / "a.pth"), TREE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]  # Nothing is unpacked.
