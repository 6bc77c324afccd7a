// One namespace and registration function per component file, called by make_registry() in all.cpp.
#pragma once

#include "runtime/registry.hpp"

namespace penstock::runtime::components {

// sources
namespace webhook_source { void add(registry& r); }
namespace topic_source { void add(registry& r); }
namespace topics_source { void add(registry& r); }
namespace file_source { void add(registry& r); }
namespace generate_source { void add(registry& r); }
namespace folder_source { void add(registry& r); }
namespace http_poll_source { void add(registry& r); }
namespace command_source { void add(registry& r); }
namespace lines_source { void add(registry& r); }
namespace websocket_source { void add(registry& r); }
namespace sse_source { void add(registry& r); }
// steps
namespace filter_step { void add(registry& r); }
namespace map_step { void add(registry& r); }
namespace script_step { void add(registry& r); }
namespace dedupe_step { void add(registry& r); }
namespace route_step { void add(registry& r); }
namespace split_step { void add(registry& r); }
namespace select_step { void add(registry& r); }
namespace rename_step { void add(registry& r); }
namespace cast_step { void add(registry& r); }
namespace flatten_step { void add(registry& r); }
namespace throttle_step { void add(registry& r); }
namespace alert_step { void add(registry& r); }
namespace sql_step { void add(registry& r); }
namespace log_step { void add(registry& r); }
namespace exec_step { void add(registry& r); }
namespace enrich_step { void add(registry& r); }
namespace window_step { void add(registry& r); }
namespace join_step { void add(registry& r); }
// sinks
namespace topic_sink { void add(registry& r); }
namespace file_sink { void add(registry& r); }
namespace sqlite_sink { void add(registry& r); }
namespace http_sink { void add(registry& r); }
namespace subscribers_sink { void add(registry& r); }
namespace stdout_sink { void add(registry& r); }
namespace drop_sink { void add(registry& r); }
namespace command_sink { void add(registry& r); }
namespace tcp_sink { void add(registry& r); }

}  // namespace penstock::runtime::components
