// Names of adapter tensors in any dialect: a layer that is recognised is one that diffusers' names lead to as well.
#include "adapters/lora_names.h"
#include "fuzz.h"

namespace calotype::fuzz {

void fuzz_one(std::string_view input) {
  using adapters::Place;
  using adapters::Role;
  const adapters::AdapterKey key = adapters::adapter_key(input);
  require(input.starts_with(key.stem), "the stem starts the stored name");
  require(key.stem.ends_with(key.module), "the module ends the stem");
  require((key.role == Role::foreign) == !key.kind.empty(), "other kinds of adapters are named");
  if (key.place != Place::transformer) {
    require(key.layer.empty(), "only the transformer's layers have our names");
    return;
  }
  require(key.part >= 0 && key.span >= 1 && key.part + key.span <= key.parts && key.parts <= 4,
          "parts lie in the layer");
  require(key.layer.find('*') == std::string::npos, "blocks have numbers");
  const auto modules = adapters::diffusers_modules(key.layer);
  require(!modules.empty(), "every layer has diffusers names");
  for (const adapters::ModuleName& module : modules) {
    const adapters::AdapterKey back = adapters::adapter_key("transformer." + module.name + ".lora_A.weight");
    require(back.place == Place::transformer && back.layer == key.layer, "there and back is the identity");
    require(back.part == module.part && back.parts == module.parts && back.swapped == module.swapped,
            "a piece stays the piece it is");
    require(back.role == Role::down && back.module == module.name, "roles and prefixes come off");
  }
}

}  // namespace calotype::fuzz
