#include "runtime/pipeline_test_run.hpp"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <nlohmann/json.hpp>

#include "config/fill_dir.hpp"
#include "config/parameters.hpp"
#include "runtime/base_environment.hpp"
#include "runtime/blocking_pool.hpp"
#include "runtime/dataflow_run.hpp"
#include "runtime/flow_store.hpp"
#include "runtime/json.hpp"
#include "runtime/subscribers.hpp"
#include "runtime/topic.hpp"
#include "runtime/process.hpp"
#include "runtime/ulid.hpp"
#include "runtime/webhooks.hpp"

namespace penstock::runtime {

namespace {

namespace fs = std::filesystem;

constexpr const char* remembering = "remembered by a test";  // a component that no definition can name
constexpr const char* to_place = "to";

class scratch_folder {
 public:
  scratch_folder() {
    std::string pattern = (fs::temp_directory_path() / "penstock-test-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no scratch folder can be made at " + pattern);
    path_ = pattern;
  }
  ~scratch_folder() { remove(); }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;

  void remove() const noexcept {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// ---- the ends of the dataflow ----

// Bytes as text that can be shown; what is not UTF-8 in them becomes U+FFFD.
std::string text_of(std::string_view bytes) {
  std::string quoted;
  append_json_string(quoted, bytes);
  return config::value::parse(quoted).get<std::string>();
}

// A payload as JSON; a text where it is none.
config::value payload_of(const event& e) {
  auto parsed = e.is_json() ? config::value::parse(e.data, nullptr, false) : config::value(config::value::value_t::discarded);
  return parsed.is_discarded() ? config::value(text_of(e.data)) : parsed;
}

config::test_event seen_of(const event& e) {
  return {.attributes = {{"id", text_of(e.id)},
                         {"source", text_of(e.source)},
                         {"type", text_of(e.type)},
                         {"subject", text_of(e.subject)},
                         {"time", format_time(e.time)},
                         {"key", text_of(e.key)},
                         {"topic", text_of(e.topic)},
                         {"datacontenttype", text_of(e.datacontenttype)}},
          .data = payload_of(e)};
}

class remembering_sink final : public sink {
 public:
  explicit remembering_sink(std::vector<config::test_event>& seen) : seen_(seen) {}

  asio::awaitable<void> open(const std::string&) override { co_return; }
  asio::awaitable<write_result> write(std::shared_ptr<const batch> events) override {
    for (const event& e : events->events) seen_.push_back(seen_of(e));
    co_return write_result{};
  }
  asio::awaitable<void> close() override { co_return; }

 private:
  std::vector<config::test_event>& seen_;  // of the test, which lives longer
};

// What given events are when they do not say it themselves.
struct given_defaults {
  std::string source, topic;
  timestamp time{};
};

class given_source final : public source {
 public:
  given_source(const std::vector<config::test_event>& given, given_defaults defaults, asio::any_io_executor strand)
      : given_(given), defaults_(std::move(defaults)), strand_(std::move(strand)) {}

  std::function<void()> at_end{};  // called once, before the end is told

  asio::awaitable<void> open(std::int64_t) override { co_return; }
  asio::awaitable<std::optional<batch>> read(std::size_t most) override {
    batch events;
    while (next_ < given_.size() && events.size() < most) add(events);
    if (!events.empty()) co_return std::move(events);
    if (at_end) std::exchange(at_end, {})();
    co_await asio::post(strand_, asio::use_awaitable);  // what at_end has put there comes first
    co_return std::nullopt;
  }
  void stop_input() override {}

 private:
  void add(batch& to) {
    const config::test_event& given = given_[next_++];
    const auto attribute = [&](std::string_view name, const std::string& otherwise) {
      const auto found = given.attributes.find(name);
      return to.keep(found == given.attributes.end() ? otherwise : found->second);
    };
    event e;
    e.position = static_cast<std::int64_t>(next_);
    e.id = attribute("id", std::to_string(next_));
    e.source = attribute("source", defaults_.source);
    e.type = attribute("type", "event");
    e.subject = attribute("subject", "");
    e.key = attribute("key", "");
    e.topic = attribute("topic", defaults_.topic);
    e.datacontenttype = attribute("datacontenttype", "");
    const auto time = given.attributes.find("time");
    e.time = time == given.attributes.end() ? defaults_.time : parse_time(time->second).value_or(defaults_.time);
    const bool raw = !e.is_json() && given.data.is_string();
    e.data = to.keep(raw ? given.data.get<std::string>() : given.data.dump());
    to.events.push_back(e);
  }

  const std::vector<config::test_event>& given_;
  const given_defaults defaults_;
  const asio::any_io_executor strand_;
  std::size_t next_ = 0;
};

// ---- the world around it ----

config::component_use remembering_use(const std::string& name) { return {remembering, name, {{"place", name}}}; }

// All components, and one sink more.
registry with_memory(registry components, config::test_seen& seen) {
  components.add(config::component_spec{.kind = config::component_kind::sink, .name = remembering, .doc = {}, .settings = {}},
                 registry::make_sink([&seen](const config::value& settings, const component_context&) {
                   const auto place = settings.at("place").get<std::string>();
                   auto& list = place == to_place ? seen.to : seen.outputs[place.substr(1)];
                   return std::make_unique<remembering_sink>(list);
                 }));
  return components;
}

const config::work& work_of(const config::pipeline& pipeline, const config::pipeline_test& test) {
  if (!test.flow.empty()) return pipeline.flows.at(test.flow).does;
  const auto& tasks = pipeline.jobs.at(test.job).tasks;
  return std::find_if(tasks.begin(), tasks.end(), [&](const config::task& one) { return one.name == test.task; })->does;
}

// The dataflow that is tested, with our sinks in the place of its own.
config::dataflow subject_of(const config::pipeline& pipeline, const config::pipeline_test& test, const fs::path& folder) {
  config::dataflow subject = std::get<config::dataflow>(work_of(pipeline, test));
  subject.to = remembering_use(to_place);
  for (auto& output : subject.outputs) {
    output = {remembering, output.name, {{"place", "/" + output.name}}};  // an output may be called `to`
  }
  if (!test.step.empty()) std::erase_if(subject.steps, [&](const auto& step) { return step.name != test.step; });
  subject.delivery = {};
  config::fill_dir(subject, folder.string());
  return subject;
}

std::string topic_read_by(const config::dataflow& subject) {
  if (!subject.from || subject.from->component != "topic" || !subject.from->settings.contains("topic")) return {};
  return subject.from->settings.at("topic").get<std::string>();
}

std::shared_ptr<const std::string> run_context_of(const config::pipeline& pipeline, const config::pipeline_test& test,
                                                  const std::string& run, timestamp now) {
  if (test.job.empty()) return {};
  const config::value context{{"params", test.params},
                              {"run",
                               {{"id", run},
                                {"pipeline", pipeline.name},
                                {"job", test.job},
                                {"trigger", "rest"},
                                {"attempt", 1},
                                {"priority", pipeline.jobs.at(test.job).priority},
                                {"created_at", format_time(now)}}}};
  return std::make_shared<const std::string>(context.dump());
}

// Of programs that steps start: what they would have in the daemon.
std::map<std::string, std::string> environment_of(const config::pipeline& pipeline, const config::pipeline_test& test,
                                                  const std::string& run, const std::string& instance) {
  auto all = base_environment(instance, pipeline.name);
  if (!test.flow.empty()) {
    all["PENSTOCK_FLOW"] = test.flow;
    return all;
  }
  all["PENSTOCK_JOB"] = test.job;
  all["PENSTOCK_RUN_ID"] = run;
  all["PENSTOCK_TASK"] = test.task;
  all["PENSTOCK_ATTEMPT"] = "1";
  for (const auto& [name, value] : test.params.items()) {
    all[config::parameter_variable(name)] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  return all;
}

std::vector<config::test_death> deaths_in(flow_store& store, const std::string& consumer) {
  auto letters = store.dead_letters({.pipeline = {}, .consumer = consumer, .after_id = {}, .limit = 1'000'000});
  std::stable_sort(letters.begin(), letters.end(), [](const auto& a, const auto& b) { return a.position < b.position; });
  std::vector<config::test_death> out;
  for (const dead_letter& letter : letters) {
    event e;
    e.data = letter.data;
    e.datacontenttype = letter.datacontenttype;
    out.push_back({.step = letter.step, .reason = text_of(letter.reason), .data = payload_of(e)});
  }
  return out;
}

// Threads and stores for one test. Its folder goes with it, and with the program when a signal ends that.
class test_world {
 public:
  test_world() {
    ended_by_signal_.async_wait([this](const boost::system::error_code& none, int signal) {
      if (none) return;
      kill_orphans(instance_);  // the programs that steps have started
      scratch_.remove();
      ::_exit(128 + signal);
    });
  }
  ~test_world() {
    boost::system::error_code ignored;
    ended_by_signal_.cancel(ignored);
    topics_.close();
    flows_.close();
    pool_.join();
  }
  test_world(const test_world&) = delete;
  test_world& operator=(const test_world&) = delete;

  // The pipeline's own, where it has one and that is there: a test makes no folder but the empty one.
  fs::path workdir(const config::pipeline& pipeline, const fs::path& folder) const {
    const fs::path own = config::with_dir(pipeline.workdir, folder.string());
    std::error_code none;
    if (!own.empty() && fs::is_directory(own, none)) return own;
    const fs::path empty = scratch_.path() / "work";
    fs::create_directories(empty);
    return empty;
  }

  dataflow_outcome run(const registry& components, dataflow_options options, std::unique_ptr<given_source> given,
                       const asio::any_io_executor& strand, bool emit_at_end) {
    given_source& input = *given;
    options.input = std::move(given);
    dataflow_run running(strand, components, offered_, std::move(options));
    if (!emit_at_end) input.at_end = [&running] { running.request_drain(); };
    return asio::co_spawn(pool_, running.run(), asio::use_future).get();
  }

  asio::any_io_executor new_strand() { return asio::make_strand(pool_.get_executor()); }
  flow_store& flows() { return flows_; }
  const std::string& instance() const { return instance_; }

 private:
  const std::string instance_ = "test-" + make_ulid();  // marks the programs of this test
  scratch_folder scratch_;
  asio::thread_pool pool_{2};
  asio::signal_set ended_by_signal_{pool_, SIGINT, SIGTERM, SIGHUP};
  blocking_pool blocking_{4};
  topics topics_{scratch_.path() / "topics", pool_.get_executor()};
  flow_store flows_{scratch_.path() / "flows.db", pool_.get_executor()};
  webhooks hooks_;
  subscribers streams_;
  services offered_{topics_, flows_, hooks_, streams_, blocking_, {}};
};

}  // namespace

test_outcome run_pipeline_test(const registry& components, const config::pipeline& pipeline, const config::pipeline_test& test,
                               const fs::path& folder) try {
  config::test_seen seen;
  const registry with_ours = with_memory(components, seen);
  test_world world;
  const timestamp now = test.now.value_or(wall_now());
  const std::string run = make_ulid();
  const asio::any_io_executor strand = world.new_strand();

  dataflow_options options;
  options.pipeline = pipeline.name;
  options.consumer = pipeline.name + (test.job.empty() ? "/flow/" + test.flow : "/run/" + run + "/" + test.task);
  const std::string consumer = options.consumer;
  options.definition = std::make_shared<const config::dataflow>(subject_of(pipeline, test, folder));
  options.run_context = run_context_of(pipeline, test, run, now);
  options.programs = [around = program_surroundings{environment_of(pipeline, test, run, world.instance())}] { return around; };
  options.now = [now] { return now; };
  given_defaults defaults{.source = "/tests/" + test.name, .topic = topic_read_by(*options.definition), .time = now};
  if (!defaults.topic.empty()) defaults.source = "/topics/" + defaults.topic;
  auto given = std::make_unique<given_source>(test.given, std::move(defaults), strand);
  options.workdir = world.workdir(pipeline, folder);
  const dataflow_outcome outcome = world.run(with_ours, std::move(options), std::move(given), strand, test.emit_at_end);
  if (outcome.end == dataflow_end::failed) return {.failure = text_of(outcome.reason), .unmet = {}};
  seen.dead = deaths_in(world.flows(), consumer);
  return {.failure = {}, .unmet = compare(test, seen)};
} catch (const std::exception& e) {
  return {.failure = text_of(e.what()), .unmet = {}};
}

}  // namespace penstock::runtime
