// Bytes from a pipe or a socket, cut into lines, and the lines made events. Pure; owned by one source.
//
// A line of NDJSON that is not JSON goes on as it stands, and the first step or sink that needs JSON makes it a dead
// letter, as with files. What can be no event is put aside with the reason (take_lost): a line that is too long, and the
// beginning of one whose end never came. Holds at most max_line bytes of a line whose end has not come (its string may
// have grown to twice that), and the bytes that were added last; a batch keeps the whole block that its lines lie in.
// Each byte is copied a few times, however small the pieces are that it comes in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/event.hpp"
#include "runtime/flow_store.hpp"

namespace penstock::runtime {

struct line_rules {
  bool ndjson = true;               // blank lines are skipped; otherwise: text, also blank lines are events
  std::size_t max_line = 1 << 20;  // bytes
  std::string source{};             // of the events
};

// A line that can be no event: its beginning, and why.
struct lost_line {
  std::string begin;
  std::string reason;
};

class line_input {
 public:
  explicit line_input(std::shared_ptr<const line_rules> rules) : rules_(std::move(rules)) {}

  // What comes behind. To be called when cut() has taken fewer lines than it was asked for.
  void add(std::string_view bytes);
  // Nothing comes behind: the last line needs no line end.
  void finish();
  // Nothing comes behind, for that reason: the beginning of a line that is there is lost.
  void break_off(const std::string& reason);
  // Appends events of the lines that are there, with the subject `sender`. Returns how many lines it took: events and lost
  // ones, at most `most`.
  std::size_t cut(batch& events, std::size_t most, std::string_view sender = {});

  bool in_a_line() const { return !partial_.empty() || skipping_; }  // of which there is more to come; after cut()

  // To be asked after each call.
  std::vector<lost_line> take_lost() { return std::exchange(lost_, {}); }

 private:
  std::string_view rest() const { return block_ ? block_->text().substr(at_) : std::string_view(); }
  void make_block(std::string_view bytes);
  std::size_t cut_block(batch& events, std::size_t most);
  void append_event(batch& events, std::string_view line, timestamp now) const;
  void lose(std::string_view line, std::string reason);
  void too_long(std::string_view line);

  std::shared_ptr<const line_rules> rules_;
  std::shared_ptr<const buffer> block_{};  // whole lines; null: none is there
  std::size_t at_ = 0;                     // in the block: the next line begins here
  std::string partial_{};                  // what is behind the block: a line without its end
  bool skipping_ = false;                  // what comes belongs to a line that is too long
  std::vector<lost_line> lost_{};
};

// Lost lines as events with a fault (event.hpp), so that they become dead letters.
void append_lost(batch& events, const line_rules& rules, std::vector<lost_line> lost);

}  // namespace penstock::runtime
