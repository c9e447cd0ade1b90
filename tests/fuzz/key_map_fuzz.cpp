// Tensor names of any layout: ours to diffusers' and back is the identity, piece by piece.
#include "weights/key_map.h"

#include "fuzz.h"

namespace calotype::fuzz {

void fuzz_one(std::string_view input) {
  using weights::Component;
  const weights::KeyContext context = weights::key_context({std::string(input)});
  const auto key = weights::canonical_key(input, context);
  if (!key) return;
  require(key->part >= 0 && key->part < key->parts && key->parts <= 4, "a piece is one of those it belongs to");

  const weights::KeyContext ours = weights::key_context({std::string(input), key->name});
  const auto again = weights::canonical_key(key->name, ours);
  require(again && again->name == key->name && again->component == key->component, "our names stand for themselves");
  require(again->parts == 1 && !again->swapped, "our names stand for whole tensors");

  const auto pieces = weights::diffusers_keys(key->name, ours);
  if (key->component == Component::clip || key->component == Component::t5) {
    require(pieces.empty(), "text encoders have no diffusers names");
    return;
  }
  require(!pieces.empty(), "every tensor has diffusers names");
  for (size_t i = 0; i < pieces.size(); ++i) {
    const weights::DiffusersKey& piece = pieces[i];
    require(piece.part == static_cast<int>(i) && piece.parts == static_cast<int>(pieces.size()), "pieces are complete");
    const auto back = weights::canonical_key(piece.name, ours);
    require(back && back->name == key->name && back->component == key->component, "there and back is the identity");
    const bool same_piece = back->part == piece.part && back->parts == piece.parts && back->swapped == piece.swapped;
    require(same_piece || piece.name == key->name, "a piece stays the piece it is");
  }
}

}  // namespace calotype::fuzz
