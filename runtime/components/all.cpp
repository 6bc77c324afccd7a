// The one list of everything that can stand in `from`, `steps` and `to`.
#include "runtime/components/all.hpp"

namespace penstock::runtime {

registry make_registry() {
  registry r;
  components::add_webhook_source(r);
  components::add_topic_source(r);
  components::add_topics_source(r);
  components::add_file_source(r);
  components::add_generate_source(r);
  components::add_folder_source(r);
  components::add_http_poll_source(r);
  components::add_command_source(r);
  components::add_lines_source(r);
  components::add_websocket_source(r);
  components::add_sse_source(r);

  components::add_filter_step(r);
  components::add_map_step(r);
  components::add_script_step(r);
  components::add_dedupe_step(r);
  components::add_route_step(r);
  components::add_split_step(r);
  components::add_select_step(r);
  components::add_rename_step(r);
  components::add_cast_step(r);
  components::add_flatten_step(r);
  components::add_throttle_step(r);
  components::add_alert_step(r);
  components::add_sql_step(r);
  components::add_log_step(r);
  components::add_exec_step(r);

  components::add_enrich_step(r);
  components::add_window_step(r);
  components::add_join_step(r);

  components::add_topic_sink(r);
  components::add_file_sink(r);
  components::add_sqlite_sink(r);
  components::add_http_sink(r);
  components::add_subscribers_sink(r);
  components::add_stdout_sink(r);
  components::add_drop_sink(r);
  components::add_command_sink(r);
  components::add_tcp_sink(r);
  return r;
}

}  // namespace penstock::runtime
