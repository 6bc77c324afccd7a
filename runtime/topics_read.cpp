#include "runtime/topics_read.hpp"

#include <stdexcept>

#include <nlohmann/json.hpp>

namespace penstock::runtime {

std::string topics_read::text() const {
  nlohmann::json parts = nlohmann::json::object();
  for (const auto& [topic, read] : topics) parts[topic] = {read.before, read.after};
  return nlohmann::json{{"position", position}, {"events", events}, {"topics", std::move(parts)}}.dump();
}

topics_read topics_read::of(const std::string& text) {
  try {
    const auto written = nlohmann::json::parse(text);
    topics_read read{written.at("position").get<std::int64_t>(), written.at("events").get<std::int64_t>()};
    for (const auto& [topic, part] : written.at("topics").items()) {
      read.topics[topic] = {part.at(0).get<std::int64_t>(), part.at(1).get<std::int64_t>()};
    }
    return read;
  } catch (const nlohmann::json::exception& e) {
    throw std::runtime_error(std::string("the record of what was read is damaged: ") + e.what());
  }
}

std::optional<std::int64_t> offset_read(flow_store& store, const std::string& consumer, std::int64_t committed,
                                        const std::string& topic) {
  const auto record = store.find_state(consumer, engine_state, std::string(source_record) + "topics");
  if (!record) return std::nullopt;
  const topics_read read = topics_read::of(*record);
  const auto part = read.topics.find(topic);
  if (part == read.topics.end()) return std::nullopt;
  return read.reached_by(committed) ? part->second.after : part->second.before;
}

}  // namespace penstock::runtime
