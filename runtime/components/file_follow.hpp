// A file that grows, read for ever: what `from: {file: {follow: true}}` makes. See file_follow.cpp.
#pragma once

#include <memory>
#include <string>

#include "runtime/component.hpp"
#include "runtime/record_file.hpp"

namespace penstock::runtime::components {

std::unique_ptr<source> make_file_follow(std::string path, record_format format, bool start_at_end,
                                         const component_context& context);

}  // namespace penstock::runtime::components
