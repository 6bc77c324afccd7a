// libcurl, loaded by the first who speaks HTTP to others (shared_library.hpp): on a blocking thread, which waits for it once,
// some 5 to 20 ms. Nobody else may: definitions are checked without it (web_url.hpp). Functions have their names without
// `curl_`; what they do and return says https://curl.se/libcurl/c/.
#pragma once

#include <curl/curl.h>

#include "runtime/shared_library.hpp"

namespace penstock::runtime {

class libcurl {
 public:
  // Loaded and initialised, for the whole process. Throws std::runtime_error when that cannot be.
  static const libcurl& get();

 private:
  libcurl();
  const shared_library file_{"libcurl.so.4", "libcurl4"};

 public:
#define PENSTOCK_CURL(name) decltype(&::curl_##name) const name = file_.function<decltype(::curl_##name)>("curl_" #name)
  PENSTOCK_CURL(global_init);
  PENSTOCK_CURL(easy_init);
  PENSTOCK_CURL(easy_cleanup);
  PENSTOCK_CURL(easy_reset);
  PENSTOCK_CURL(easy_setopt);
  PENSTOCK_CURL(easy_getinfo);
  PENSTOCK_CURL(easy_perform);
  PENSTOCK_CURL(easy_strerror);
  PENSTOCK_CURL(multi_init);
  PENSTOCK_CURL(multi_cleanup);
  PENSTOCK_CURL(multi_add_handle);
  PENSTOCK_CURL(multi_remove_handle);
  PENSTOCK_CURL(multi_perform);
  PENSTOCK_CURL(multi_poll);
  PENSTOCK_CURL(multi_wakeup);
  PENSTOCK_CURL(multi_info_read);
  PENSTOCK_CURL(slist_append);
  PENSTOCK_CURL(slist_free_all);
  PENSTOCK_CURL(getdate);
#undef PENSTOCK_CURL
};

inline const libcurl& curl() { return libcurl::get(); }

}  // namespace penstock::runtime
