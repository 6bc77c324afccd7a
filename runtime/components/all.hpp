// One registration function per component file, called by make_registry() in all.cpp.
#pragma once

#include "runtime/registry.hpp"

namespace penstock::runtime::components {

// sources
void add_webhook_source(registry& r);
void add_topic_source(registry& r);
void add_topics_source(registry& r);
void add_file_source(registry& r);
void add_generate_source(registry& r);
void add_folder_source(registry& r);
void add_http_poll_source(registry& r);
void add_command_source(registry& r);
void add_lines_source(registry& r);
void add_websocket_source(registry& r);
void add_sse_source(registry& r);
// steps
void add_filter_step(registry& r);
void add_map_step(registry& r);
void add_script_step(registry& r);
void add_dedupe_step(registry& r);
void add_route_step(registry& r);
void add_split_step(registry& r);
void add_select_step(registry& r);
void add_rename_step(registry& r);
void add_cast_step(registry& r);
void add_flatten_step(registry& r);
void add_throttle_step(registry& r);
void add_alert_step(registry& r);
void add_sql_step(registry& r);
void add_log_step(registry& r);
void add_exec_step(registry& r);
void add_enrich_step(registry& r);
void add_window_step(registry& r);
void add_join_step(registry& r);
// sinks
void add_topic_sink(registry& r);
void add_file_sink(registry& r);
void add_sqlite_sink(registry& r);
void add_http_sink(registry& r);
void add_subscribers_sink(registry& r);
void add_stdout_sink(registry& r);
void add_drop_sink(registry& r);
void add_command_sink(registry& r);
void add_tcp_sink(registry& r);

}  // namespace penstock::runtime::components
