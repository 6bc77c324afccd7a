#include "config/fill_dir.hpp"

#include <string_view>

namespace penstock::config {

std::string with_dir(std::string text, const std::string& dir) {
  static constexpr std::string_view reference = "${dir}";
  for (auto at = text.find(reference); at != std::string::npos; at = text.find(reference, at + dir.size())) {
    text.replace(at, reference.size(), dir);
  }
  return text;
}

void fill_dir(value& v, const std::string& dir) {
  if (v.is_string()) {
    v = with_dir(v.get<std::string>(), dir);
  } else if (v.is_structured()) {
    for (auto& child : v) fill_dir(child, dir);
  }
}

void fill_dir(dataflow& flow, const std::string& dir) {
  if (flow.from) fill_dir(flow.from->settings, dir);
  for (auto& step : flow.steps) fill_dir(step.settings, dir);
  if (flow.to) fill_dir(flow.to->settings, dir);
  for (auto& output : flow.outputs) fill_dir(output.settings, dir);
}

}  // namespace penstock::config
