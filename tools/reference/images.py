"""Small pictures of every kind and the pixels that Pillow reads from them, for tests/image.

Run from the repository root: python tools/reference/images.py
Writes tests/golden/images/: the pictures, and NAME.rgb with the expected pixels of NAME.* (width × height × 3 bytes,
sizes stand in the tests). Made with Pillow 13.0 (libjpeg-turbo 3.2, libwebp 1.6, lcms 2.19, libavif 1.4).
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

OUT = Path("tests/golden/images")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SRGB = SRGB[:24] + bytes(12) + SRGB[36:]  # without the time of its making, so that every run gives the same files


def write(name: str, data: bytes) -> None:
    (OUT / name).write_bytes(data)


def write_pixels(name: str, picture: Image.Image | np.ndarray) -> None:
    write(f"{name}.rgb", np.asarray(picture, dtype=np.uint8).tobytes())


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def smooth(width: int, height: int) -> Image.Image:
    """Colours without any symmetry, so that a swapped axis or channel shows."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / (width - 1)
    green = 255 * y / (height - 1)
    blue = 127 + 120 * np.sin(0.35 * x + 0.2 * y)
    return Image.fromarray(np.stack([red, green, blue], -1).round().astype(np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """PNG written by hand, for what Pillow cannot write: 16-bit colour and headers that lie."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png16(samples: np.ndarray, colour: int) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return raw_png(samples.shape[1], samples.shape[0], 16, colour, rows)


def with_tags(profile: bytes, changes: dict[bytes, bytes]) -> bytes:
    """An ICC profile in which each tag of `changes` has the given data of equal size (ICC.1:2010, 7.3)."""
    out = bytearray(profile)
    for i in range(struct.unpack(">I", profile[128:132])[0]):
        name, offset, _ = struct.unpack(">4sII", profile[132 + 12 * i : 144 + 12 * i])
        if name in changes:
            out[offset : offset + len(changes[name])] = changes[name]
    return bytes(out)


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


# Colorants of sRGB with red and blue exchanged, and of Display P3, both adapted to D50.
SWAPPED = with_tags(SRGB, {b"rXYZ": xyz(0.14307, 0.06061, 0.71410), b"bXYZ": xyz(0.43607, 0.22249, 0.01392)})
WIDE = with_tags(SRGB, {b"rXYZ": xyz(0.51512, 0.24120, -0.00105), b"gXYZ": xyz(0.29198, 0.69225, 0.04189),
                        b"bXYZ": xyz(0.15710, 0.06657, 0.78407)})


def to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"),
                                     renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC)


def flattened(rgb: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    a = alpha[..., None] / 255.0
    return (rgb * a + np.array(background) * (1 - a)).round()


def plain_kinds(picture: Image.Image) -> None:
    write_pixels("colour", picture)
    write("colour.png", encoded(picture, "PNG"))
    write("colour.webp", encoded(picture, "WEBP", lossless=True))
    write("colour.tiff", encoded(picture, "TIFF", compression="tiff_lzw"))
    for name, kind, options in (("photo_jpeg", "JPEG", {"quality": 92, "subsampling": 0}),
                                ("photo_webp", "WEBP", {"quality": 90}),
                                ("photo_avif", "AVIF", {"quality": 90, "subsampling": "4:4:4"})):
        data = encoded(picture, kind, **options)
        write(f"{name}.{kind.lower()}", data)
        write_pixels(name, Image.open(io.BytesIO(data)).convert("RGB"))

    grey = picture.convert("L")
    write("grey.png", encoded(grey, "PNG"))
    write("grey.jpeg", encoded(grey, "JPEG", quality=100))
    write_pixels("grey", grey.convert("RGB"))
    bits = grey.convert("1")
    write("bits.png", encoded(bits, "PNG"))
    write_pixels("bits", bits.convert("RGB"))
    palette = picture.quantize(32)
    write("palette.png", encoded(palette, "PNG"))
    write_pixels("palette", palette.convert("RGB"))


def deep_kinds(picture: Image.Image) -> None:
    rng = np.random.default_rng(0)
    rgb = np.asarray(picture).astype(np.uint16) * 256 + rng.integers(0, 256, (*picture.size[::-1], 3), dtype=np.uint16)
    write("rgb16.png", png16(rgb, 2))
    write_pixels("rgb16", rgb >> 8)
    grey = rgb[..., 1]
    write("grey16.png", png16(grey, 0))
    write_pixels("grey16", np.repeat((grey >> 8)[..., None], 3, -1))
    alpha = rgb[..., 0]
    write("rgba16.png", png16(np.concatenate([rgb, alpha[..., None]], -1), 6))
    write_pixels("rgba16", flattened(rgb >> 8, alpha >> 8, (255, 255, 255)))


def transparent_kinds(picture: Image.Image) -> None:
    rgb = np.asarray(picture)
    alpha = np.asarray(picture)[::-1, :, 1]
    rgba = Image.fromarray(np.dstack([rgb, alpha]))
    write("rgba.png", encoded(rgba, "PNG"))
    write("rgba.webp", encoded(rgba, "WEBP", lossless=True, exact=True))
    write_pixels("rgba_on_white", flattened(rgb, alpha, (255, 255, 255)))
    write_pixels("rgba_on_teal", flattened(rgb, alpha, (0, 128, 120)))
    grey = np.asarray(picture.convert("L"))
    write("grey_alpha.png", encoded(Image.fromarray(np.dstack([grey, alpha]), "LA"), "PNG"))
    write_pixels("grey_alpha", flattened(np.repeat(grey[..., None], 3, -1), alpha, (255, 255, 255)))
    palette = picture.quantize(16)
    write("palette_alpha.png", encoded(palette, "PNG", transparency=3))
    solid = np.where(np.asarray(palette) == 3, 0, 255)
    write_pixels("palette_alpha", flattened(np.asarray(palette.convert("RGB")), solid, (255, 255, 255)))


def turned_kinds(picture: Image.Image) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(picture, "JPEG", quality=95, subsampling=0, exif=exif)
        write(f"turned_{orientation}.jpeg", data)
        write_pixels(f"turned_{orientation}", ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    exif = Image.Exif()
    exif[0x0112] = 6
    write("turned_6.png", encoded(picture, "PNG", exif=exif))
    write("turned_6.webp", encoded(picture, "WEBP", lossless=True, exif=exif))
    write("turned_6.avif", encoded(picture, "AVIF", quality=90, subsampling="4:4:4", exif=exif))
    write_pixels("turned_6_exact", picture.transpose(Image.Transpose.ROTATE_270))
    write_pixels("turned_6_avif", ImageOps.exif_transpose(Image.open(OUT / "turned_6.avif")).convert("RGB"))


def profiled_kinds(picture: Image.Image) -> None:
    write("icc_swapped.png", encoded(picture, "PNG", icc_profile=SWAPPED))
    write_pixels("icc_swapped", to_srgb(picture, SWAPPED))
    write("icc_wide.png", encoded(picture, "PNG", icc_profile=WIDE))
    write_pixels("icc_wide", to_srgb(picture, WIDE))
    write("icc_srgb.png", encoded(picture, "PNG", icc_profile=SRGB))
    write("icc_broken.png", encoded(picture, "PNG", icc_profile=b"not a profile" * 20))
    write("icc_on_grey.png", encoded(picture.convert("L"), "PNG", icc_profile=SRGB))  # RGB profile, one channel
    alpha = np.asarray(picture)[::-1, :, 1]
    rgba = Image.fromarray(np.dstack([np.asarray(picture), alpha]))
    write("icc_alpha.png", encoded(rgba, "PNG", icc_profile=SWAPPED))
    write_pixels("icc_alpha_on_teal", flattened(np.asarray(to_srgb(picture, SWAPPED)), alpha, (0, 128, 120)))


def ink_patches() -> None:
    """CMYK: no ink, then each ink alone, in columns of 16."""
    inks = np.zeros((16, 80, 4), np.uint8)
    for ink in range(4):
        inks[:, 16 * (ink + 1) : 16 * (ink + 2), ink] = 255
    write("cmyk.jpeg", encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=95, subsampling=0))


def moving_kinds(picture: Image.Image) -> None:
    frames = [picture, ImageOps.mirror(picture), ImageOps.flip(picture)]
    write("moving.webp", encoded(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:]))
    frames = [frame.quantize(32) for frame in frames]
    write("still.gif", encoded(frames[0], "GIF"))
    write("moving.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    write_pixels("moving_gif", frames[0].convert("RGB"))


def hostile(picture: Image.Image) -> None:
    write("bomb.png", raw_png(20000, 20000, 8, 2, bytes(1000)))
    write("wide_zero.png", raw_png(0, 16, 8, 2, bytes(16)))
    write("tall.png", raw_png(1, 65535, 8, 2, b"\0\x20\x40\x60" * 65535))
    flipped = bytearray(encoded(picture, "PNG"))
    flipped[flipped.index(b"IDAT") + 200] ^= 0xFF
    write("flipped.png", bytes(flipped))
    # 2 MiB of zeros in 2 kB, twice as a text; the plain text after them must still be read.
    packed = zlib.compress(bytes(2 << 20), 9)
    extra = chunk(b"zTXt", b"bomb\0\0" + packed) + chunk(b"tEXt", b"after\0still here")
    write("text_bomb.png", raw_png(1, 1, 8, 2, bytes(4), extra))


def texts(picture: Image.Image) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a café at dusk\nSteps: 4, Seed: 7")  # fits Latin-1: tEXt
    info.add_text("emoji", "灯台 🗼 at dawn")  # does not: iTXt
    info.add_text("packed", "la " * 400, zip=True)  # zTXt
    info.add_itxt("packed_utf8", "塔" * 400, zip=True)
    write("texts.png", encoded(picture.resize((4, 4)), "PNG", pnginfo=info))


def lanczos(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Width first, then height: the only order before Pillow 13.0, which chooses by cost and so rounds otherwise."""
    across = picture.resize((width, picture.height), Image.Resampling.LANCZOS)
    return across.resize((width, height), Image.Resampling.LANCZOS)


def resizing() -> None:
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 256, (31, 43, 3), dtype=np.uint8))  # hard edges: overshoots and clips
    write_pixels("noise_43x31", noise)
    for width, height in ((13, 9), (97, 71), (43, 12), (20, 31), (1, 1), (60, 10)):
        write_pixels(f"noise_to_{width}x{height}", lanczos(noise, width, height))
    write_pixels("noise_filling_20x20", lanczos(noise.crop((6, 0, 37, 31)), 20, 20))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    picture = smooth(37, 29)
    plain_kinds(picture)
    deep_kinds(picture)
    transparent_kinds(picture)
    turned_kinds(smooth(24, 16))
    profiled_kinds(picture)
    ink_patches()
    moving_kinds(picture)
    hostile(picture)
    texts(picture)
    resizing()


if __name__ == "__main__":
    main()
