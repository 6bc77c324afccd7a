// See event.hpp. A batch's memory is a list of chunks that never move; each holds many allocations one after
// another, each followed by its padding. Chunks grow with the batch, so that a batch of one event stays
// small.
#include "runtime/event.hpp"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <utility>

namespace penstock::runtime {
namespace {

constexpr std::size_t first_chunk = 4096;
constexpr std::size_t largest_chunk = 1 << 20;

// What empty text points to, so that even an empty payload has readable bytes behind it.
constexpr char nothing[padding] = {};

}  // namespace

buffer::buffer(std::string text) : storage_(std::move(text)) { storage_.append(padding, '\0'); }

batch::batch() = default;
batch::~batch() = default;

batch::batch(batch&& other) noexcept
    : events(std::move(other.events)),
      chunks_(std::move(other.chunks_)),
      adopted_(std::move(other.adopted_)),
      free_(std::exchange(other.free_, nullptr)),
      available_(std::exchange(other.available_, 0)) {
  other.events.clear();
}

batch& batch::operator=(batch&& other) noexcept {
  batch taken(std::move(other));
  events.swap(taken.events);
  chunks_.swap(taken.chunks_);
  adopted_.swap(taken.adopted_);
  std::swap(free_, taken.free_);
  std::swap(available_, taken.available_);
  return *this;
}

std::size_t batch::payload_bytes() const {
  std::size_t sum = 0;
  for (const event& e : events) sum += e.data.size();
  return sum;
}

std::string_view batch::keep(std::string_view text) {
  if (text.empty()) return {nothing, 0};
  char* const copy = allocate(text.size());
  std::memcpy(copy, text.data(), text.size());
  return {copy, text.size()};
}

char* batch::allocate(std::size_t size) {
  const std::size_t needed = size + padding;
  if (needed > available_) {
    const std::size_t chunk =
        std::min(first_chunk << std::min<std::size_t>(chunks_.size(), 16), largest_chunk);
    chunks_.push_back(std::make_unique_for_overwrite<char[]>(std::max(needed, chunk)));
    if (needed >= chunk)
      return chunks_.back().get();  // a chunk of its own; what is free elsewhere stays free
    free_ = chunks_.back().get();
    available_ = chunk;
  }
  char* const taken = free_;
  free_ += needed;
  available_ -= needed;
  return taken;
}

void batch::adopt(std::shared_ptr<const buffer> bytes) { adopted_.push_back(std::move(bytes)); }

void batch::append(batch&& other) {
  if (events.empty() && chunks_.empty() && adopted_.empty()) {
    *this = std::move(other);
    return;
  }
  batch taken(std::move(other));
  events.insert(events.end(), taken.events.begin(), taken.events.end());
  std::move(taken.chunks_.begin(), taken.chunks_.end(), std::back_inserter(chunks_));
  std::move(taken.adopted_.begin(), taken.adopted_.end(), std::back_inserter(adopted_));
  if (taken.available_ > available_) {
    free_ = taken.free_;
    available_ = taken.available_;
  }
}

event batch::copy(const event& other) {
  event result = other;
  result.fault = {};  // nobody copies one that has a fault
  std::size_t size = 0;
  for (const auto* part : {&other.id, &other.source, &other.type, &other.subject, &other.datacontenttype,
                           &other.key, &other.topic, &other.data}) {
    size += part->size();
  }
  char* next = allocate(size);
  // The payload comes last: the padding follows it.
  for (auto* part : {&result.id, &result.source, &result.type, &result.subject, &result.datacontenttype,
                     &result.key, &result.topic, &result.data}) {
    if (!part->empty()) std::memcpy(next, part->data(), part->size());
    *part = {next, part->size()};
    next += part->size();
  }
  return result;
}

}  // namespace penstock::runtime
