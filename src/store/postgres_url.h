// "postgresql://user:password@host:port/name?option=value" in the words that POCO passes to libpq. Only src/store
// includes this.
#pragma once

#include <string>

namespace calotype::store {

/// "host=… port=… user=… password=… dbname=… option=value …". Error bad_input, without the password, for what cannot be
/// passed on: a broken URL, or a space in a value (POCO 1.11 splits at spaces).
std::string connection_words(const std::string& url);

}  // namespace calotype::store
