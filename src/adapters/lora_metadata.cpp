#include "adapters/lora_metadata.h"

#include <cmath>

#include "base/error.h"
#include "files/shard_index.h"

namespace calotype::adapters {

using base::check;
using base::ErrorKind;
using base::printable;
using nlohmann::json;

namespace {

constexpr std::string_view kPrefix = "transformer.";

/// The value that most modules share: the rest become patterns.
template <typename Value>
Value commonest(const std::vector<Value>& values) {
  std::map<Value, int> counts;
  for (const Value value : values) ++counts[value];
  Value best{};
  int most = 0;
  for (const auto& [value, count] : counts)
    if (count > most) best = value, most = count;
  return best;
}

/// 6.0 as 6: PEFT's own files have whole numbers.
json as_number(double value) {
  const auto whole = static_cast<int64_t>(value);
  return static_cast<double>(whole) == value ? json(whole) : json(value);
}

}  // namespace

PeftScales::PeftScales(json config, std::string source) : config_(std::move(config)), source_(std::move(source)) {
  for (const char* field : {"r", "lora_alpha"}) {
    const auto found = config_.find(field);
    check(found == config_.end() || (found->is_number() && found->get<double>() >= 0), ErrorKind::corrupt_file,
          "{}: metadata {}: transformer.{} is {}, expected a number of at least 0", source_, kPeftMetadata, field,
          found == config_.end() ? "absent" : printable(found->dump()));
  }
  for (const char* field : {"rank_pattern", "alpha_pattern"}) {
    const auto found = config_.find(field);
    if (found == config_.end() || found->is_null()) continue;
    check(found->is_object(), ErrorKind::corrupt_file,
          "{}: metadata {}: transformer.{} is {}, expected numbers by module", source_, kPeftMetadata, field,
          printable(found->dump()));
    for (const auto& [pattern, value] : found->items())
      check(value.is_number(), ErrorKind::corrupt_file,
            "{}: metadata {}: transformer.{} of {} is {}, expected a number", source_, kPeftMetadata, field,
            printable(pattern), printable(value.dump()));
  }
}

// PEFT matches "(.*\.)?(pattern)$". Only plain names are understood here, with dots as they are or escaped: a regular
// expression from a stranger's file can take any time to match.
bool PeftScales::matches(std::string_view pattern, std::string_view module) const {
  const bool anchored = pattern.starts_with('^');
  std::string plain;
  for (size_t i = anchored ? 1 : 0; i < pattern.size(); ++i) {
    const bool last = i + 1 == pattern.size();
    if (pattern[i] == '\\' && !last && pattern[i + 1] == '.') continue;
    if (pattern[i] == '$' && last) continue;
    check(std::string_view("*+?()[]{}|\\^$").find(pattern[i]) == std::string_view::npos, ErrorKind::unsupported,
          "{}: metadata {}: the pattern {} is a regular expression, expected names of modules", source_, kPeftMetadata,
          printable(pattern));
    plain += pattern[i];
  }
  return module == plain || (!anchored && module.ends_with("." + plain));
}

std::optional<double> PeftScales::number(std::string_view module, const char* general, const char* patterns) const {
  const auto list = config_.find(patterns);
  if (list != config_.end() && list->is_object())
    for (const auto& [pattern, value] : list->items())
      if (matches(pattern, module)) return value.get<double>();
  const auto found = config_.find(general);
  return found == config_.end() ? std::nullopt : std::optional(found->get<double>());
}

double PeftScales::scale(std::string_view module, int64_t rank) const {
  const auto stated = number(module, "r", "rank_pattern");
  check(!stated || *stated == static_cast<double>(rank), ErrorKind::corrupt_file,
        "{}: metadata {} gives {} the rank {}, its matrices have {}; the file was changed without its metadata",
        source_, kPeftMetadata, printable(module), stated.value_or(0), rank);
  const auto alpha = number(module, "lora_alpha", "alpha_pattern");
  if (!alpha) return 1;
  const auto stabilised = config_.find("use_rslora");
  const bool root = stabilised != config_.end() && stabilised->is_boolean() && stabilised->get<bool>();
  return *alpha / (root ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
}

std::optional<PeftScales> peft_scales(const std::map<std::string, std::string>& metadata, const std::string& source) {
  const auto text = metadata.find(kPeftMetadata);
  if (text == metadata.end()) return std::nullopt;
  const json all = files::parse_json_object(text->second, source + ": metadata " + kPeftMetadata);
  json config = json::object();
  for (const auto& [key, value] : all.items())
    if (key.starts_with(kPrefix)) config[key.substr(kPrefix.size())] = value;
  if (config.empty()) return std::nullopt;
  return PeftScales(std::move(config), source);
}

std::string peft_metadata(const std::vector<ModuleRank>& modules) {
  std::vector<int64_t> ranks;
  std::vector<double> alphas;
  json names = json::array();
  for (const ModuleRank& m : modules) {
    ranks.push_back(m.rank);
    alphas.push_back(m.alpha);
    names.push_back(m.module);
  }
  const int64_t rank = commonest(ranks);
  const double alpha = commonest(alphas);
  json rank_pattern = json::object(), alpha_pattern = json::object();
  for (const ModuleRank& m : modules) {
    // "^": PEFT would take "proj_out" for every module whose name ends so.
    if (m.rank != rank) rank_pattern["^" + m.module] = m.rank;
    if (m.alpha != alpha) alpha_pattern["^" + m.module] = as_number(m.alpha);
  }
  return json{{"transformer.r", rank},
              {"transformer.lora_alpha", as_number(alpha)},
              {"transformer.rank_pattern", rank_pattern},
              {"transformer.alpha_pattern", alpha_pattern},
              {"transformer.target_modules", names}}
      .dump();
}

}  // namespace calotype::adapters
