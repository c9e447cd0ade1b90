"""Seeds of the fuzz targets: small valid files of every kind, written by the programs that define the formats.

Run from the repository root: python tools/reference/fuzz_seeds.py
Needs safetensors, gguf, sentencepiece, pillow, torch. Writes tests/fuzz/corpus/<target>/ and, words for libFuzzer to
insert, tests/fuzz/dictionaries/<target>.dict. Inputs that a fuzz run found are kept in the corpus too, under names that
start with "found_", and are left alone.
"""

import base64
import io
import json
import random
import struct
import tempfile
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save
from sentencepiece import sentencepiece_model_pb2

CORPUS, DICTIONARIES = Path("tests/fuzz/corpus"), Path("tests/fuzz/dictionaries")
rng = random.Random(3)


def write(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


def dictionary(target, words):
    DICTIONARIES.mkdir(exist_ok=True)
    plain = set(range(0x20, 0x7F)) - set(b'"\\')  # libFuzzer knows no other escape than \xHH here
    lines = ["".join(chr(b) if b in plain else f"\\x{b:02x}" for b in word.encode()) for word in sorted(set(words))]
    (DICTIONARIES / f"{target}.dict").write_text("".join(f'"{line}"\n' for line in lines))


# ------------------------------------------------------------------------------------------------------- checkpoints

DTYPES = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U8", "BOOL", "F4"]
HEADER_WORDS = ['"dtype":"', '"shape":[', '"data_offsets":[', "__metadata__", "9223372036854775807", "18446744073709551615",
                "-1", "1e3", "[0,0]", *DTYPES]



def safetensors():
    every_type = {str(dtype)[6:]: torch.ones(2, 3).to(dtype)
                  for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
                                torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)}
    write("safetensors", "types", save(every_type))
    write("safetensors", "shapes", save({"scalar": torch.ones([]), "none": torch.ones(0, 5), "é/猫": torch.ones(1, 2, 3, 4)},
                                        {"note": "a \"quoted\" line\n"}))
    write("safetensors", "nothing", save({}))
    for name, header in {"unpadded": '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
                         "escapes": r'{"\u00e9\ud83d\ude42":{"shape":[],"data_offsets":[0,1],"dtype":"U8"}}'}.items():
        write("safetensors", name, struct.pack("<Q", len(header)) + header.encode() + b"\7")
    dictionary("safetensors", HEADER_WORDS)


LAYOUTS = {
    "bfl": ["img_in.weight", "img_in.bias", "time_in.in_layer.weight", "double_blocks.0.img_attn.qkv.weight",
            "double_blocks.0.img_attn.norm.key_norm.scale", "single_blocks.10.linear1.bias", "final_layer.linear.weight",
            "final_layer.adaLN_modulation.1.weight"],
    "diffusers": ["x_embedder.weight", "transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn.to_k.weight",
                  "transformer_blocks.0.attn.to_v.weight", "single_transformer_blocks.0.attn.norm_q.weight", "proj_out.bias",
                  "norm_out.linear.weight"],
    "comfy": ["model.diffusion_model.img_in.weight", "vae.decoder.up.3.block.0.conv1.weight", "vae.encoder.mid.attn_1.q.weight",
              "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
              "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.weight", "logit_scale",
              "text_encoders.clip_l.transformer.text_model.embeddings.position_ids"],
    "vae": ["decoder.up_blocks.0.resnets.2.conv_shortcut.weight", "decoder.up_blocks.3.upsamplers.0.conv.bias",
            "encoder.down_blocks.1.downsamplers.0.conv.weight", "decoder.mid_block.attentions.0.to_out.0.weight", "quant_conv.weight"],
    "t5": ["shared.weight", "encoder.embed_tokens.weight", "enc.blk.0.attn_rel_b.weight", "enc.output_norm.weight",
           "encoder.block.1.layer.1.DenseReluDense.wi_0.weight"],
    "fp8": ["double_blocks.0.img_mlp.0.weight", "double_blocks.0.img_mlp.0.scale_weight", "scaled_fp8"],
}


def tensor_names():
    for layout, names in LAYOUTS.items():
        scale = {name: torch.ones([]) for name in names if name.endswith("scale_weight")}
        tensors = {name: torch.ones(2, 2).to(torch.float8_e4m3fn) for name in names if name not in scale}
        config = {"calotype.config": '{"transformer":{"axes_dims_rope":[2,4,4]},"VAE":{"scaling_factor":0.3611}}'}
        write("tensor_index", layout, save(tensors | scale, config if layout == "bfl" else None))
        for i, name in enumerate(names):
            write("key_map", f"{layout}_{i}", name)
    every_name = [name for names in LAYOUTS.values() for name in names]
    parts = [part + "." for name in every_name for part in name.split(".")[:-1]]
    dictionary("key_map", [*parts, "weight", "bias", "scale", "999", "1000", "007"])
    dictionary("tensor_index", [*every_name, *HEADER_WORDS, ".absmax", "calotype.config"])


def gguf_files():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.gguf"
        writer = gguf.GGUFWriter(path, "flux")
        writer.add_name("a name, ½")
        writer.add_uint8("n.u8", 1)
        writer.add_int16("n.i16", -2)
        writer.add_uint64("n.u64", 2**63)
        writer.add_float32("n.f32", 0.5)
        writer.add_float64("n.f64", 1e300)
        writer.add_bool("n.bool", True)
        writer.add_array("list.texts", ["one", "two"])
        writer.add_array("list.numbers", [1, 2, 3])
        writer.add_custom_alignment(64)
        writer.add_tensor("plain", np.ones((2, 3), np.float32))
        writer.add_tensor("half", np.ones(5, np.float16))
        for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0):
            writer.add_tensor(kind.name, gguf.quants.quantize(np.ones((2, 32), np.float32), kind), raw_dtype=kind)
        writer.add_tensor("Q4_K", np.zeros((1, 144), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q4_K)
        finish(writer)
        write("gguf", "types", path.read_bytes())
        writer = gguf.GGUFWriter(path, "t5encoder")
        writer.add_tensor("enc.blk.0.attn_q.weight", np.ones((1, 1), np.float32))
        finish(writer)
        write("gguf", "small", path.read_bytes())
    write("gguf", "nothing", b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    dictionary("gguf", ["general.alignment", "\x11\0\0\0\0\0\0\0general.alignment\4\0\0\0\x40\0\0\0", "\x09\0\0\0"])


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantised():
    sizes = [8, 4, 2, 2, 1, 1, 18, 20, 22, 24, 34, 84, 110, 144, 176, 210]  # block bytes in the order of quant_fuzz.cpp
    for kind, size in enumerate(sizes):
        write("quant", f"type_{kind}", bytes([kind]) + rng.randbytes(3 * size))


# -------------------------------------------------------------------------------------------------------------- JSON


def json_files():
    index = {"metadata": {"total_size": 24}, "weight_map": {"x_embedder.weight": "a-00001-of-00002.safetensors",
                                                            "proj_out.bias": "a-00002-of-00002.safetensors"}}
    write("shard_index", "usual", json.dumps(index, indent=2))
    for name, shard in {"absolute": "/etc/passwd", "up": "../a.safetensors", "inside": "b/a.safetensors", "dots": ".."}.items():
        write("shard_index", name, json.dumps({"weight_map": {"t": shard}}))
    write("config_json", "transformer", json.dumps({"_class_name": "FluxTransformer2DModel", "axes_dims_rope": [16, 56, 56],
                                                    "guidance_embeds": False, "num_layers": 19, "out_channels": None}))
    write("config_json", "numbers", '{"a": [0, -0, 1e-9, 18446744073709551615, -9223372036854775808, 0.3611], "b": "\\u00e9\\ud83d\\ude42"}')
    write("config_json", "deep", '{"a":' * 30 + "1" + "}" * 30)


# --------------------------------------------------------------------------------------------------------- tokenizers

SPECIAL = ["<|startoftext|>", "<|endoftext|>"]
MERGES = [["c", "a"], ["ca", "t</w>"], ["p", "h"], ["ph", "o"], ["Ġ", "a"]]


def clip_files():
    symbols = [c + end for c in "abcdefghijklmnopqrstuvwxyz0123456789!'Ġ½" for end in ("", "</w>")]
    texts = symbols + ["".join(merge) for merge in MERGES] + SPECIAL
    vocab = {text: i for i, text in enumerate(texts)}
    added = [{"id": vocab[text], "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": text == SPECIAL[0], "special": True} for text in SPECIAL]
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer = {
        "version": "1.0", "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": SPECIAL[1], "continuing_subword_prefix": "",
                  "end_of_word_suffix": "</w>", "fuse_unk": False, "vocab": vocab, "merges": MERGES}}
    write("clip_json", "usual", json.dumps(tokenizer, ensure_ascii=False))
    tokenizer["model"]["merges"] = [" ".join(merge) for merge in MERGES]
    write("clip_json", "old_merges", json.dumps(tokenizer))
    merges = "#version: 0.2\n" + "".join(" ".join(merge) + "\n" for merge in MERGES)
    config = {"bos_token": {"content": SPECIAL[0]}, "eos_token": SPECIAL[1], "pad_token": "!", "unk_token": SPECIAL[1],
              "added_tokens_decoder": {str(token["id"]): token for token in added}}
    small = json.dumps(vocab, ensure_ascii=False)
    write("clip_merges", "usual", "\0".join([small, merges, json.dumps(config)]))
    words = [json.dumps(word) for word in (
        "added_tokens", "content", "normalized", "single_word", "lstrip", "id", "model", "vocab", "merges", "dropout", "unk_token",
        "end_of_word_suffix", "byte_fallback", "bos_token", "pad_token", "added_tokens_decoder", "Sequence", "ByteLevel")]
    dictionary("clip_json", [*words, *SPECIAL, "true", "null", "4000000", "1e308"])
    dictionary("clip_merges", [*words, *SPECIAL, "</w>", "#version: 0.2\n", "true", "null"])
    write("clip_merges", "no_config", "\0".join([small, merges.replace("\n", "\r\n"), ""]))


def t5_files():
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.tsv"
        rules.write_text("FB01\t66 69\nBD\t31 2044 32\nFF0F\t2F\nFF1C\t3C\n41\t61\n65 301\tE9\n")
        words = ["a photo of a cat", "the old lighthouse at dusk", "one glass teapot"] * 5
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(words), model_prefix=f"{folder}/t5", vocab_size=28, model_type="unigram", pad_id=0, eos_id=1,
            unk_id=2, bos_id=-1, normalization_rule_tsv=str(rules), user_defined_symbols=["<extra_id_0>"], minloglevel=2)
        model = Path(folder, "t5.model").read_bytes()
    parsed = sentencepiece_model_pb2.ModelProto.FromString(model)
    parsed.trainer_spec.ClearField("model_prefix")  # the temporary folder
    parsed.normalizer_spec.ClearField("normalization_rule_tsv")
    write("spiece", "usual", parsed.SerializeToString())
    charsmap = parsed.normalizer_spec.precompiled_charsmap
    parsed.normalizer_spec.precompiled_charsmap = b""
    write("spiece", "no_map", parsed.SerializeToString())
    tokenizer = {
        "added_tokens": [{"id": i, "content": text, "normalized": False, "special": True} for i, text in enumerate(["<pad>", "</s>", "<unk>"])],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}]},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": [[piece.piece, piece.score] for piece in parsed.pieces], "byte_fallback": False}}
    write("t5_json", "usual", json.dumps(tokenizer, ensure_ascii=False))
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Strip"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]}
    write("t5_json", "no_map", json.dumps(tokenizer))
    dictionary("t5_json", [json.dumps(word) for word in (
        "added_tokens", "content", "normalized", "rstrip", "id", "model", "vocab", "unk_id", "Unigram", "Precompiled", "Strip", "Replace",
        "precompiled_charsmap", "Metaspace", "WhitespaceSplit", "prepend_scheme", "byte_fallback")] + ["true", "null", "-1e308", "</s>"])


PROMPTS = ["a photo of a cat", "don't STOP, it's 2nd!!", "<|startoftext|><|ENDOFTEXT|></s><extra_id_0><lora:x:1>", "👩🏽‍🚀 ﬁ ½ ﷺ İ ẞ", "e\u0323\u0301 \u0301\u0301 가각",
           "\x00\x01\x1b[31m\x7f\u202e\ufeff", "一只猫 ＜/s＞ ▁a▁b  c\u3000d", "\U0001d518\U0010fffd\ue000\uffff"]


def prompts():
    for i, prompt in enumerate(PROMPTS):
        write("prompt", f"text_{i}", prompt)
    for i, broken in enumerate([b"a\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"caf\xe9", b"\xe7\x8c"]):
        write("prompt", f"broken_{i}", broken)
    write("prompt_file", "lines", "\n".join(PROMPTS))
    write("prompt_file", "windows", b"\xef\xbb\xbf" + "a cat\r\n\r\n \t\r\ntwo dögs\r\n".encode())
    write("prompt_file", "utf16", "a cat\n".encode("utf-16"))
    write("prompt_file", "latin1", "one\ncaf\xe9\n".encode("latin-1"))


# ----------------------------------------------------------------------------------------------------------- pictures


def pictures():
    noise = np.random.default_rng(5).integers(0, 256, (7, 9, 4), np.uint8)
    rgba, rgb = Image.fromarray(noise), Image.fromarray(noise[:, :, :3])
    exif = Image.Exif()
    exif[0x0112] = 6
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", "a café")
    texts.add_text("packed", "la " * 50, zip=True)
    texts.add_itxt("emoji", "灯台 🗼", "ja", "絵", zip=True)
    for name, picture, options in [
            ("rgb.png", rgb, {"pnginfo": texts}), ("rgba.png", rgba, {}), ("grey.png", rgb.convert("L"), {}), ("palette.png", rgb.quantize(5), {}),
            ("bits.png", rgb.convert("1"), {}), ("grey16.png", Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257), {}), ("turned.png", rgb, {"exif": exif}),
            ("base.jpeg", rgb, {}), ("progressive.jpeg", rgb, {"progressive": True, "exif": exif}), ("grey.jpeg", rgb.convert("L"), {}),
            ("cmyk.jpeg", rgb.convert("CMYK"), {}), ("lossy.webp", rgb, {}), ("lossless.webp", rgba, {"lossless": True, "exif": exif}),
            ("moving.webp", rgb, {"save_all": True, "append_images": [rgb.rotate(180)]})]:
        out = io.BytesIO()
        picture.save(out, name.split(".")[1], **options)
        write("picture", name, out.getvalue())
        if name in ("rgb.png", "turned.png"):
            write("png", name, out.getvalue())


if __name__ == "__main__":
    for old in CORPUS.glob("*/*"):
        if not old.name.startswith("found_"):
            old.unlink()
    for make in (safetensors, tensor_names, gguf_files, quantised, json_files, clip_files, t5_files, prompts, pictures):
        make()
