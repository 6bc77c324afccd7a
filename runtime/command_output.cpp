#include "runtime/command_output.hpp"

#include <stdexcept>
#include <utility>

#include "runtime/json.hpp"
#include "runtime/step_chain.hpp"

namespace penstock::runtime {

namespace {

constexpr std::size_t longest_output_line = 1 << 20;

// How many numbers one start of a supervised command may use before it runs into the next one's. Each start
// begins two blocks further, so that lines which a sink took just before a crash, and which were not
// committed, are below it.
constexpr std::int64_t start_block = std::int64_t{1} << 32;

std::string_view without_line_end(std::string_view line) {
  while (!line.empty() && (line.back() == '\r' || line.back() == ' ' || line.back() == '\t'))
    line.remove_suffix(1);
  return line;
}

}  // namespace

command_output::command_output(const registry& components, const component_context& context,
                               const config::component_use& to, bool continuous)
    : context_(context), continuous_(continuous), sink_(components.sink_of(to, context)) {}

asio::awaitable<void> command_output::open() {
  checkpoint last = context_.services.flows.load(context_.consumer);
  checkpoint_ = std::move(last.sink);
  if (continuous_) {
    position_ = (last.position / start_block + 2) * start_block;
    commit claimed;
    claimed.consumer = context_.consumer;
    claimed.position = position_;
    claimed.sink = checkpoint_;
    co_await context_.services.flows.save(std::move(claimed));
  } else {
    delivered_ = last.position;
  }
  co_await sink_->open(checkpoint_);
}

void command_output::take(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto line_end = bytes.find('\n');
    if (line_end == std::string_view::npos) return keep_partial(bytes);
    if (partial_.empty()) {
      add_line(bytes.substr(0, line_end));
    } else {
      keep_partial(bytes.substr(0, line_end));
      add_line(partial_);
      partial_.clear();
    }
    bytes.remove_prefix(line_end + 1);
  }
}

// One byte more than allowed is kept, which is how add_line() knows.
void command_output::keep_partial(std::string_view piece) {
  partial_.append(piece.substr(0, longest_output_line + 1 - partial_.size()));
}

void command_output::add_line(std::string_view line) {
  ++position_;
  const std::string_view text = without_line_end(line);
  if (text.empty()) return;
  if (position_ <= delivered_) {
    ++repeated_;
    return;
  }
  event e;
  e.id = events_.keep(context_.consumer + ':' + std::to_string(position_));
  e.source = events_.keep('/' + context_.consumer);
  e.type = "event";
  e.data = events_.keep(text.substr(0, longest_output_line));
  e.time = wall_now();
  e.position = position_;
  std::string problem = text.size() > longest_output_line ? "the line is longer than " + format_size(longest_output_line)
                                                   : check_json(e.data);
  if (problem.empty()) {
    events_.events.push_back(e);
  } else {
    e.datacontenttype = "text/plain";
    dead_.push_back(bury(e, "stdout", std::move(problem)));
  }
}

dead_letter command_output::bury(const event& e, std::string step, std::string reason) {
  ++dead_count_;
  dead_letter letter = letter_of(e, std::move(step), std::move(reason));
  letter.pipeline = context_.pipeline;
  letter.consumer = context_.consumer;
  return letter;
}

asio::awaitable<void> command_output::deliver() {
  if (events_.empty() && dead_.empty()) co_return;
  auto events = std::make_shared<const batch>(std::exchange(events_, batch{}));
  commit done;
  done.consumer = context_.consumer;
  done.position = position_;
  done.dead = std::exchange(dead_, {});
  std::string failure;
  try {
    if (!events->empty()) co_await write(events, done);
  } catch (const std::exception& e) {
    failure = e.what();
  }
  if (!failure.empty() && !continuous_) throw std::runtime_error(failure);
  if (!failure.empty())
    for (const auto& lost : events->events) done.dead.push_back(bury(lost, "to", failure));
  done.sink = checkpoint_;
  co_await context_.services.flows.save(std::move(done));
  if (!failure.empty()) throw std::runtime_error(failure);
}

asio::awaitable<void> command_output::write(std::shared_ptr<const batch> events, commit& done) {
  const write_result written = co_await sink_->write(events);
  if (!written.checkpoint.empty()) checkpoint_ = written.checkpoint;
  for (const auto& refused : written.refused)
    done.dead.push_back(bury(events->events.at(refused.index), "to", refused.reason));
}

asio::awaitable<void> command_output::finish() {
  if (!partial_.empty()) add_line(std::exchange(partial_, {}));
  co_await deliver();
  co_await sink_->close();
}

}  // namespace penstock::runtime
