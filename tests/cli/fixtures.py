"""What cases need in their fresh folder: damaged copies of the tiny models of tests/data. Each maker takes the folder, the project's root
and the words of the case's `make:` line."""
import json
import pathlib
import shutil
import struct


def read_safetensors(path):
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + n]), data[8 + n:]


def write_safetensors(path, header, body):
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def copy(folder, root, model, name=None):
    """copy MODEL [NAME]: a writable copy of a tiny model."""
    target = folder / (name or model)
    shutil.copytree(root / "tests/data/tiny" / model, target)
    for path in target.iterdir():
        path.chmod(0o644)
    return target


def truncated(folder, root, model, size):
    """truncated MODEL SIZE: model.safetensors cut to SIZE bytes; negative: so many bytes off its end."""
    path = copy(folder, root, model) / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:int(size)])


def garbage_header(folder, root, model):
    path = copy(folder, root, model) / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(struct.pack("<Q", 1 << 60) + data[8:])


def reshaped(folder, root, model, tensor, *shape):
    """reshaped MODEL TENSOR N...: the header says another shape of the same number of elements or not."""
    path = copy(folder, root, model) / "model.safetensors"
    header, body = read_safetensors(path)
    header[tensor]["shape"] = [int(n) for n in shape]
    write_safetensors(path, header, body)


def swapped_shape(folder, root, model, tensor):
    """swapped_shape MODEL TENSOR: its two dimensions exchanged; as many bytes as before."""
    path = copy(folder, root, model) / "model.safetensors"
    header, body = read_safetensors(path)
    header[tensor]["shape"].reverse()
    write_safetensors(path, header, body)


def without_tensor(folder, root, model, tensor):
    path = copy(folder, root, model) / "model.safetensors"
    header, body = read_safetensors(path)
    first, last = header[tensor]["data_offsets"]
    del header[tensor]
    for name, entry in header.items():
        if name != "__metadata__" and entry["data_offsets"][0] >= last:
            entry["data_offsets"] = [x - (last - first) for x in entry["data_offsets"]]
    write_safetensors(path, header, body[:first] + body[last:])


def extra_tensor(folder, root, model, tensor):
    path = copy(folder, root, model) / "model.safetensors"
    header, body = read_safetensors(path)
    header[tensor] = {"dtype": "F32", "shape": [2], "data_offsets": [len(body), len(body) + 8]}
    write_safetensors(path, header, body + bytes(8))


def dtype(folder, root, model, tensor, word):
    path = copy(folder, root, model) / "model.safetensors"
    header, body = read_safetensors(path)
    header[tensor]["dtype"] = word
    write_safetensors(path, header, body)


def poisoned(folder, root, model, tensor, value):
    """poisoned MODEL TENSOR nan|inf: its last element."""
    path = copy(folder, root, model) / "model.safetensors"
    header, body = read_safetensors(path)
    last = header[tensor]["data_offsets"][1]
    write_safetensors(path, header, body[:last - 4] + struct.pack("<f", float(value)) + body[last:])


def config(folder, root, model, key, value, name=None):
    """config MODEL KEY VALUE: one key of config.json as JSON; VALUE `-` removes it. The model is copied when it is not there yet."""
    target = folder / (name or model)
    if not target.exists():
        copy(folder, root, model, name)
    path = target / "config.json"
    content = json.loads(path.read_text())
    if value == "-":
        del content[key]
    else:
        content[key] = json.loads(value)
    path.write_text(json.dumps(content, indent=2))


def sharded(folder, root, model, lost=None):
    """sharded MODEL [LOST]: two shards and an index; shard number LOST is missing."""
    target = copy(folder, root, model)
    header, body = read_safetensors(target / "model.safetensors")
    header.pop("__metadata__", None)
    (target / "model.safetensors").unlink()
    names = sorted(header)
    index = {}
    for n, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{n}-of-00002.safetensors"
        shard, data = {}, b""
        for name in part:
            first, last = header[name]["data_offsets"]
            shard[name] = dict(header[name], data_offsets=[len(data), len(data) + last - first])
            data += body[first:last]
            index[name] = file
        if str(n) != lost:
            write_safetensors(target / file, shard, data)
    (target / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def gguf(folder, root, size="all", name="cut.gguf"):
    """gguf SIZE [NAME]: a small well-formed GGUF of one tensor without what makes it a model, cut to SIZE bytes."""
    def text(s):
        return struct.pack("<Q", len(s)) + s.encode()
    data = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    data += text("general.architecture") + struct.pack("<I", 8) + text("nosuch")
    data += text("token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 2, 0, 0)
    data += bytes(-len(data) % 32) + bytes(32)
    (folder / name).write_bytes(data if size == "all" else data[:int(size)])


def cut_file(folder, root, name, size):
    """cut_file NAME SIZE: a file that is already in the folder loses its end."""
    path = folder / name
    path.write_bytes(path.read_bytes()[:int(size)])


def bytes_file(folder, root, name, hexadecimal):
    (folder / name).write_bytes(bytes.fromhex(hexadecimal))


def executable(folder, root, name):
    (folder / name).chmod(0o755)


def templates(folder, root, name):
    """templates NAME: writable copies of the templates that are compiled in."""
    shutil.copytree(root / "configs/arch", folder / name)
    for path in (folder / name).iterdir():
        path.chmod(0o644)


MAKERS = {f.__name__: f for f in (copy, truncated, garbage_header, reshaped, swapped_shape, without_tensor, extra_tensor, dtype, poisoned,
                                  config, sharded, gguf, cut_file, bytes_file, executable, templates)}
