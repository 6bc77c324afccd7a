// One step by itself, made from YAML as a person writes it and fed batch by batch, with the store that its changes would
// go to and a record of what it says became of events.
#pragma once

#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_future.hpp>

#include "tests/runtime/flow_bench.hpp"

namespace penstock::testing {

using texts = std::vector<std::string>;

struct step_record final : runtime::step_output {
  std::vector<std::pair<std::string, std::string>> died;           // id, reason
  std::vector<std::pair<std::string, std::string>> sent;           // output, id
  std::vector<std::pair<std::string, std::string>> sent_payloads;  // output, payload
  std::vector<std::int64_t> sent_positions;
  texts duplicates, late_ones;

  void dead(const runtime::event& e, std::string reason) override { died.emplace_back(e.id, std::move(reason)); }
  void duplicate(const runtime::event& e) override { duplicates.emplace_back(e.id); }
  void to_output(const runtime::event& e, std::string_view output) override {
    sent.emplace_back(output, e.id);
    sent_payloads.emplace_back(output, e.data);
    sent_positions.push_back(e.position);
  }
  void late(const runtime::event& e) override { late_ones.emplace_back(e.id); }
};

struct one_step {
  flow_bench flow;
  std::map<std::string, std::string> stored;
  step_record out;
  config::component_use use;
  boost::asio::any_io_executor strand = boost::asio::make_strand(flow.pool.get_executor());
  std::unique_ptr<runtime::step> one;

  explicit one_step(const std::string& yaml, std::initializer_list<const char*> outputs = {})
      : use(flow.parse("from: {generate: {count: 1}}\nsteps:\n  - " + yaml + "\nto: drop" + written(outputs)).steps.at(0)) {
    restart();
  }

  ~one_step() { drop(); }

  // On its strand, as a flow does it: a step may have handlers there.
  void drop() {
    if (one) boost::asio::post(strand, boost::asio::use_future([this] { one.reset(); })).get();
  }

  void restart() {
    runtime::component_context context{flow.offered, "test", "test/flow/f", flow.dir.path(), strand};
    context.step = use.name;
    drop();
    one = flow.components.step_of(use, context);
    std::vector<runtime::state_entry> entries;
    for (const auto& [key, value] : stored) entries.push_back({use.name, key, value});
    one->restore(entries);
  }

  void commit() {
    for (const runtime::state_change& change : one->changes()) {
      if (change.value)
        stored[change.key] = *change.value;
      else
        stored.erase(change.key);
    }
  }

  runtime::batch process(runtime::batch events) {
    one->process(events, out);
    return events;
  }

  // Ids are a, b, c ...; positions 1, 2, 3 ...
  static runtime::batch events_of(const texts& payloads, std::string_view content_type = "") {
    runtime::batch events;
    for (const std::string& payload : payloads) {
      runtime::event e;
      const auto count = events.size();
      e.id = events.keep(count < 26 ? std::string(1, static_cast<char>('a' + count)) : "n" + std::to_string(count));
      e.source = "/test";
      e.type = "made";
      e.key = "k";
      e.datacontenttype = content_type;
      e.data = events.keep(payload);
      e.time = from_micros(1'000'000);
      e.position = static_cast<std::int64_t>(count) + 1;
      events.events.push_back(e);
    }
    return events;
  }

  static texts payloads_of(const runtime::batch& events) {
    texts found;
    for (const runtime::event& e : events.events) found.emplace_back(e.data);
    return found;
  }
  static texts ids_of(const runtime::batch& events) {
    texts found;
    for (const runtime::event& e : events.events) found.emplace_back(e.id);
    return found;
  }

  texts payloads(const texts& given, std::string_view content_type = "") {
    return payloads_of(process(events_of(given, content_type)));
  }

  // Why the only event that died did.
  std::string reason() const { return out.died.size() == 1 ? out.died[0].second : std::to_string(out.died.size()) + " died"; }

 private:
  static std::string written(std::initializer_list<const char*> outputs) {
    std::string text;
    for (const char* name : outputs) text += (text.empty() ? "\noutputs: {" : ", ") + std::string(name) + ": drop";
    return text.empty() ? text : text + "}";
  }
};

}  // namespace penstock::testing
