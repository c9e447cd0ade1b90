// What a model card (README.md of a hub repository) says about the model's licence, in the YAML block at its top.
#pragma once

#include <string>
#include <string_view>

namespace calotype::hub {

struct Licence {
  std::string id;    ///< the hub's word: "apache-2.0", "other", …
  std::string name;  ///< for "other": "flux-1-dev-non-commercial-license", …
  std::string link;  ///< a URL, or a file of the repository
  std::string base_model;

  /// The name people know it by; "" when the card says nothing.
  const std::string& title() const { return name.empty() ? id : name; }
};

/// Reads the few scalar fields of the block; everything else in it is passed over. Foreign text: values come out
/// printable and cut to 200 bytes. Never fails; a card without a block gives empty fields.
Licence licence_of_card(std::string_view readme);

}  // namespace calotype::hub
