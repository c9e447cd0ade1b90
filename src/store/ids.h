// Names that nobody can guess, and the check of names that users choose.
//
//   std::string id = new_id();              // "k3v9q0x7d1rgp0cm4t2be8w5na"
//   check_name("model name", request.name); // Error bad_input naming the field
//
// Thread-safe. Tokens and random bytes: hub/signature.h.
#pragma once

#include <string>
#include <string_view>

namespace calotype::store {

/// 26 digits and lower-case letters: 134 bits, the shape of Replicate's job ids.
std::string new_id();

/// Owners and names of models and deployments: 1 to 64 of a-z, 0-9, ".", "_", "-", the first and the last a letter or
/// digit. Error bad_input otherwise, which begins with `field`.
void check_name(std::string_view field, std::string_view name);

/// Ids that callers choose for jobs: 1 to 64 letters, digits, "_", "-". Error bad_input otherwise.
void check_id(std::string_view field, std::string_view id);

}  // namespace calotype::store
