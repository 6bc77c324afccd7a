// Lines of pipes and sockets: cut anywhere, they are the same events, and the same are lost.
// Input: "ndjson" or "lines", then what comes.
#include <memory>
#include <string>

#include "runtime/json.hpp"
#include "runtime/line_input.hpp"
#include "tests/fuzz/target.hpp"

namespace penstock::fuzz {

namespace {

constexpr std::size_t longest = 48;

class reading {
 public:
  explicit reading(bool ndjson)
      : input_(std::make_shared<runtime::line_rules>(runtime::line_rules{.ndjson = ndjson, .max_line = longest, .source = "lines"})) {}

  void add(std::string_view bytes) {
    input_.add(bytes);
    cut();
  }
  std::string end() {
    input_.finish();
    cut();
    return events_ + lost_;
  }

 private:
  void cut() {
    runtime::batch events;
    while (input_.cut(events, 3) == 3) {
    }
    for (const runtime::event& e : events.events) {
      require(e.data.size() <= longest, "a line is within its limit");
      require(!e.id.empty(), "an event has an id");
      events_.append("event ").append(e.data).append("\n");
    }
    // How much of a beginning had come by then may differ.
    for (const auto& lost : input_.take_lost()) lost_ += "lost " + lost.begin.substr(0, longest) + " (" + lost.reason + ")\n";
  }

  runtime::line_input input_;
  std::string events_{}, lost_{};
};

}  // namespace

void try_input(std::string_view text) {
  const bool ndjson = take_line(text) != "lines";
  reading at_once(ndjson), bit_by_bit(ndjson);
  at_once.add(text);
  in_pieces(text, [&](std::string_view piece) { bit_by_bit.add(piece); });
  const std::string whole = at_once.end(), pieces = bit_by_bit.end();
  require(whole == pieces, "pieces make no difference", whole + "--- in pieces:\n" + pieces);
}

}  // namespace penstock::fuzz
