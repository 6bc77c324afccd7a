#include "runtime/libcurl.hpp"

#include <stdexcept>

namespace penstock::runtime {

libcurl::libcurl() {
  if (global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) throw std::runtime_error("libcurl cannot be used");
}

const libcurl& libcurl::get() {
  static const libcurl loaded;
  return loaded;
}

}  // namespace penstock::runtime
