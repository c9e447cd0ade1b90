#include "text/tokenizer_spiece.h"

#include <bit>
#include <cmath>

#include "base/error.h"
#include "base/utf8.h"

namespace calotype::text {
namespace {

using base::ErrorKind;

struct Field {
  uint64_t number = 0;
  uint64_t value = 0;      ///< varints and fixed-width numbers
  std::string_view bytes;  ///< strings and messages
};

class ProtoReader {
 public:
  ProtoReader(std::string_view bytes, std::string_view where) : bytes_(bytes), where_(where) {}

  std::optional<Field> next() {
    if (bytes_.empty()) return std::nullopt;
    const uint64_t tag = varint();
    Field field;
    field.number = tag >> 3;
    switch (tag & 7) {
      case 0: field.value = varint(); break;
      case 1: field.value = fixed(8); break;
      case 2: field.bytes = take(varint()); break;
      case 5: field.value = fixed(4); break;
      default: fail("has wire type {}, which SentencePiece never writes", tag & 7);
    }
    return field;
  }

 private:
  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    base::fail(ErrorKind::corrupt_file, "{}: not a SentencePiece model or damaged: a field {}", where_,
               fmt::format(format, std::forward<Args>(args)...));
  }

  std::string_view take(uint64_t count) {
    if (count > bytes_.size()) fail("claims {} bytes where {} are left", count, bytes_.size());
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }

  uint64_t fixed(uint64_t width) {
    uint64_t value = 0;
    const std::string_view taken = take(width);
    for (size_t k = 0; k < width; ++k) value |= uint64_t{static_cast<unsigned char>(taken[k])} << (8 * k);
    return value;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint64_t byte = fixed(1);
      value |= (byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    fail("has a number of more than 10 bytes");
  }

  std::string_view bytes_, where_;
};

SpieceModel::Entry read_piece(std::string_view bytes, const std::string& where) {
  SpieceModel::Entry piece;
  ProtoReader reader(bytes, where);
  while (const auto field = reader.next()) {
    switch (field->number) {
      case 1: piece.text = field->bytes; break;
      case 2: piece.score = std::bit_cast<float>(static_cast<uint32_t>(field->value)); break;
      case 3: piece.type = static_cast<SpieceModel::Type>(field->value); break;
      default: break;
    }
  }
  base::check(!base::first_broken_utf8(piece.text), ErrorKind::corrupt_file, "{} is not valid UTF-8", where);
  base::check(std::isfinite(piece.score), ErrorKind::corrupt_file, "{} has the score {}, expected a finite number",
              where, piece.score);
  return piece;
}

void check_trainer_spec(std::string_view bytes, const std::string& name) {
  const std::string where = name + ": trainer_spec";
  ProtoReader reader(bytes, where);
  while (const auto field = reader.next()) {
    base::check(field->number != 3 || field->value == 1, ErrorKind::unsupported,
                "{}.model_type is {}, expected 1 (Unigram)", where, field->value);
    base::check(field->number != 35 || field->value == 0, ErrorKind::unsupported,
                "{}.byte_fallback is set, which T5 tokenizers do not use", where);
  }
}

std::string read_charsmap(std::string_view bytes, const std::string& name) {
  const std::string where = name + ": normalizer_spec";
  std::string charsmap;
  ProtoReader reader(bytes, where);
  while (const auto field = reader.next())
    if (field->number == 2) charsmap = field->bytes;
  return charsmap;
}

}  // namespace

SpieceModel read_spiece_model(const TokenizerFile& file) {
  SpieceModel model;
  std::optional<int32_t> unk;
  ProtoReader reader(file.bytes, file.name);
  while (const auto field = reader.next()) {
    if (field->number == 1) {
      const size_t id = model.pieces.size();
      base::check(id < kMostIds, ErrorKind::corrupt_file, "{}: more than {} pieces", file.name, kMostIds);
      model.pieces.push_back(read_piece(field->bytes, fmt::format("{}: pieces[{}]", file.name, id)));
      if (model.pieces.back().type != SpieceModel::Type::unknown) continue;
      base::check(!unk, ErrorKind::corrupt_file, "{}: pieces {} and {} are both of type UNKNOWN", file.name,
                  unk.value_or(0), id);
      unk = static_cast<int32_t>(id);
    } else if (field->number == 2) {
      check_trainer_spec(field->bytes, file.name);
    } else if (field->number == 3) {
      model.charsmap = read_charsmap(field->bytes, file.name);
    }
  }
  base::check(unk.has_value(), ErrorKind::corrupt_file, "{}: none of {} pieces is of type UNKNOWN", file.name,
              model.pieces.size());
  model.unk = *unk;
  return model;
}

}  // namespace calotype::text
