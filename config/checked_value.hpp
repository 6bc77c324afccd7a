// Reading checked values: what is required is there, and types are right, so nothing here can fail. Pure, any thread.
#pragma once

#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "config/field.hpp"
#include "config/time.hpp"

namespace penstock::config {

inline const value* find(const value& object, std::string_view key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

inline std::string text_or_empty(const value& object, std::string_view key) {
  const value* found = find(object, key);
  return found ? found->get<std::string>() : std::string{};
}

inline nanoseconds duration_of(const value& v) { return nanoseconds{v.get<std::int64_t>()}; }

inline std::optional<nanoseconds> duration_at(const value& object, std::string_view key) {
  const value* found = find(object, key);
  return found ? std::optional(duration_of(*found)) : std::nullopt;
}

template <class T>
std::optional<T> number_at(const value& object, std::string_view key) {
  const value* found = find(object, key);
  return found ? std::optional(found->get<T>()) : std::nullopt;
}

template <class T>
T choice_of(const value& v, std::initializer_list<std::pair<std::string_view, T>> meanings) {
  const auto& word = v.get_ref<const std::string&>();
  for (const auto& [name, meaning] : meanings) {
    if (name == word) return meaning;
  }
  throw std::logic_error("a choice without a meaning: " + word);
}

}  // namespace penstock::config
