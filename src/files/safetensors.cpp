#include "files/safetensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/utf8.h"

namespace calotype::files {
namespace {

using base::ErrorKind;
using base::printable;
using nlohmann::json;

constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};
constexpr size_t kMaxExtents = 16;
// A pair of 10 bytes takes 110 in memory; trainers write a few hundred of them.
constexpr size_t kMaxMetadataPairs = 100'000;

// Builds the table while the header is parsed, so that a hostile header never becomes a tree in memory: the only
// nesting accepted is {name: {field: scalar or list of integers}} and {"__metadata__": {key: string}}.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  HeaderReader(std::string_view header, std::string_view source) : header_(header), source_(source) {}

  TensorTable take() { return std::move(table_); }

  bool start_object(size_t) override {
    if (depth_ > 1 || in_list_) misplaced("an object");
    ++depth_;
    seen_.reset();
    return true;
  }

  bool key(std::string& text) override {
    if (depth_ == 1) {
      in_metadata_ = text == "__metadata__";
      if (!names_.insert(text).second) corrupt("the header names {} twice", printable(text));
      entry_ = {.name = text};
      return true;
    }
    field_ = text;
    in_metadata_ ? check_pair() : check_field();
    return true;
  }

  bool string(std::string& text) override {
    if (depth_ != 2 || in_list_) misplaced(printable(text));
    if (in_metadata_) {
      table_.metadata[field_] = text;
      return true;
    }
    if (field_ != "dtype") misplaced(printable(text));
    const auto type = type_from_safetensors(text);
    base::check(type.has_value(), ErrorKind::unsupported, "{}: tensor {} has number type {}, which is not supported",
                source_, printable(entry_.name), printable(text));
    entry_.type = *type;
    return true;
  }

  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_ || in_list_ || field_ == "dtype") misplaced("a list");
    in_list_ = true;
    list_.clear();
    return true;
  }

  bool number_unsigned(uint64_t value) override {
    if (!in_list_ || value > static_cast<uint64_t>(INT64_MAX)) misplaced(fmt::to_string(value));
    if (list_.size() == kMaxExtents)
      corrupt("tensor {}: {} has more than {} numbers", printable(entry_.name), field_, kMaxExtents);
    list_.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool end_array() override {
    in_list_ = false;
    if (field_ == "shape") {
      entry_.shape = list_;
      return true;
    }
    if (list_.size() != 2 || list_[0] > list_[1])
      corrupt("tensor {}: data_offsets is {}, expected [begin, end]", printable(entry_.name), shape_text(list_));
    entry_.offset = static_cast<uint64_t>(list_[0]);
    entry_.size = static_cast<uint64_t>(list_[1] - list_[0]);
    return true;
  }

  bool end_object() override {
    --depth_;
    if (depth_ == 1 && !in_metadata_) finish_entry();
    return true;
  }

  bool null() override { misplaced("null"); }
  bool boolean(bool value) override { misplaced(value ? "true" : "false"); }
  bool number_integer(int64_t value) override { misplaced(fmt::to_string(value)); }
  bool number_float(double, const std::string& text) override { misplaced(printable(text)); }
  bool binary(json::binary_t&) override { misplaced("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    if (const auto broken = base::first_broken_utf8(header_))
      corrupt("the header is not valid UTF-8 at byte {}; the file is damaged", 8 + *broken);
    corrupt("the header is not valid JSON near byte {}; the file is damaged or its download was cut short",
            8 + position);
  }

 private:
  template <typename... Args>
  [[noreturn]] void corrupt(fmt::format_string<Args...> format, Args&&... args) {
    base::fail(ErrorKind::corrupt_file, "{}: {}", source_, fmt::format(format, std::forward<Args>(args)...));
  }

  /// `got` stands where the format wants something else.
  [[noreturn]] void misplaced(std::string_view got) {
    if (depth_ == 1) corrupt("header entry {} is {}, expected an object", printable(entry_.name), got);
    if (in_metadata_) corrupt("__metadata__ entry {} is {}, expected text", printable(field_), got);
    const bool type = field_ == "dtype";
    corrupt("tensor {}: {} {} {}, expected {}", printable(entry_.name), field_, in_list_ ? "holds" : "is", got,
            type ? "text" : "a list of whole numbers from 0 to 2^63 - 1");
  }

  void check_pair() {
    if (table_.metadata.contains(field_)) corrupt("__metadata__ has {} twice", printable(field_));
    if (table_.metadata.size() == kMaxMetadataPairs)
      corrupt("__metadata__ has more entries than the limit of {}", kMaxMetadataPairs);
  }

  void check_field() {
    const auto field = static_cast<size_t>(std::ranges::find(kFields, field_) - kFields.begin());
    if (field == kFields.size())
      corrupt("tensor {} has a field {}, expected {}", printable(entry_.name), printable(field_),
              fmt::join(kFields, ", "));
    if (seen_[field]) corrupt("tensor {} has {} twice", printable(entry_.name), field_);
    seen_.set(field);
  }

  void finish_entry() {
    for (size_t field = 0; field < kFields.size(); ++field)
      if (!seen_[field]) corrupt("tensor {} lacks {}", printable(entry_.name), kFields[field]);
    const auto elements = element_count(entry_.shape);
    const auto bytes = elements ? bytes_of(entry_.type, *elements) : std::nullopt;
    if (bytes != entry_.size)
      corrupt("tensor {} of shape {} and type {} needs {} bytes, its data_offsets span {}", printable(entry_.name),
              shape_text(entry_.shape), name(entry_.type), bytes ? fmt::to_string(*bytes) : "too many", entry_.size);
    table_.entries.push_back(std::move(entry_));
  }

  std::string_view header_, source_;
  TensorTable table_;
  std::set<std::string> names_;
  TensorEntry entry_;
  std::bitset<kFields.size()> seen_;  // of the entry's fields
  std::string field_;
  std::vector<int64_t> list_;
  int depth_ = 0;
  bool in_list_ = false;
  bool in_metadata_ = false;
};

// The format allows neither holes nor overlaps, so sorted tensors must tile the data section exactly.
void check_tiling(std::vector<TensorEntry>& entries, uint64_t data_bytes, std::string_view source) {
  std::ranges::sort(entries, [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.offset, a.size) < std::tie(b.offset, b.size);
  });
  uint64_t end = 0;
  for (const TensorEntry& entry : entries) {
    base::check(entry.offset == end, ErrorKind::corrupt_file,
                "{}: tensor {} starts at data byte {}, expected {} (no holes, no overlaps)", source,
                printable(entry.name), entry.offset, end);
    end = entry.offset + entry.size;
    base::check(end <= data_bytes, ErrorKind::corrupt_file,
                "{}: tensor {} ends at data byte {}, the file has {}; its download was cut short", source,
                printable(entry.name), end, data_bytes);
  }
  base::check(end == data_bytes, ErrorKind::corrupt_file,
              "{}: the tensors take {} bytes, the file has {} bytes of data; the rest belongs to no tensor", source,
              end, data_bytes);
}

uint64_t header_length(std::span<const std::byte> bytes) {
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  return length;
}

}  // namespace

bool looks_like_safetensors(std::span<const std::byte> bytes) {
  if (bytes.size() <= 8 || bytes[8] != std::byte{'{'}) return false;
  return header_length(bytes) <= std::max(kMaxSafetensorsHeader, bytes.size() - 8);
}

TensorTable parse_safetensors(std::span<const std::byte> bytes, std::string_view source) {
  base::check(bytes.size() >= 8, ErrorKind::corrupt_file, "{}: {} bytes are too few for a safetensors file", source,
              bytes.size());
  const uint64_t header = header_length(bytes);
  base::check(header <= bytes.size() - 8, ErrorKind::corrupt_file,
              "{}: the header claims {} bytes, the file has {}; it is no safetensors file or was cut short", source,
              header, bytes.size());
  base::check(header <= kMaxSafetensorsHeader, ErrorKind::unsupported,
              "{}: the header has {} bytes, above the format's limit of {}; split the file", source, header,
              kMaxSafetensorsHeader);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, header);
  base::check(text.starts_with('{'), ErrorKind::corrupt_file,
              "{}: the header starts with \"{}\", expected \"{{\"; this is no safetensors file", source,
              printable(text.substr(0, 16)));

  const size_t nul = text.find('\0');  // which the parser would take for the end, ignoring what follows
  base::check(nul == std::string_view::npos, ErrorKind::corrupt_file,
              "{}: the header has a NUL at byte {}; it is damaged", source, 8 + nul);
  HeaderReader reader(text, source);
  json::sax_parse(text, &reader);
  TensorTable table = reader.take();
  const uint64_t data = 8 + header;
  check_tiling(table.entries, bytes.size() - data, source);
  for (TensorEntry& entry : table.entries) entry.offset += data;
  return table;
}

std::string make_safetensors_header(TensorTable& table) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!table.metadata.empty()) header["__metadata__"] = table.metadata;
  uint64_t offset = 0;
  for (TensorEntry& entry : table.entries) {
    base::check(!traits(entry.type).safetensors.empty() && entry.name != "__metadata__", ErrorKind::unsupported,
                "tensor {} of type {} does not fit into safetensors, which takes plain numbers only",
                printable(entry.name), name(entry.type));
    header[entry.name] = {{"dtype", traits(entry.type).safetensors},
                          {"shape", entry.shape},
                          {"data_offsets", {offset, offset + entry.size}}};
    entry.offset = offset;
    offset += entry.size;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // keeps the data 8-byte aligned
  const uint64_t length = text.size();
  for (TensorEntry& entry : table.entries) entry.offset += 8 + length;
  return std::string(reinterpret_cast<const char*>(&length), 8) + text;
}

}  // namespace calotype::files
