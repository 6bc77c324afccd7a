// How steps write their durable state into a row and read it back: numbers as their eight bytes, texts with their length
// before them. A row is read by the machine that wrote it. Reading checks every length: a damaged row throws.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

namespace penstock::runtime {

class state_writer {
 public:
  explicit state_writer(std::string& out) : out_(out) {}

  void integer(std::int64_t value) { put(value); }
  void real(double value) { put(value); }
  void text(std::string_view value) {
    integer(static_cast<std::int64_t>(value.size()));
    out_ += value;
  }

 private:
  template <class T>
  void put(T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out_.append(bytes, sizeof value);
  }

  std::string& out_;
};

// Reads what a state_writer wrote, in the same order. Views point into `row`.
class state_reader {
 public:
  explicit state_reader(std::string_view row) : left_(row) {}

  std::int64_t integer() { return take<std::int64_t>(); }
  double real() { return take<double>(); }
  std::string_view text() {
    const std::int64_t size = integer();
    if (size < 0 || static_cast<std::uint64_t>(size) > left_.size()) damaged();
    const std::string_view value = left_.substr(0, static_cast<std::size_t>(size));
    left_.remove_prefix(value.size());
    return value;
  }
  void end() const {
    if (!left_.empty()) damaged();
  }

  [[noreturn]] static void damaged() { throw std::runtime_error("the stored state is damaged"); }

 private:
  template <class T>
  T take() {
    T value;
    if (left_.size() < sizeof value) damaged();
    std::memcpy(&value, left_.data(), sizeof value);
    left_.remove_prefix(sizeof value);
    return value;
  }

  std::string_view left_;
};

}  // namespace penstock::runtime
