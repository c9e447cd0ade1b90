#include "files/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/utf8.h"

namespace calotype::files {
namespace {

using base::ErrorKind;
using base::printable;

enum ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

constexpr std::string_view kAlignmentKey = "general.alignment";
constexpr uint64_t kMaxAlignment = 1 << 16;
constexpr int kMaxArrayNesting = 4;
constexpr uint32_t kMaxRank = 4;
constexpr size_t kMaxName = 1024;
constexpr uint64_t kMaxMetadataText = 1 << 16;  // longer strings (chat templates, …) are of no use here
// The format has no limits. These bound the memory that a hostile header takes, which is ten times its bytes when it is
// made of the shortest pairs and entries. A vocabulary of a language model has 10 MB.
constexpr uint64_t kMaxHeader = 100'000'000;
constexpr uint64_t kMaxPairs = 100'000, kMaxTensors = 1'000'000;

// Walks the header; every read is checked against the end of the file.
class HeaderReader {
 public:
  HeaderReader(std::span<const std::byte> file, std::string_view source)
      : bytes_(file.first(std::min<size_t>(file.size(), kMaxHeader))), source_(source) {}

  template <typename T>
  T number(std::string_view what) {
    T value;
    need(sizeof(T), what);
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  std::string_view text(std::string_view what) {
    const auto length = number<uint64_t>(what);
    const char* begin = reinterpret_cast<const char*>(bytes_.data()) + at_;
    skip(length, what);
    return {begin, length};
  }

  /// Text that will be shown or written elsewhere, with which broken UTF-8 could not be done.
  std::string_view valid_text(std::string_view what) {
    const std::string_view out = text(what);
    if (const auto broken = base::first_broken_utf8(out))
      corrupt("{} is not valid UTF-8 at byte {}", printable(what), at_ - out.size() + *broken);
    return out;
  }

  /// How many items a list has, each of at least `each` bytes.
  uint64_t count(std::string_view what, uint64_t each) {
    const auto claimed = number<uint64_t>(what);
    if (claimed > left() / each)
      corrupt("{} claims {} items, for which {} bytes are left; the file is damaged or cut short", printable(what),
              claimed, left());
    return claimed;
  }

  void skip(uint64_t count, std::string_view what) {
    need(count, what);
    at_ += count;
  }

  uint64_t position() const { return at_; }
  uint64_t left() const { return bytes_.size() - at_; }

  template <typename... Args>
  [[noreturn]] void corrupt(fmt::format_string<Args...> format, Args&&... args) const {
    base::fail(ErrorKind::corrupt_file, "{}: {}", source_, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  void need(uint64_t count, std::string_view what) const {
    if (count > left())
      corrupt("the {} inside {} (byte {}: {} more bytes needed, {} left); the file is damaged or cut short",
              bytes_.size() == kMaxHeader ? "header reaches its limit of 100 MB" : "header ends", printable(what), at_,
              count, left());
  }

  std::span<const std::byte> bytes_;
  std::string_view source_;
  uint64_t at_ = 0;
};

uint64_t scalar_bytes(const HeaderReader& in, uint32_t type, std::string_view key) {
  switch (type) {
    case u8:
    case i8:
    case boolean: return 1;
    case u16:
    case i16: return 2;
    case u32:
    case i32:
    case f32: return 4;
    case u64:
    case i64:
    case f64: return 8;
    default: in.corrupt("key {} has value type {}, expected 0 to 12", printable(key), type);
  }
}

void skip_array(HeaderReader& in, std::string_view key, int nesting) {
  if (nesting > kMaxArrayNesting) in.corrupt("key {} nests arrays more than {} deep", printable(key), kMaxArrayNesting);
  const auto type = in.number<uint32_t>(key);
  if (type != string && type != array) {
    const uint64_t each = scalar_bytes(in, type, key);
    in.skip(in.count(key, each) * each, key);
    return;
  }
  const uint64_t count = in.count(key, sizeof(uint64_t));
  for (uint64_t i = 0; i < count; ++i) {
    if (type == string)
      in.text(key);
    else
      skip_array(in, key, nesting + 1);
  }
}

/// At most kMaxMetadataText bytes of valid UTF-8, cut between characters.
std::string_view beginning(std::string_view text) {
  if (text.size() <= kMaxMetadataText) return text;
  size_t end = kMaxMetadataText;
  while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

std::string scalar_text(HeaderReader& in, uint32_t type, std::string_view key) {
  switch (type) {
    case u8: return fmt::to_string(in.number<uint8_t>(key));
    case i8: return fmt::to_string(in.number<int8_t>(key));
    case u16: return fmt::to_string(in.number<uint16_t>(key));
    case i16: return fmt::to_string(in.number<int16_t>(key));
    case u32: return fmt::to_string(in.number<uint32_t>(key));
    case i32: return fmt::to_string(in.number<int32_t>(key));
    case f32: return fmt::to_string(in.number<float>(key));
    case u64: return fmt::to_string(in.number<uint64_t>(key));
    case i64: return fmt::to_string(in.number<int64_t>(key));
    case f64: return fmt::to_string(in.number<double>(key));
    case boolean: return in.number<uint8_t>(key) ? "true" : "false";
    case string: return std::string(beginning(in.valid_text(key)));
    default: scalar_bytes(in, type, key);  // refuses unknown types
  }
  return "";
}

/// One key-value pair; of arrays only the key.
std::pair<std::string, std::optional<std::string>> read_pair(HeaderReader& in) {
  std::string key(in.valid_text("a key"));
  if (key.empty() || key.size() > kMaxMetadataText)
    in.corrupt("a key has {} bytes, expected 1 to {}", key.size(), kMaxMetadataText);
  const auto type = in.number<uint32_t>(key);
  if (key == kAlignmentKey && type != u32) in.corrupt("{} has value type {}, expected 4 (u32)", kAlignmentKey, type);
  if (type != array) {
    std::string text = scalar_text(in, type, key);
    return {std::move(key), std::move(text)};
  }
  skip_array(in, key, 1);
  return {std::move(key), std::nullopt};
}

uint64_t alignment_of(const HeaderReader& in, const std::string& text) {
  const uint64_t alignment = std::stoull(text);
  if (!std::has_single_bit(alignment) || alignment < 8 || alignment > kMaxAlignment)
    in.corrupt("{} is {}, expected a power of two from 8 to {}", kAlignmentKey, alignment, kMaxAlignment);
  return alignment;
}

TensorEntry read_entry(HeaderReader& in, std::string_view source) {
  TensorEntry entry{.name = std::string(in.valid_text("a tensor's name"))};
  if (entry.name.empty() || entry.name.size() > kMaxName)
    in.corrupt("a tensor's name has {} bytes, expected 1 to {}", entry.name.size(), kMaxName);
  const auto rank = in.number<uint32_t>(entry.name);
  if (rank > kMaxRank)
    in.corrupt("tensor {} has {} dimensions, expected at most {}", printable(entry.name), rank, kMaxRank);
  for (uint32_t i = 0; i < rank; ++i) {
    const auto extent = in.number<uint64_t>(entry.name);
    if (extent == 0 || extent > static_cast<uint64_t>(INT64_MAX))
      in.corrupt("tensor {} has a dimension of {}, expected 1 to 2^63 - 1", printable(entry.name), extent);
    entry.shape.insert(entry.shape.begin(), static_cast<int64_t>(extent));
  }
  const auto number = in.number<uint32_t>(entry.name);
  const auto type = type_from_ggml(number);
  base::check(
      type.has_value(), ErrorKind::unsupported,
      "{}: tensor {} has ggml type {}, which is not supported (supported: F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 "
      "Q2_K Q3_K Q4_K Q5_K Q6_K)",
      source, printable(entry.name), number);
  entry.type = *type;
  entry.offset = in.number<uint64_t>(entry.name);
  const auto elements = element_count(entry.shape);
  const int64_t row = entry.shape.empty() ? 1 : entry.shape.back();
  if (!elements || row % traits(*type).block != 0 || !bytes_of(*type, *elements))
    in.corrupt("tensor {} of shape {} does not fit type {} (rows are multiples of {})", printable(entry.name),
               shape_text(entry.shape), name(*type), traits(*type).block);
  entry.size = *bytes_of(*type, *elements);
  return entry;
}

// Offsets come from the file relative to the data section; here they become absolute and are proven to lie inside.
void place_entries(const HeaderReader& in, std::vector<TensorEntry>& entries, uint64_t file_bytes, uint64_t alignment) {
  const uint64_t data = (in.position() + alignment - 1) / alignment * alignment;
  const uint64_t available = data <= file_bytes ? file_bytes - data : 0;
  std::ranges::sort(entries, {}, &TensorEntry::offset);
  uint64_t end = 0;
  for (TensorEntry& entry : entries) {
    if (entry.offset % alignment != 0)
      in.corrupt("tensor {} starts at data byte {}, expected a multiple of {}", printable(entry.name), entry.offset,
                 alignment);
    if (entry.offset < end)
      in.corrupt("tensor {} starts at data byte {}, but the tensor before it ends at {}; they overlap",
                 printable(entry.name), entry.offset, end);
    if (entry.offset > available || entry.size > available - entry.offset)
      in.corrupt("tensor {} needs {} bytes at data byte {}, the file has {} bytes of data; it was cut short",
                 printable(entry.name), entry.size, entry.offset, available);
    end = entry.offset + entry.size;
    entry.offset += data;
  }
}

/// What other containers may hold and this one may not.
void check_writable(const TensorEntry& entry) {
  const bool fits = !entry.name.empty() && entry.name.size() <= kMaxName && entry.shape.size() <= kMaxRank &&
                    entry.size > 0 && traits(entry.type).ggml >= 0;
  base::check(fits, ErrorKind::unsupported,
              "tensor {} of shape {} and type {} does not fit into GGUF, which takes names of 1 to {} bytes, up to {} "
              "dimensions, none of them 0, and no 8-bit floats",
              printable(entry.name), shape_text(entry.shape), name(entry.type), kMaxName, kMaxRank);
}

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void put_text(std::string& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out += text;
}

}  // namespace

TensorTable parse_gguf(std::span<const std::byte> bytes, std::string_view source) {
  HeaderReader in(bytes, source);
  in.skip(4, "the signature");
  const auto version = in.number<uint32_t>("the version");
  const bool turned = version >= 1 << 24;  // 1, 2 or 3 with its bytes in the other order
  base::check(version == 3 || version == 2, ErrorKind::unsupported, "{}: GGUF version {}, expected 3 (little-endian)",
              source, turned ? "of the other byte order (big-endian)" : fmt::to_string(version));
  // The shortest entry and pair: lengths, types, an offset, a byte.
  const auto tensor_count = in.count("the list of tensors", 8 + 4 + 4 + 8);
  const auto pair_count = in.count("the list of key-value pairs", 8 + 4 + 1);
  if (tensor_count > kMaxTensors || pair_count > kMaxPairs)
    in.corrupt("it has {} tensors and {} key-value pairs, above the limits of {} and {}", tensor_count, pair_count,
               kMaxTensors, kMaxPairs);

  TensorTable table;
  std::set<std::string> keys, names;
  for (uint64_t i = 0; i < pair_count; ++i) {
    auto [key, text] = read_pair(in);
    if (!keys.insert(key).second) in.corrupt("key {} appears twice", printable(key));
    if (text) table.metadata[key] = *std::move(text);
  }
  const auto alignment = table.metadata.find(std::string(kAlignmentKey));
  const uint64_t multiple = alignment == table.metadata.end() ? kGgufAlignment : alignment_of(in, alignment->second);

  for (uint64_t i = 0; i < tensor_count; ++i) {
    table.entries.push_back(read_entry(in, source));
    const std::string& added = table.entries.back().name;
    if (!names.insert(added).second) in.corrupt("tensor {} appears twice", printable(added));
  }
  place_entries(in, table.entries, bytes.size(), multiple);
  return table;
}

std::string make_gguf_header(TensorTable& table) {
  for (const TensorEntry& entry : table.entries) check_writable(entry);
  std::erase_if(table.metadata, [](const auto& pair) {
    return pair.first.empty() || pair.first.size() > kMaxMetadataText || pair.first == kAlignmentKey;
  });
  std::string out = "GGUF";
  put<uint32_t>(out, 3);
  put<uint64_t>(out, table.entries.size());
  put<uint64_t>(out, table.metadata.size());
  for (const auto& [key, value] : table.metadata) {
    put_text(out, key);
    put<uint32_t>(out, string);
    put_text(out, value);
  }
  const auto padded = [](uint64_t size) { return (size + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment; };
  uint64_t offset = 0;
  for (TensorEntry& entry : table.entries) {
    put_text(out, entry.name);
    put<uint32_t>(out, static_cast<uint32_t>(entry.shape.size()));
    for (auto extent = entry.shape.rbegin(); extent != entry.shape.rend(); ++extent)
      put<uint64_t>(out, static_cast<uint64_t>(*extent));
    put<uint32_t>(out, static_cast<uint32_t>(traits(entry.type).ggml));
    put<uint64_t>(out, offset);
    entry.offset = offset;
    offset += padded(entry.size);
  }
  out.resize(padded(out.size()), '\0');
  for (TensorEntry& entry : table.entries) entry.offset += out.size();
  return out;
}

}  // namespace calotype::files
