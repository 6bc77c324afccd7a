// The `tests` of a pipeline: that what they name is there, and that given events are written as they can be. Pure, any thread.
#pragma once

#include "config/definition.hpp"
#include "config/field.hpp"
#include "config/place.hpp"

namespace penstock::config {

// Reads the document itself, as check_pipeline does.
void check_tests(const place& document, problem_list& problems);

// Puts the tests (`checked`: what validate() made of them) into the pipeline made of the document. Only here are the parameters of jobs known, so only
// here are those of tests checked.
void add_tests(const place& document, const value& checked, pipeline& to, problem_list& problems);

}  // namespace penstock::config
