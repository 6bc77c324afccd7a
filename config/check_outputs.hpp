// Which outputs steps send to, against which `outputs` a dataflow has: each name must have both. Pure, any thread.
#pragma once

#include "config/field.hpp"
#include "config/place.hpp"

namespace penstock::config {

// `checked` is what validate() made of the document; only for a document without problems.
void check_outputs(const place& document, const value& checked, const catalog& components, problem_list& problems);

}  // namespace penstock::config
