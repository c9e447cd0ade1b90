"""Golden token ids for tests/text/tokenizer_test.cpp, by transformers' CLIPTokenizer and T5TokenizerFast.

Run from the repository root: python tools/reference/tokens.py
Needs transformers, tokenizers, sentencepiece and protobuf. Writes below tests/golden/:
  tokens.jsonl          one text a line with its ids (real vocabularies, models/tokenizers); long results as a digest
  tokens_unicode.txt    a digest for each 256 code points
  tokens_clip_small/    a CLIP tokenizer of about 300 merges without the byte of emoji, as vocab.json + merges.txt and as
                        the tokenizer.json that transformers saves
  tokens_t5_small/      a SentencePiece model trained here, as spiece.model and as tokenizer.json
  tokens_t5_plain/      T5Tokenizer(vocab=…) as saved: no character map
  tokens_small.jsonl    texts and ids for these three
"""

import json
import logging
import random
from pathlib import Path

import sentencepiece
from transformers import AddedToken, CLIPTokenizer, T5TokenizerFast

logging.disable(logging.WARNING)

MODELS, GOLDEN = Path("models/tokenizers"), Path("tests/golden")
rng = random.Random(20)
BOS, EOS = "<|startoftext|>", "<|endoftext|>"

SUBJECTS = """a red fox|an old fisherman|two astronauts|a glass teapot|the Eiffel Tower|a cyberpunk street market
a Persian cat wearing a tiny hat|an abandoned lighthouse|a bowl of ramen|Baba Yaga's hut|a 1967 Mustang
a woman in a kimono|a portrait of Ada Lovelace|a T-rex skeleton|a dew-covered spider web|an iguana""".replace("\n", "|").split("|")
PLACES = "in the snow|on Mars|at sunset|under water|in a neon-lit alley|by the sea|inside a cathedral|at 5:30 a.m.".split("|")
STYLES = """oil painting|35mm film photo, f/1.8, ISO 400|Studio Ghibli style|ukiyo-e woodblock print|8k, ultra-detailed
isometric 3D render|charcoal sketch|low-poly|art nouveau poster|(masterpiece:1.2), best quality|--ar 16:9 --v 6""".replace("\n", "|").split("|")
SENTENCES = """The light falls through tall windows and paints long stripes on the dusty floor.|Nobody has been here for years.
In the foreground, a wooden table carries a chipped cup, three pears and a letter that was never sent.
"Don't touch it," she whispers; he's already holding the key.|Everything is quiet, except for the rain — and the clock.
The colour palette is muted: ochre, slate grey, faded teal (#2f6f73) and a single spot of vermilion.
A sign on the wall reads “OPEN 24/7 – CASH ONLY”.|Shot from below, wide angle, with shallow depth of field.""".replace("\n", "|").split("|")

BY_HAND = [
    "", " ", "\n", "\t\r\n ", "a", "A", "photo", "a photo of a cat", "A painting of a squirrel eating a burger",
    "translate English to German: The house is wonderful.", "it's the dog's 2nd ball!!", "IT'S THE DOG'S 2ND BALL!!",
    "you're, we've, I'm, they'll, he'd, can't, 'tis, rock 'n' roll, y'all'd've", "''s 's' s's '''ll'", "it’s ‘quoted’ “text”",
    "e.g. 3.14159, 1,000,000 & 50% off @ $9.99!", "007 ½ ¼ ² ³ ① Ⅷ ٣ ३ 三 𝟘𝟙 ⅞ 1e-5 0xFF", "…—–‐-_=+*/\\|~`^°§¶†‡•", "?!?!?! ... ,,, ;;; ::: ---",
    "<lora:x:1>", "<lora:add_detail:0.8> masterpiece", "<sd_cpp_extra_args>{\"seed\":1}</sd_cpp_extra_args>", "[from:to:0.5] (a:1.3) {b|c} BREAK AND",
    "<|startoftext|>", "<|endoftext|>", "a<|startoftext|>b<|endoftext|>c", "<|STARTOFTEXT|>x<|ENDOFTEXT|>y", "<|EndOfText|>!!", "!!<|ENDOFTEXT|>",
    "<|endoftext|", "|endoftext|>", "< |endoftext|>", "<<|endoftext|>>", "<|startoftext|><|startoftext|>", "<|start\u200boftext|>",
    "</s>", "a</s>b", "<pad>", "<unk>", "<s>", "<extra_id_0>", "<extra_id_99> x <extra_id_100>", "<extra_id_", "<EXTRA_ID_0>", "＜/s＞ ＜pad＞ ＜unk＞", "</s></s> </s>",
    "▁", "a▁b", "▁▁a ▁ b▁", "##ing @@x</w> Ġword Ċ", "  leading and trailing  ", "a  b   c\u3000d\u00a0e\u2003f\u202fg\u205fh\u1680i",
    "line one\nline two\r\nline three\u2028four\u2029five\u0085six\x0bseven\x0ceight", "zero\u200bwidth\u200c\u200djoin\u2060er\ufeff", "soft\u00adhyphen",
    "\x00", "a\x00b", "\x00\x00 \x00", "\x01\x02\x03 bell\x07 esc\x1b[31m del\x7f \x80\x9f", "🙂", "😀😃😄 😁", "👩‍🚀", "👩🏽‍🚀 👨‍👩‍👧‍👦 🧑🏿‍🤝‍🧑🏻", "🇩🇪🇫🇷🇯🇵🇺", "1️⃣ #️⃣ ❤️‍🔥 ✈️ ☕︎",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "cat🐈dog🐕 fire🔥🔥🔥", "一只猫的照片", "東京の夜景、雨、ネオン", "서울의 밤, 한글 간판", "中文 and English 混合 text 123", "ｆｕｌｌｗｉｄｔｈ　ＡＢＣ１２３！", "ｶﾞｷﾞｸﾞ ﾊﾟﾋﾟ がぎ か\u3099",
    "صورة قطة تجلس على الطاولة", "صُورَةٌ لِقِطَّة", "ﷺ ﷽ ﻻ", "תמונה של חתול", "שָׁלוֹם", "\u202eright to left\u202c \u200fmark", "एक बिल्ली की तस्वीर", "क्षत्रिय ज्ञान हिन्दी क़ड़", "ภาพถ่ายของแมวกำลังนั่ง", "বিড়ালের ছবি", "பூனையின் படம்", "ფოტო ᲙᲐᲢᲐ",
    "Фотография кошки ЁЖИК", "Φωτογραφία ΑΣ ΣΑΣ ς", "İstanbul ıI ISPARTA", "ẞ ß SS straße", "Ǆ ǅ ǆ Ŋ Ω Å K", "Ⓐⓐ ℌ ℕ ™ ℡ № ㎏ ㋿", "ﬁ ﬂ ﬃ ﬅ Ĳ ŉ", "café cafe\u0301 CAFE\u0301", "e\u0301\u0323 e\u0323\u0301 \u0344 \u1e69 s\u0323\u0307",
    "ﬁ\u0301x ½\u0301 A\u030a\u0301 ①\u20dd", "Z̸̡̢̛̗̘̙̜a̸̧̛l̵̨̛g̶̢̛o̴̧", "\u1100\u1161\u11a8 \uac00\u11a8 \uac00\u11a7", "\ue000\uf8ff\U000f0000\U0010fffd", "\ufffe\uffff\ufffd\U0001fffe", "𝔊𝔬𝔱𝔥𝔦𝔠 𝒮𝒸𝓇𝒾𝓅𝓉 𝕯", "𓀀𓁐 𐎀 𒀀 𠀀𪚥", "Việt Nam Tiếng Việt", "naïve coöperate façade Señor Łódź žluťoučký kůň",
    "http://example.com/a?b=c&d=%20#frag user@host.tld", "C:\\path\\to\\file.png /usr/bin/env", "#hashtag @mention $VAR ${x} `code` **bold**", "function f(x){return x**2;} // ok", "日本語\u3000全角\uff5e\u301c～",
    "supercalifragilisticexpialidocious antidisestablishmentarianism", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ababababababababababababababab", "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
]  # fmt: skip

POOLS = [(0x20, 0x7F)] * 3 + [
    (0, 0x250), (0x250, 0x370), (0x300, 0x370), (0x370, 0x590), (0x590, 0x700), (0x900, 0xE80), (0xE80, 0x1100), (0x1100, 0x1200),
    (0x1200, 0x1E00), (0x1E00, 0x2100), (0x2000, 0x2070), (0x2100, 0x2C00), (0x2C00, 0x3000), (0x3000, 0x3400), (0x4E00, 0xA000), (0xA000, 0xAC00),
    (0xAC00, 0xD7A4), (0xE000, 0xF900), (0xF900, 0x10000), (0x10000, 0x12000), (0x12000, 0x1D000), (0x1D000, 0x1E000), (0x1E000, 0x1F000),
    (0x1F000, 0x1FB00), (0x20000, 0x32000), (0xE0000, 0xE0200), (0x0, 0x110000)]  # fmt: skip
GLUE = [" ", "'s", "'", "\u200d", "\ufe0f", "🏽", "▁", "</s>", "<|endoftext|>", "<|STARTOFTEXT|>", "\x00", "\u0301", "\u0323", "Tree", "don't", "\n"]

# text, repetitions: each result is a digest
LONG = [("a", 100_000), ("ab", 50_000), ("antidisestablishment", 5_000), ("photo ", 16_000), ("!?", 50_000), ("9", 100_000), ("猫", 33_000), ("👩🏽‍🚀", 6_000),
        ("e\u0301\u0323", 20_000), ("\u0301", 20_000), ("\u0301" * 9_999 + "\u0323" * 9_999, 2), ("<|endoftext|></s>", 5_000), ("<", 100_000), ("\x00", 100_000), (" ", 100_000), ("▁", 30_000),
        ("abcdefghijklmnopqrstuvwxyz0123456789" + "".join(rng.choice("etaoinshrdlu") for _ in range(9_000)), 10)]  # fmt: skip


def valid(text):
    return "".join(c for c in text if not 0xD800 <= ord(c) < 0xE000)


def random_text():
    parts = []
    for _ in range(rng.randint(1, 8)):
        low, high = rng.choice(POOLS)
        parts.append("".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 3))))
        if rng.random() < 0.4:
            parts.append(rng.choice(GLUE))
    return valid("".join(parts))


def texts():
    yield from BY_HAND
    for _ in range(330):
        yield f"{rng.choice(SUBJECTS)} {rng.choice(PLACES)}, {', '.join(rng.sample(STYLES, rng.randint(0, 3)))}"
    for _ in range(12):
        yield " ".join(rng.choice(SENTENCES) for _ in range(rng.randint(6, 24)))
    for _ in range(60):
        yield "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCXYZ") for _ in range(rng.randint(10, 60)))
    for _ in range(560):
        yield random_text()


def digest(ids):
    """FNV-1a over whole ids, 64 bits."""
    value = 0xCBF29CE484222325
    for i in ids:
        value = (value ^ i) * 0x100000001B3 % 2**64
    return value


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows))


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def main():
    # The flags that the published tokenizer_config.json gives the two special tokens.
    bos, eos = AddedToken(BOS, normalized=True, special=True), AddedToken(EOS, normalized=False, special=True)
    clip = CLIPTokenizer.from_pretrained(MODELS / "clip", bos_token=bos, eos_token=eos)
    t5 = T5TokenizerFast.from_pretrained(MODELS / "t5")
    rows = [[text, 1, ids(clip, text), ids(t5, text)] for text in dict.fromkeys(texts())]
    for text, times in LONG:
        results = [ids(tokenizer, text * times) for tokenizer in (clip, t5)]
        rows.append([text, times] + [[len(result), f"{digest(result):016x}"] for result in results])
    write_lines(GOLDEN / "tokens.jsonl", rows)

    lines = []
    for block in [b for b in range(0x1100) if b < 0x400 or 0xE00 <= b < 0xF00]:
        characters = valid("".join(chr(256 * block + k) for k in range(256)))
        text = " ".join(f"e\u0323{c}\u0301{c}e\u0323" for c in characters)
        lines.append(f"{256 * block:x} {digest(ids(clip, text)):016x} {digest(ids(t5, text)):016x}\n")
    (GOLDEN / "tokens_unicode.txt").write_text("".join(lines))
    small = {"tokens_clip_small": small_clip(bos, eos), "tokens_t5_small": small_t5(), "tokens_t5_plain": plain_t5()}
    write_lines(GOLDEN / "tokens_small.jsonl", [[name, text, ids(tokenizer, text)] for name, tokenizer in small.items() for text in BY_HAND])


def small_clip(bos, eos):
    """About 300 merges; the first byte of emoji is missing, so that it becomes the unknown token; SD 2's padding "!"."""
    folder = fresh(GOLDEN / "tokens_clip_small")
    lines = (MODELS / "clip/merges.txt").read_text().split("\n")[1:310]
    merges = [line.split() for line in lines if "ð" not in line]
    all_ids = json.loads((MODELS / "clip/vocab.json").read_text())
    symbols = [token for token, i in sorted(all_ids.items(), key=lambda item: item[1]) if i < 512 and token[0] != "ð"]
    vocab = {token: i for i, token in enumerate(symbols + ["".join(merge) for merge in merges] + [BOS, EOS])}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(merge) + "\n" for merge in merges))
    tokenizer = CLIPTokenizer.from_pretrained(folder, bos_token=bos, eos_token=eos, pad_token="!")
    tokenizer.save_pretrained(folder)
    return tokenizer


def small_t5():
    """A character map of a few rules and user-defined symbols; trained on the texts above."""
    folder = fresh(GOLDEN / "tokens_t5_small")
    rules = {"\t": " ", "\n": " ", "\u3000": " ", "½": "1⁄2", "ﬁ": "fi", "e\u0301": "é", "\u00ad": "", "Ａ": "A", "①": "1", "ｶﾞ": "ガ"}
    tsv = folder / "rules.tsv"
    tsv.write_text("".join("\t".join(" ".join(f"{ord(c):X}" for c in part) for part in rule) + "\n" for rule in rules.items()))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES + SUBJECTS + STYLES + PLACES), model_prefix=str(folder / "spiece"), vocab_size=180,
        model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_tsv=str(tsv),
        user_defined_symbols=["<lora>"], control_symbols=["<mask>"], minloglevel=2)  # fmt: skip
    for name in ("spiece.vocab", "rules.tsv"):
        (folder / name).unlink()
    tokenizer = T5TokenizerFast.from_pretrained(folder, extra_ids=4)
    tokenizer.save_pretrained(folder)
    return tokenizer


def plain_t5():
    folder = fresh(GOLDEN / "tokens_t5_plain")
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    pieces = [("▁", -2.0)] + [(c, -3.0 - i / 10) for i, c in enumerate(letters)] + [("▁a", -2.5), ("▁photo", -7.0), ("cat", -6.0), ("▁ca", -6.0), ("ph", -5.5)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + pieces + [(f"<extra_id_{i}>", 0.0) for i in (1, 0)]
    tokenizer = T5TokenizerFast(vocab=vocab, extra_ids=2)
    tokenizer.save_pretrained(folder)
    return tokenizer


def fresh(folder):
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    return folder


if __name__ == "__main__":
    main()
