#include "files/shard_index.h"

#include <algorithm>
#include <set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/bounded_json.h"

namespace calotype::files {
namespace fs = std::filesystem;
using base::ErrorKind;
using base::printable;
using nlohmann::json;

namespace {

constexpr uint64_t kMaxJsonBytes = 16 << 20;  // the real index of FLUX.1 has 120 kB

bool is_plain_name(const std::string& name) {
  const auto forbidden = [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == '/' || c == '\\' || c == 0x7F;
  };
  return !name.empty() && name.size() < 256 && name != "." && name != ".." && std::ranges::none_of(name, forbidden);
}

}  // namespace

json parse_json_object(std::string_view text, std::string_view source) {
  json object = parse_bounded_json(text, source);
  base::check(object.is_object(), ErrorKind::corrupt_file, "{}: holds a JSON {}, expected an object", source,
              object.type_name());
  return object;
}

json read_json_object(const fs::path& path) {
  return parse_json_object(base::read_file(path, kMaxJsonBytes), path.string());
}

std::map<std::string, std::string> parse_shard_index(std::string_view text, std::string_view source) {
  const json object = parse_json_object(text, source);
  const auto weight_map = object.find("weight_map");
  base::check(weight_map != object.end() && weight_map->is_object(), ErrorKind::corrupt_file,
              "{}: has no object weight_map, expected {{\"weight_map\": {{tensor: file}}}}", source);
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, file] : weight_map->items()) {
    base::check(file.is_string() && is_plain_name(file.get_ref<const std::string&>()), ErrorKind::corrupt_file,
                "{}: tensor {} is said to be in {}, expected the plain name of a file in the same folder", source,
                printable(tensor), printable(file.dump(-1, ' ', false, json::error_handler_t::replace)));
    shards[tensor] = file.get<std::string>();
  }
  return shards;
}

std::vector<TensorFile> open_shards(const fs::path& index) {
  const auto weight_map = parse_shard_index(base::read_file(index, kMaxJsonBytes), index.string());
  std::map<std::string, std::set<std::string>> promised;
  for (const auto& [tensor, shard] : weight_map) promised[shard].insert(tensor);
  std::vector<TensorFile> files;
  for (auto& [shard, tensors] : promised) {
    const fs::path path = index.parent_path() / shard;
    std::error_code ignored;
    base::check(fs::exists(path, ignored), ErrorKind::not_found,
                "{}: missing; {} says that it holds {} of {} tensors, fetch it again", path.string(),
                index.filename().string(), tensors.size(), weight_map.size());
    files.push_back(open_tensor_file(path));
    for (const StoredTensor& tensor : files.back().tensors) tensors.erase(tensor.name);
    base::check(tensors.empty(), ErrorKind::corrupt_file, "{}: lacks tensor {} that {} promises; fetch it again",
                path.string(), tensors.empty() ? "" : printable(*tensors.begin()), index.filename().string());
  }
  return files;
}

}  // namespace calotype::files
