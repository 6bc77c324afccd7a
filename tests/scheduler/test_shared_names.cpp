// The index against the slow way, which asks every definition; first by examples, then by histories of random definitions.
#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>

#include <catch2/catch.hpp>

#include "scheduler/shared_names.hpp"

using namespace penstock;
using namespace penstock::scheduler;

namespace {

config::job job_with(config::trigger trigger) {
  config::job job;
  job.triggers.push_back(std::move(trigger));
  return job;
}

config::pipeline pipeline(const std::string& name) {
  config::pipeline p;
  p.name = name;
  return p;
}

std::shared_ptr<const config::pipeline> kept(config::pipeline p) { return std::make_shared<const config::pipeline>(std::move(p)); }

config::pipeline random_pipeline(const std::string& name, std::mt19937& random) {
  const auto one_of = [&](int most) { return std::to_string(random() % most); };
  config::pipeline p = pipeline(name);
  for (auto left = random() % 3; left > 0; --left) {
    const std::string topic = "t" + one_of(4);
    p.topics[topic].name = topic;
    p.topics[topic].max_bytes = static_cast<std::int64_t>(random() % 2);
  }
  for (auto left = random() % 3; left > 0; --left) p.pools["pool" + one_of(3)] = static_cast<std::int64_t>(1 + random() % 4);
  for (auto left = random() % 3; left > 0; --left) {
    auto& job = p.jobs["j" + one_of(3)];
    job.triggers.push_back(config::webhook_trigger{"/" + one_of(4), {}});
    config::topic_trigger on;
    on.topic = "t" + one_of(4);
    job.triggers.push_back(on);
    job.triggers.push_back(config::after_trigger{random() % 2 ? "" : "p" + one_of(4), "j" + one_of(3)});
  }
  return p;
}

}  // namespace

TEST_CASE("two pipelines may not mean different things by one name", "[shared_names]") {
  shared_names names;
  auto first = pipeline("a");
  first.topics["orders"].name = "orders";
  first.jobs["build"] = job_with(config::webhook_trigger{"/build", {}});
  names.define("a", kept(first));

  auto second = pipeline("b");
  second.topics["orders"] = first.topics["orders"];
  CHECK(names.conflicts(second).empty());
  second.topics["orders"].max_bytes = 77;
  second.jobs["also"] = job_with(config::webhook_trigger{"/build", {}});
  const auto found = names.conflicts(second);
  REQUIRE(found.size() == 2);
  CHECK(found[0].pointer == "/topics/orders");
  CHECK(found[0].detail.find("pipeline 'a' declares topic 'orders'") == 0);
  CHECK(found[1].pointer == "/jobs/also");
  CHECK(found[1].detail == "a/jobs/build receives at /hooks/build already");

  second.name = "a";  // a new definition of the same one may
  CHECK(names.conflicts(second).empty());
  names.define("a", nullptr);
  second.name = "b";
  CHECK(names.conflicts(second).empty());
  CHECK(names.hook_owner("/build").empty());
}

TEST_CASE("the index says what the definitions say, whatever came before", "[shared_names]") {
  std::mt19937 random(20261129);
  for (int history = 0; history < 50; ++history) {
    shared_names names;
    std::map<std::string, config::pipeline> live;
    for (int step = 0; step < 40; ++step) {
      const std::string name = "p" + std::to_string(random() % 4);
      if (random() % 4 == 0) {
        names.define(name, nullptr);
        live.erase(name);
      } else {
        live[name] = random_pipeline(name, random);
        names.define(name, kept(live[name]));
      }
      for (int i = 0; i < 4; ++i) {
        const std::string number = std::to_string(i);
        std::set<job_path> triggered, followers;
        std::set<std::string> receivers;
        std::int64_t slots = 0;
        bool declared = false;
        for (const auto& [pipeline, definition] : live) {
          declared = declared || definition.topics.contains("t" + number);
          if (const auto pool = definition.pools.find("pool" + number); pool != definition.pools.end())
            slots = slots == 0 ? pool->second : std::min(slots, pool->second);
          for (const auto& [job, what] : definition.jobs) {
            for (const auto& trigger : what.triggers) {
              if (const auto* t = std::get_if<config::topic_trigger>(&trigger); t && t->topic == "t" + number)
                triggered.emplace(pipeline, job);
              if (const auto* w = std::get_if<config::webhook_trigger>(&trigger); w && w->path == "/" + number)
                receivers.insert(pipeline);
              if (const auto* a = std::get_if<config::after_trigger>(&trigger);
                  a && (a->pipeline.empty() ? pipeline : a->pipeline) == "p1" && a->job == "j" + number)
                followers.emplace(pipeline, job);
            }
          }
        }
        CHECK(names.declares_topic("t" + number) == declared);
        CHECK(names.slots("pool" + number) == slots);
        CHECK(names.triggered_by("t" + number) == triggered);
        CHECK(names.followers({"p1", "j" + number}) == followers);
        const auto owner = names.hook_owner("/" + number);
        CHECK((receivers.empty() ? owner.empty() : receivers.contains(owner)));
      }
    }
  }
}
