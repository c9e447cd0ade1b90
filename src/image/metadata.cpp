#include "image/metadata.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"

namespace calotype::image {
namespace {

using base::check;
using base::ErrorKind;

constexpr char32_t kReplacement = 0xFFFD;

std::string big_endian(uint32_t value, int bytes) {
  std::string out;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFF);
  return out;
}

std::string little_endian(uint32_t value, int bytes) {
  std::string out = big_endian(value, bytes);
  std::ranges::reverse(out);
  return out;
}

template <typename Use>
void for_each_char(std::string_view text, Use use) {
  for (size_t i = 0; i < text.size();) {
    const base::Utf8Char c = base::decode_utf8(text, i);
    use(c.code);
    i += c.length;
  }
}

std::string clean_text(std::string_view name, std::string_view text) {
  check(text.size() <= kMaxText, ErrorKind::bad_input,
        "the text {} for the picture's metadata has {} bytes, at most {} fit; shorten it", name, text.size(), kMaxText);
  std::string out;
  for_each_char(text, [&](char32_t c) { base::append_utf8(out, c == 0 ? kReplacement : c); });
  return out;
}

/// XML 1.0 has no way to write most control characters; a bare carriage return would be read as a line feed.
std::string xml_escaped(std::string_view text) {
  std::string out;
  for_each_char(text, [&](char32_t c) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '\r') {
      out += "&#13;";
    } else {
      const bool allowed = c == '\t' || c == '\n' || (c >= 0x20 && c != 0xFFFE && c != 0xFFFF);
      base::append_utf8(out, allowed ? c : kReplacement);
    }
  });
  return out;
}

/// UTF-16BE of at most `limit` code units; what is longer ends with an ellipsis.
std::string utf16_cut(std::string_view text, size_t limit) {
  std::string out;
  size_t safe = 0;  // bytes that leave room for the ellipsis
  for_each_char(text, [&](char32_t c) {
    if (c >= 0x10000) {
      out += big_endian(0xD800 + ((c - 0x10000) >> 10), 2);
      out += big_endian(0xDC00 + ((c - 0x10000) & 0x3FF), 2);
    } else {
      out += big_endian(c, 2);
    }
    if (out.size() / 2 < limit) safe = out.size();
  });
  if (out.size() / 2 > limit) {
    out.resize(safe);
    out += big_endian(0x2026, 2);
  }
  return out;
}

struct Tag {
  uint16_t number;
  uint16_t type;   ///< 2 ASCII, 4 LONG, 7 UNDEFINED
  uint32_t count;  ///< values, which are bytes except for LONG
  std::string value;
};

/// One TIFF directory (TIFF 6.0, section 2) that starts `offset` bytes into the block; tags in ascending order.
std::string tiff_directory(const std::vector<Tag>& tags, size_t offset) {
  std::string entries = big_endian(static_cast<uint32_t>(tags.size()), 2);
  std::string values;
  const size_t values_at = offset + 2 + 12 * tags.size() + 4;
  for (const Tag& tag : tags) {
    entries += big_endian(tag.number, 2) + big_endian(tag.type, 2) + big_endian(tag.count, 4);
    if (tag.value.size() <= 4) {
      entries += tag.value + std::string(4 - tag.value.size(), '\0');
    } else {
      entries += big_endian(static_cast<uint32_t>(values_at + values.size()), 4);
      values += tag.value + std::string(tag.value.size() % 2, '\0');
    }
  }
  return entries + big_endian(0, 4) + values;
}

/// EXIF block of at most `limit` bytes, "" when it would be empty. Big-endian throughout: readers disagree
/// whether UserComment follows the block's byte order or is always UTF-16BE, and this satisfies both.
std::string exif_block(const Metadata& metadata, size_t limit) {
  constexpr size_t kFrame = 200;  // more than header and directories take
  const std::string header("MM\0*\0\0\0\x08", 8);
  std::vector<Tag> main, exif;
  if (!metadata.software.empty()) {
    const std::string text = metadata.software + '\0';
    main.push_back({0x0131, 2, static_cast<uint32_t>(text.size()), text});
  }
  if (!metadata.parameters.empty()) {
    const size_t units = (limit - kFrame - metadata.software.size()) / 2;
    const std::string comment = std::string("UNICODE\0", 8) + utf16_cut(metadata.parameters, units);
    exif.push_back({0x9000, 7, 4, "0232"});
    exif.push_back({0x9286, 7, static_cast<uint32_t>(comment.size()), comment});
    main.push_back({0x8769, 4, 1, big_endian(0, 4)});
  }
  if (main.empty()) return "";
  if (exif.empty()) return header + tiff_directory(main, header.size());
  // Where the second directory starts is a value of the first, whose size does not depend on its values.
  const size_t exif_at = header.size() + tiff_directory(main, header.size()).size();
  main.back().value = big_endian(static_cast<uint32_t>(exif_at), 4);
  return header + tiff_directory(main, header.size()) + tiff_directory(exif, exif_at);
}

std::string jpeg_segment(std::string_view prefix, std::string_view body) {
  if (body.empty()) return "";
  std::string out = "\xFF\xE1" + big_endian(static_cast<uint32_t>(2 + prefix.size() + body.size()), 2);
  return out.append(prefix).append(body);
}

std::string riff_chunk(std::string_view type, std::string_view body) {
  std::string out = std::string(type) + little_endian(static_cast<uint32_t>(body.size()), 4);
  return out.append(body).append(body.size() % 2, '\0');
}

/// The chunk with the pixels, header and padding included. libvips 8.14 adds an EXIF chunk of its own even when told to
/// strip metadata, hence the search. RFC 9649.
std::string_view webp_pixels(std::string_view webp) {
  check(webp.size() > 20 && webp.starts_with("RIFF") && webp.substr(8, 4) == "WEBP", ErrorKind::internal,
        "not an encoded WebP");
  for (size_t at = 12; webp.size() - at >= 8;) {
    size_t length = 0;
    for (size_t i = 8; i-- > 4;) length = length << 8 | static_cast<unsigned char>(webp[at + i]);
    const size_t whole = 8 + length + length % 2;
    if (whole > webp.size() - at) break;
    if (webp.substr(at, 4) == "VP8 " || webp.substr(at, 4) == "VP8L") return webp.substr(at, whole);
    at += whole;
  }
  base::fail(ErrorKind::internal, "an encoded WebP without pixels");
}

}  // namespace

Metadata cleaned(const Metadata& metadata) {
  constexpr size_t kMaxSoftware = 256;
  check(metadata.software.size() <= kMaxSoftware, ErrorKind::bad_input,
        "the software name for the picture's metadata has {} bytes, at most {} are accepted", metadata.software.size(),
        kMaxSoftware);
  return {.parameters = clean_text("parameters", metadata.parameters),
          .settings_json = clean_text("settings_json", metadata.settings_json),
          .software = clean_text("software", metadata.software),
          .ai_generated = metadata.ai_generated};
}

std::string xmp_packet(const Metadata& metadata, std::string_view settings_json) {
  if (!metadata.ai_generated && settings_json.empty()) return "";
  std::string out =
      "<?xpacket begin=\"\xEF\xBB\xBF\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n"
      "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\n"
      "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n";
  if (metadata.ai_generated)
    out += fmt::format(
        "<rdf:Description rdf:about=\"\" xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\">\n"
        "<Iptc4xmpExt:DigitalSourceType>{}</Iptc4xmpExt:DigitalSourceType>\n</rdf:Description>\n",
        kAiGenerated);
  if (!settings_json.empty())
    out += fmt::format(
        "<rdf:Description rdf:about=\"\" xmlns:calotype=\"{}\">\n"
        "<calotype:settings>{}</calotype:settings>\n</rdf:Description>\n",
        kSettingsNamespace, xml_escaped(settings_json));
  return out + "</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end=\"w\"?>";
}

std::string jpeg_with_metadata(std::string_view jpeg, const Metadata& metadata) {
  constexpr std::string_view kExif("Exif\0\0", 6), kXmp("http://ns.adobe.com/xap/1.0/\0", 29);
  constexpr size_t kSegment = 65533;
  const Metadata clean = cleaned(metadata);
  std::string xmp = xmp_packet(clean, clean.settings_json);
  if (xmp.size() + kXmp.size() > kSegment) xmp = xmp_packet(clean, "");

  check(jpeg.size() > 20 && jpeg.starts_with("\xFF\xD8\xFF"), ErrorKind::internal, "not an encoded JPEG");
  // After the JFIF segment, which has to be the first one; its length is the fifth and sixth byte.
  const bool jfif = jpeg[3] == '\xE0';
  const size_t at =
      jfif ? 4 + static_cast<size_t>(static_cast<unsigned char>(jpeg[4]) << 8 | static_cast<unsigned char>(jpeg[5]))
           : 2;
  check(at < jpeg.size(), ErrorKind::internal, "not an encoded JPEG");
  std::string out(jpeg.substr(0, at));
  out += jpeg_segment(kExif, exif_block(clean, kSegment - kExif.size()));
  out += jpeg_segment(kXmp, xmp);
  return out.append(jpeg.substr(at));
}

std::string webp_with_metadata(std::string_view webp, const Metadata& metadata, int width, int height) {
  const Metadata clean = cleaned(metadata);
  const std::string exif = exif_block(clean, 4 * kMaxText);
  const std::string xmp = xmp_packet(clean, clean.settings_json);
  const std::string pixels(webp_pixels(webp));
  if (exif.empty() && xmp.empty()) return riff_chunk("RIFF", "WEBP" + pixels);

  // Metadata needs the extended form of the container, whose first chunk says what follows.
  constexpr char kHasExif = 0x08, kHasXmp = 0x04;
  std::string features(1, static_cast<char>((exif.empty() ? 0 : kHasExif) | (xmp.empty() ? 0 : kHasXmp)));
  features += std::string(3, '\0') + little_endian(static_cast<uint32_t>(width - 1), 3) +
              little_endian(static_cast<uint32_t>(height - 1), 3);
  std::string body = "WEBP" + riff_chunk("VP8X", features) + pixels;
  if (!exif.empty()) body += riff_chunk("EXIF", exif);
  if (!xmp.empty()) body += riff_chunk("XMP ", xmp);
  return riff_chunk("RIFF", body);
}

}  // namespace calotype::image
