#include "adapters/lora_names.h"

#include <algorithm>
#include <map>
#include <optional>

#include "weights/key_map.h"

namespace calotype::adapters {
namespace {

using std::string_view;

// In front of a layer's name; several may follow each other.
constexpr string_view kPrefixes[] = {
    "base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.",
    "lora_unet_",        "lora_transformer_",      "lycoris_",         "unet.",
};

constexpr string_view kTextPrefixes[] = {
    "text_encoder.", "text_encoder_2.", "text_encoders.", "text_model.", "lora_te_",    "lora_te1_",
    "lora_te2_",     "lora_te3_",       "clip_l.",        "t5xxl.",      "bundle_emb.", "lora_prior_te_",
};

struct Ending {
  string_view text;
  Role role;
  string_view kind = "";
};

// Longer ones stand before those that they end in.
constexpr Ending kEndings[] = {
    {".lora_A.weight.alpha", Role::alpha},
    {".lora_A.alpha", Role::alpha},
    {".alpha", Role::alpha},
    {".lora_A.weight", Role::down},
    {".lora_B.weight", Role::up},
    {".lora_A", Role::down},
    {".lora_B", Role::up},
    {".lora_down.weight", Role::down},
    {".lora_up.weight", Role::up},
    {".lora.down.weight", Role::down},
    {".lora.up.weight", Role::up},
    {".lora_linear_layer.down.weight", Role::down},
    {".lora_linear_layer.up.weight", Role::up},
    {".dora_scale", Role::foreign, "DoRA adapter"},
    {".lora_magnitude_vector", Role::foreign, "DoRA adapter"},
    {".lora_magnitude_vector.weight", Role::foreign, "DoRA adapter"},
    {".lora_B.bias", Role::foreign, "LoRA with biases, as control adapters have them"},
    {".lora_up.bias", Role::foreign, "LoRA with biases"},
    {".lora_mid.weight", Role::foreign, "LoRA in three factors (CP decomposition)"},
    {".set_weight", Role::foreign, "adapter that replaces whole weights"},
    {".diff", Role::foreign, "adapter of full differences"},
    {".diff_b", Role::foreign, "adapter of full differences"},
    {".oft_blocks", Role::foreign, "OFT adapter"},
    {".oft_diag", Role::foreign, "OFT adapter"},
    {".oft_R.weight", Role::foreign, "OFT adapter"},
    {".a1.weight", Role::foreign, "GLoRA adapter"},
    {".a2.weight", Role::foreign, "GLoRA adapter"},
    {".b1.weight", Role::foreign, "GLoRA adapter"},
    {".b2.weight", Role::foreign, "GLoRA adapter"},
};

// Families of endings: ".lokr_w1", ".lokr_w2_a", …
constexpr Ending kFamilies[] = {
    {".lokr_", Role::foreign, "LoKr adapter"},
    {".hada_", Role::foreign, "LoHa adapter"},
    {".ia3_", Role::foreign, "IA3 adapter"},
};

// PEFT puts the adapter's name in between: ".lora_A.default.weight".
constexpr Ending kNamed[] = {
    {".lora_A.", Role::down},
    {".lora_B.", Role::up},
    {".lora_magnitude_vector.", Role::foreign, "DoRA adapter"},
};

struct Split {
  string_view stem;
  Role role = Role::none;
  string_view kind;
};

std::optional<Split> split_named(string_view name) {
  constexpr string_view kWeight = ".weight";
  if (!name.ends_with(kWeight)) return std::nullopt;
  const string_view front = name.substr(0, name.size() - kWeight.size());
  const size_t dot = front.rfind('.');
  if (dot == string_view::npos || dot + 1 == front.size()) return std::nullopt;
  for (const Ending& named : kNamed)
    if (front.substr(0, dot + 1).ends_with(named.text))
      return Split{front.substr(0, dot + 1 - named.text.size()), named.role, named.kind};
  return std::nullopt;
}

Split split_role(string_view name) {
  for (const Ending& ending : kEndings)
    if (name.ends_with(ending.text))
      return {name.substr(0, name.size() - ending.text.size()), ending.role, ending.kind};
  for (const Ending& family : kFamilies)
    if (const size_t at = name.rfind(family.text); at != string_view::npos && at == name.rfind('.'))
      return {name.substr(0, at), family.role, family.kind};
  return split_named(name).value_or(Split{name, Role::none, ""});
}

/// XLabs: "<block>.processor.<layer>.down.weight".
std::optional<Split> split_xlabs(string_view name) {
  if (name.find(".processor.") == string_view::npos) return std::nullopt;
  for (const auto& [text, role] : {std::pair{string_view(".down.weight"), Role::down}, {".up.weight", Role::up}})
    if (name.ends_with(text)) return Split{name.substr(0, name.size() - text.size()), role, ""};
  return std::nullopt;
}

/// Where a layer of any dialect is in our model; block numbers stand as "*".
struct Target {
  std::string layer;
  int part = 0, parts = 1, span = 1;
  bool swapped = false;
};

constexpr string_view kLinears[] = {
    "img_in",
    "txt_in",
    "time_in.in_layer",
    "time_in.out_layer",
    "vector_in.in_layer",
    "vector_in.out_layer",
    "guidance_in.in_layer",
    "guidance_in.out_layer",
    "final_layer.linear",
    "final_layer.adaLN_modulation.1",
    "double_blocks.*.img_mod.lin",
    "double_blocks.*.img_attn.qkv",
    "double_blocks.*.img_attn.proj",
    "double_blocks.*.img_mlp.0",
    "double_blocks.*.img_mlp.2",
    "double_blocks.*.txt_mod.lin",
    "double_blocks.*.txt_attn.qkv",
    "double_blocks.*.txt_attn.proj",
    "double_blocks.*.txt_mlp.0",
    "double_blocks.*.txt_mlp.2",
    "single_blocks.*.modulation.lin",
    "single_blocks.*.linear1",
    "single_blocks.*.linear2",
};

struct XlabsLayer {
  string_view theirs;
  string_view ours;
  int parts = 1, span = 1;
};
constexpr XlabsLayer kXlabs[] = {
    {"double_blocks.*.processor.qkv_lora1", "double_blocks.*.img_attn.qkv"},
    {"double_blocks.*.processor.proj_lora1", "double_blocks.*.img_attn.proj"},
    {"double_blocks.*.processor.qkv_lora2", "double_blocks.*.txt_attn.qkv"},
    {"double_blocks.*.processor.proj_lora2", "double_blocks.*.txt_attn.proj"},
    {"single_blocks.*.processor.qkv_lora", "single_blocks.*.linear1", 4, 3},
    {"single_blocks.*.processor.proj_lora", "single_blocks.*.linear2"},
};

constexpr string_view kBlocks = "blocks";

/// The first number behind "blocks." or "blocks_" is the block's; others ("to_out.0") belong to the layer.
struct Numbered {
  std::string pattern, number;
};
Numbered take_number(string_view name) {
  const size_t at = name.find(kBlocks);
  if (at == string_view::npos) return {std::string(name), ""};
  const size_t begin = at + kBlocks.size() + 1;
  if (begin >= name.size()) return {std::string(name), ""};
  const size_t end = std::min(name.find_first_not_of("0123456789", begin), name.size());
  constexpr size_t kMaxDigits = 3;
  const bool leading_zero = end - begin > 1 && name[begin] == '0';
  if (end == begin || end - begin > kMaxDigits || leading_zero) return {std::string(name), ""};
  return {std::string(name.substr(0, begin)) + "*" + std::string(name.substr(end)),
          std::string(name.substr(begin, end - begin))};
}

std::string put_number(std::string pattern, const std::string& number) {
  const size_t star = pattern.find('*');
  return star == std::string::npos ? pattern : pattern.replace(star, 1, number);
}

std::string flattened(string_view name) {
  std::string flat(name);
  std::ranges::replace(flat, '.', '_');
  return flat;
}

using Table = std::map<std::string, Target, std::less<>>;

/// By name with "_" for ".": several programs write names so, and splitting them again is guesswork ("to_add_out").
Table make_table() {
  Table table;
  for (const string_view ours : kLinears) {
    const std::string layer(ours);
    table[flattened(ours)] = {.layer = layer};
    for (const ModuleName& theirs : diffusers_modules(put_number(layer, "0")))
      table[flattened(take_number(theirs.name).pattern)] = {
          .layer = layer, .part = theirs.part, .parts = theirs.parts, .swapped = theirs.swapped};
  }
  for (const XlabsLayer& x : kXlabs)
    table[flattened(x.theirs)] = {.layer = std::string(x.ours), .parts = x.parts, .span = x.span};
  return table;
}

bool starts_text_encoder(string_view name) {
  return std::ranges::any_of(kTextPrefixes, [&](string_view prefix) { return name.starts_with(prefix); });
}

/// Takes one prefix away; false when there is none.
bool strip_prefix(string_view& name) {
  for (const string_view prefix : kPrefixes) {
    if (!name.starts_with(prefix)) continue;
    name.remove_prefix(prefix.size());
    return true;
  }
  return false;
}

}  // namespace

std::vector<ModuleName> diffusers_modules(string_view layer) {
  std::vector<ModuleName> modules;
  for (weights::DiffusersKey& key : weights::diffusers_keys(std::string(layer) + ".weight", {})) {
    key.name.resize(key.name.rfind('.'));
    modules.push_back({std::move(key.name), key.part, key.parts, key.swapped});
  }
  return modules;
}

AdapterKey adapter_key(string_view stored_name) {
  static const Table table = make_table();
  const Split split = split_xlabs(stored_name).value_or(split_role(stored_name));
  AdapterKey key{.role = split.role, .kind = split.kind, .stem = std::string(split.stem)};
  string_view module = split.stem;
  bool text = starts_text_encoder(module);
  while (!text && strip_prefix(module)) text = starts_text_encoder(module);
  key.module = module;
  if (text) {
    key.place = Place::text_encoder;
    return key;
  }
  const Numbered numbered = take_number(module);
  const auto found = table.find(flattened(numbered.pattern));
  if (found == table.end()) return key;
  const Target& target = found->second;
  // A "*" of the stored name itself names no block.
  if (target.layer.find('*') != std::string::npos && numbered.number.empty()) return key;
  key.place = Place::transformer;
  key.layer = put_number(target.layer, numbered.number);
  key.part = target.part, key.parts = target.parts, key.span = target.span, key.swapped = target.swapped;
  return key;
}

}  // namespace calotype::adapters
