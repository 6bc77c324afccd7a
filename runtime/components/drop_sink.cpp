// to: drop - takes every event and forgets it. For measuring, and for flows whose steps are what matters.
#include <nlohmann/json.hpp>

#include "runtime/components/all.hpp"

namespace penstock::runtime::components::drop_sink {

namespace {

config::component_spec spec() {
  return {
      .kind = config::component_kind::sink,
      .name = "drop",
      .doc = "Takes every event and forgets it; they are counted as emitted.",
      .settings = {.name = "drop", .type = config::field_type::object, .doc = ""},
      .examples = {"drop", "drop: {}"},
  };
}

class drop_sink final : public sink {
 public:
  asio::awaitable<void> open(const std::string&) override { co_return; }
  asio::awaitable<write_result> write(std::shared_ptr<const batch>) override { co_return write_result{}; }
  asio::awaitable<void> close() override { co_return; }
};

}  // namespace

void add(registry& r) {
  r.add(spec(), registry::make_sink([](const config::value&, const component_context&) {
          return std::make_unique<drop_sink>();
        }));
}

}  // namespace penstock::runtime::components::drop_sink
