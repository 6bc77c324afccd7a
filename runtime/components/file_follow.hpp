// A file that grows, read for ever: what `from: {file: {follow: true}}` makes; and what a flow without `follow` reads, to
// the file's end and after each start what is new. See file_follow.cpp.
#pragma once

#include <memory>
#include <string>

#include "runtime/component.hpp"
#include "runtime/record_file.hpp"

namespace penstock::runtime::components {

enum class end_of_input { never, at_end };

std::unique_ptr<source> make_file_follow(std::string path, record_format format, bool start_at_end, end_of_input end,
                                         const component_context& context);

}  // namespace penstock::runtime::components
