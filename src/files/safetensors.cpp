#include "files/safetensors.h"

#include <algorithm>
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

// Builds the table while the header is parsed, so that a hostile header never becomes a tree in memory: the only nesting
// accepted is {name: {field: scalar or list of integers}} and {"__metadata__": {key: string}}.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  explicit HeaderReader(std::string_view source) : source_(source) {}

  TensorTable take() { return std::move(table_); }

  bool start_object(size_t) override {
    if (depth_ > 1 || in_list_) bad("has an object where a value was expected");
    ++depth_;
    if (depth_ == 2) fields_ = {};
    return true;
  }

  bool key(std::string& text) override {
    if (depth_ == 1) {
      in_metadata_ = text == "__metadata__";
      if (!names_.insert(text).second) corrupt("the header names tensor {} twice", printable(text));
      entry_ = {.name = text};
    } else {
      field_ = text;
    }
    return true;
  }

  bool string(std::string& text) override {
    if (depth_ != 2 || in_list_) bad("has text where an object was expected");
    if (in_metadata_) {
      table_.metadata[field_] = text;
      return true;
    }
    if (field_ != "dtype") bad(fmt::format("field {} is text", printable(field_)));
    const auto type = type_from_safetensors(text);
    base::check(type.has_value(), ErrorKind::unsupported, "{}: tensor {} has number type {}, which is not supported",
                source_, printable(entry_.name), printable(text));
    entry_.type = *type;
    fields_.type = true;
    return true;
  }

  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_ || in_list_) bad("has a list where it does not belong");
    if (field_ != "shape" && field_ != "data_offsets") bad(fmt::format("field {} is a list", printable(field_)));
    in_list_ = true;
    list_.clear();
    return true;
  }

  bool number_unsigned(uint64_t value) override {
    if (!in_list_) bad("has a number where it does not belong");
    if (list_.size() == 16) bad(fmt::format("{} has more than 16 numbers", field_));
    if (value > static_cast<uint64_t>(INT64_MAX)) bad(fmt::format("{} holds {}, too large", field_, value));
    list_.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool end_array() override {
    in_list_ = false;
    if (field_ == "shape") {
      entry_.shape = list_;
      fields_.shape = true;
      return true;
    }
    if (list_.size() != 2 || list_[0] > list_[1])
      bad(fmt::format("data_offsets is {}, expected [begin, end]", shape_text(list_)));
    entry_.offset = static_cast<uint64_t>(list_[0]);
    entry_.size = static_cast<uint64_t>(list_[1] - list_[0]);
    fields_.offsets = true;
    return true;
  }

  bool end_object() override {
    --depth_;
    if (depth_ == 1 && !in_metadata_) finish_entry();
    return true;
  }

  bool null() override { bad("has null for a value"); }
  bool boolean(bool) override { bad("has a boolean for a value"); }
  bool number_integer(int64_t) override { bad(fmt::format("field {} is negative", printable(field_))); }
  bool number_float(double, const std::string&) override { bad(fmt::format("field {} is not whole", printable(field_))); }
  bool binary(json::binary_t&) override { bad("has binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    corrupt("the header is not valid JSON at byte {}; the file is damaged or its download was cut short", position + 8);
  }

 private:
  template <typename... Args>
  [[noreturn]] void corrupt(fmt::format_string<Args...> format, Args&&... args) {
    base::fail(ErrorKind::corrupt_file, "{}: {}", source_, fmt::format(format, std::forward<Args>(args)...));
  }

  [[noreturn]] void bad(std::string_view what) { corrupt("header entry {} {}", printable(entry_.name), what); }

  void finish_entry() {
    if (!fields_.type || !fields_.shape || !fields_.offsets) bad("lacks dtype, shape or data_offsets");
    const auto elements = element_count(entry_.shape);
    const auto bytes = elements ? bytes_of(entry_.type, *elements) : std::nullopt;
    if (bytes != entry_.size)
      corrupt("tensor {} of shape {} and type {} needs {} bytes, its data_offsets span {}", printable(entry_.name),
              shape_text(entry_.shape), name(entry_.type), bytes ? fmt::to_string(*bytes) : "too many", entry_.size);
    table_.entries.push_back(std::move(entry_));
  }

  std::string_view source_;
  TensorTable table_;
  std::set<std::string> names_;
  TensorEntry entry_;
  struct {
    bool type = false, shape = false, offsets = false;
  } fields_;
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
  }
  base::check(end == data_bytes, ErrorKind::corrupt_file,
              "{}: the header describes {} bytes of data, the file has {}; {}", source, end, data_bytes,
              end > data_bytes ? "its download was cut short" : "it has bytes that belong to no tensor");
}

}  // namespace

TensorTable parse_safetensors(std::span<const std::byte> bytes, std::string_view source) {
  uint64_t header = 0;
  base::check(bytes.size() >= 8, ErrorKind::corrupt_file, "{}: {} bytes are too few for a safetensors file", source,
              bytes.size());
  std::memcpy(&header, bytes.data(), 8);
  base::check(header <= kMaxSafetensorsHeader, ErrorKind::corrupt_file,
              "{}: not safetensors (or its header of {} bytes exceeds the limit of {}); expected safetensors or GGUF",
              source, header, kMaxSafetensorsHeader);
  base::check(header <= bytes.size() - 8, ErrorKind::corrupt_file,
              "{}: the header claims {} bytes, the file has {}; it is no safetensors file or was cut short", source,
              header, bytes.size());
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, header);
  base::check(text.starts_with('{'), ErrorKind::corrupt_file,
              "{}: the header starts with \"{}\", expected \"{{\"; this is no safetensors file", source,
              printable(text.substr(0, 16)));

  HeaderReader reader(source);
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
