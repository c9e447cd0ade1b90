#include "image/png_metadata.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/utf8.h"

namespace calotype::image {
namespace {

using base::check;
using base::ErrorKind;

constexpr std::string_view kSignature = "\x89PNG\r\n\x1a\n";
constexpr size_t kFrame = 12;                     // length, type and checksum around a chunk's data
constexpr size_t kHeaderEnd = 8 + kFrame + 13;    // signature and IHDR
constexpr size_t kMaxUnpacked = size_t{1} << 20;  // all compressed texts of a file together

std::string big_endian(uint32_t value) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFF);
  return out;
}

uint32_t read_big_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (const char byte : bytes.substr(0, 4)) value = value << 8 | static_cast<unsigned char>(byte);
  return value;
}

uint32_t checksum(std::string_view bytes) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

std::string framed(std::string_view type, std::string_view data) {
  std::string checked(type);
  checked += data;
  return big_endian(static_cast<uint32_t>(data.size())) + checked + big_endian(checksum(checked));
}

std::string text_chunk(std::string_view keyword, std::string_view text) {
  if (text.empty()) return "";
  std::string data(keyword);
  if (std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; }))
    return framed("tEXt", data.append(1, '\0').append(text));
  return framed("iTXt", data.append(5, '\0').append(text));  // not compressed, no language, no translated keyword
}

/// XMP is looked for in iTXt alone.
std::string xmp_chunk(std::string_view packet) {
  if (packet.empty()) return "";
  return framed("iTXt", std::string("XML:com.adobe.xmp").append(5, '\0').append(packet));
}

std::string latin1_to_utf8(std::string_view text) {
  std::string out;
  for (const char c : text) base::append_utf8(out, static_cast<unsigned char>(c));
  return out;
}

struct Chunk {
  size_t at;  ///< byte where it starts
  std::string_view type, data;
  std::string_view checked;  ///< what the checksum covers
  uint32_t checksum;         ///< as the file states it
};

bool is_text(std::string_view type) { return type == "tEXt" || type == "zTXt" || type == "iTXt"; }

/// The chunks up to IEND; corrupt_file when one does not fit into the file.
template <typename Use>
void for_each_chunk(std::string_view png, std::string_view source, Use use) {
  check(png.starts_with(kSignature), ErrorKind::corrupt_file, "{}: not a PNG file (starts with \"{}\")", source,
        base::printable(png.substr(0, 16)));
  for (size_t at = kSignature.size(); at < png.size();) {
    const size_t left = png.size() - at;
    const size_t length = left >= kFrame ? read_big_endian(png.substr(at)) : 0;
    check(left >= kFrame && length <= left - kFrame, ErrorKind::corrupt_file,
          "{}: damaged or incomplete PNG: the chunk at byte {} needs {} bytes, the file has {} left", source, at,
          length + kFrame, left);
    const Chunk chunk{.at = at,
                      .type = png.substr(at + 4, 4),
                      .data = png.substr(at + 8, length),
                      .checked = png.substr(at + 4, 4 + length),
                      .checksum = read_big_endian(png.substr(at + 8 + length))};
    use(chunk);
    if (chunk.type == "IEND") break;
    at += kFrame + length;
  }
}

struct InflateEnd {
  void operator()(z_stream* stream) const { inflateEnd(stream); }
};

/// A whole zlib stream, nothing when it is damaged, cut or longer than `budget`, which shrinks by what was unpacked.
std::optional<std::string> unpacked(std::string_view packed, size_t& budget) {
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) return std::nullopt;
  const std::unique_ptr<z_stream, InflateEnd> closer(&stream);
  std::string out(budget, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int end = inflate(&stream, Z_FINISH);
  budget -= stream.total_out;
  if (end != Z_STREAM_END) return std::nullopt;
  out.resize(stream.total_out);
  return out;
}

/// Takes the part up to a NUL off `rest`; nothing without one.
std::optional<std::string_view> take_field(std::string_view& rest) {
  const size_t end = rest.find('\0');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view field = rest.substr(0, end);
  rest.remove_prefix(end + 1);
  return field;
}

/// What follows the keyword in a tEXt, zTXt or iTXt chunk, as UTF-8; `budget` is what may still be unpacked.
std::optional<std::string> text_of(std::string_view type, std::string_view rest, size_t& budget) {
  bool compressed = type == "zTXt";
  if (type == "iTXt") {
    if (rest.size() < 2) return std::nullopt;
    compressed = rest[0] == 1;
    rest.remove_prefix(1);
  }
  if (type != "tEXt") {
    if (rest.empty() || rest[0] != 0) return std::nullopt;  // 0 is deflate, the only method
    rest.remove_prefix(1);
  }
  if (type == "iTXt" && (!take_field(rest) || !take_field(rest))) return std::nullopt;  // language, keyword in it

  std::string text(compressed ? "" : rest);
  if (compressed) {
    std::optional<std::string> whole = unpacked(rest, budget);
    if (!whole) return std::nullopt;
    text = std::move(*whole);
  }
  if (type != "iTXt") return latin1_to_utf8(text);
  if (base::first_broken_utf8(text)) return std::nullopt;
  return text;
}

}  // namespace

std::string png_with_metadata(std::string_view png, const Metadata& metadata) {
  check(png.size() > kHeaderEnd && png.starts_with(kSignature), ErrorKind::internal, "not an encoded PNG");
  const Metadata clean = cleaned(metadata);
  std::string out(png.substr(0, kHeaderEnd));
  out += text_chunk("parameters", clean.parameters);
  out += text_chunk("calotype", clean.settings_json);
  out += text_chunk("Software", clean.software);
  out += xmp_chunk(xmp_packet(clean, ""));
  return out.append(png.substr(kHeaderEnd));
}

void check_png(std::string_view png, std::string_view source) {
  constexpr int kMaxTexts = 100;
  int texts = 0;
  for_each_chunk(png, source, [&](const Chunk& chunk) { texts += is_text(chunk.type); });
  check(texts <= kMaxTexts, ErrorKind::bad_input, "{}: carries {} texts, at most {} are read; save the picture anew",
        source, texts, kMaxTexts);
}

std::map<std::string, std::string, std::less<>> png_texts(std::string_view png, std::string_view source) {
  check_png(png, source);  // few texts: each compressed one, however short, costs a buffer of kMaxUnpacked
  std::map<std::string, std::string, std::less<>> texts;
  size_t budget = kMaxUnpacked;
  for_each_chunk(png, source, [&](const Chunk& chunk) {
    if (!is_text(chunk.type)) return;
    check(checksum(chunk.checked) == chunk.checksum, ErrorKind::corrupt_file,
          "{}: wrong checksum of the PNG chunk at byte {}; the file is damaged", source, chunk.at);
    std::string_view rest = chunk.data;
    const std::optional<std::string_view> keyword = take_field(rest);
    if (!keyword || keyword->empty() || keyword->size() > 79 || rest.size() > kMaxText) return;
    if (std::optional<std::string> text = text_of(chunk.type, rest, budget))
      texts.insert_or_assign(latin1_to_utf8(*keyword), std::move(*text));
  });
  return texts;
}

}  // namespace calotype::image
