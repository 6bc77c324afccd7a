// The topic that a definition names. Looked up when a dataflow starts, because topics are global and the
// pipeline that declares one may come later: the flow then fails, backs off and finds it.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "config/field.hpp"
#include "runtime/topic.hpp"

namespace penstock::runtime::components {

// Throws std::runtime_error with the nearest name when nobody declared it.
inline std::shared_ptr<topic> named_topic(const topics& all, const std::string& name) {
  if (std::shared_ptr<topic> found = all.find(name)) return found;
  const std::string near = config::nearest(name, all.names());
  throw std::runtime_error("no topic '" + name + "'" + (near.empty() ? "" : "; nearest is '" + near + "'"));
}

}  // namespace penstock::runtime::components
