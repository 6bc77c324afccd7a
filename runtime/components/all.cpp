// The one list of everything that can stand in `from`, `steps` and `to`.
#include "runtime/components/all.hpp"

namespace penstock::runtime {

registry make_registry() {
  registry r;
  components::webhook_source::add(r);
  components::topic_source::add(r);
  components::topics_source::add(r);
  components::file_source::add(r);
  components::generate_source::add(r);
  components::folder_source::add(r);
  components::http_poll_source::add(r);
  components::command_source::add(r);
  components::lines_source::add(r);
  components::websocket_source::add(r);
  components::sse_source::add(r);

  components::filter_step::add(r);
  components::map_step::add(r);
  components::script_step::add(r);
  components::dedupe_step::add(r);
  components::route_step::add(r);
  components::split_step::add(r);
  components::select_step::add(r);
  components::rename_step::add(r);
  components::cast_step::add(r);
  components::flatten_step::add(r);
  components::throttle_step::add(r);
  components::alert_step::add(r);
  components::sql_step::add(r);
  components::log_step::add(r);
  components::exec_step::add(r);

  components::enrich_step::add(r);
  components::window_step::add(r);
  components::join_step::add(r);

  components::topic_sink::add(r);
  components::file_sink::add(r);
  components::sqlite_sink::add(r);
  components::http_sink::add(r);
  components::subscribers_sink::add(r);
  components::stdout_sink::add(r);
  components::drop_sink::add(r);
  components::command_sink::add(r);
  components::tcp_sink::add(r);
  return r;
}

}  // namespace penstock::runtime
