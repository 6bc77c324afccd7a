// What steps with durable state keep when their definition changes. Pure, any thread.
#pragma once

#include <string>
#include <vector>

#include "config/definition.hpp"
#include "config/field.hpp"

namespace penstock::config {

// The settings of a step on which what it keeps depends, with its component's name, as a text to compare; empty: it keeps
// nothing, or it is not known here.
std::string state_fingerprint(const component_use& step, const catalog& components);

// What a source reads, in words: its component and the setting that names its input ("topic orders"). Positions mean
// something only there: a flow whose input is another one begins anew. A list of inputs is not named: such a source keeps a
// record of its own.
std::string input_of(const component_use& from, const catalog& components);

// For each step of a flow that will start empty, or whose state will be forgotten, when `after` replaces `before`: one
// sentence.
std::vector<std::string> state_losses(const pipeline& before, const pipeline& after, const catalog& components);

}  // namespace penstock::config
