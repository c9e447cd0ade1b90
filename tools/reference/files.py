"""Small checkpoint files written by the packages that define the formats, and what is in them.

Run from the repository root: python tools/reference/files.py
Needs safetensors, gguf, torch. Writes tests/golden/files/: types.safetensors and types.gguf with a tensor of every element type,
and types.json: for each file its tensors (name → type as the format spells or numbers it, shape, bytes in hexadecimal) and metadata.
"""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from safetensors import safe_open
from safetensors.torch import save_file

FOLDER = Path("tests/golden/files")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn,
          "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
          "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool}  # fmt: skip
PLAIN = [np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8]
BLOCKS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]


def entry(kind, shape, data):
    return {"type": kind, "shape": list(shape), "bytes": bytes(data).hex()}


def safetensors_file():
    path = FOLDER / "types.safetensors"
    numbers = torch.arange(6).reshape(2, 3)
    tensors = {kind: numbers.to(dtype) for kind, dtype in DTYPES.items()}
    tensors |= {"a scalar": torch.tensor(1.5), "no elements": torch.ones(0, 5), "é/猫 \"quoted\"": torch.ones(1, 2, 1, 3, 1)}
    metadata = {"note": "two\nlines, ½ 🙂"}  # the package writes several in random order
    save_file(tensors, path, metadata)
    with safe_open(path, "pt") as stored:  # what the package itself reads
        names = {name: stored.get_slice(name).get_dtype() for name in stored.keys()}
        contents = {name: entry(kind, tensors[name].shape, tensors[name].contiguous().flatten().view(torch.uint8).numpy())
                    for name, kind in names.items()}
        return {"tensors": contents, "metadata": stored.metadata()}


def gguf_file():
    path = FOLDER / "types.gguf"
    writer = gguf.GGUFWriter(path, "flux")
    metadata = {"general.architecture": "flux", "text": "two\nlines, ½ 🙂", "u8": "255", "i8": "-128", "u16": "65535", "i16": "-32768",
                "u32": "4294967295", "i32": "-2147483648", "u64": str(2**64 - 1), "i64": str(-2**63), "f32": "0.5", "f64": "1e+300",
                "yes": "true", "general.alignment": "64"}
    writer.add_string("text", metadata["text"])
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        key = name.replace("uint", "u").replace("int", "i")
        getattr(writer, f"add_{name}")(key, int(metadata[key]))
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", 1e300)
    writer.add_bool("yes", True)
    writer.add_array("texts", ["one", "two"])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_custom_alignment(64)
    contents = {}
    for dtype in PLAIN:
        data = np.arange(6).astype(dtype).reshape(2, 3)
        add(writer, contents, np.dtype(dtype).name, data, None)
    add(writer, contents, "bf16", np.full((3, 2), 0x3F80, np.uint16).view(np.uint8).reshape(3, 4), GGMLQuantizationType.BF16)
    for kind in BLOCKS:
        size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1]
        add(writer, contents, kind, np.arange(2 * size, dtype=np.uint8).reshape(2, size), GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for tensor in gguf.GGUFReader(path).tensors:  # what the package itself reads
        contents[tensor.name] |= {"type": int(tensor.tensor_type), "shape": [int(n) for n in tensor.shape[::-1]]}
    return {"tensors": contents, "metadata": metadata}


def add(writer, contents, name, data, kind):
    writer.add_tensor(name, data, raw_dtype=kind)
    contents[name] = {"bytes": data.tobytes().hex()}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    contents = {"types.safetensors": safetensors_file(), "types.gguf": gguf_file()}
    (FOLDER / "types.json").write_text(json.dumps(contents, ensure_ascii=False, indent=1))
