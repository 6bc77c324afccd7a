// What components say of their own settings: which can never work where they stand (component_spec::check and endless),
// and which are likely a slip (doubt). Everything else about settings is in their records. As pure as the components'
// functions are; any thread.
#pragma once

#include "config/field.hpp"
#include "config/place.hpp"

namespace penstock::config {

// `checked` is what validate() made of the document. Components in which `problems` has one already are passed over, so
// the document may have problems.
void check_settings(const place& document, const value& checked, const catalog& components, problem_list& problems);

// Only for a document without problems.
void find_doubts(const place& document, const value& checked, const catalog& components, problem_list& warnings);

}  // namespace penstock::config
