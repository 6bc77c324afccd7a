// The parameters of a run: what was given, checked against what its job declares. Pure, any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "config/definition.hpp"
#include "config/error.hpp"

namespace penstock::config {

// The complete object for a run: declared parameters in their order, defaults filled in. A job with free_params
// takes any object as it is. `given` null counts as no parameters at all.
// errc::invalid: every fault of it, as problems with the pointer /params/NAME and no position.
result<value> check_parameters(const job& of, const value& given);

// What is wrong with one value ("must be an integer, not \"x\""), or nothing.
std::optional<std::string> parameter_fault(const parameter& declared, const value& given);

// The value as its parameter wants it: an integer that was given as 3.0 becomes 3. Only for a faultless one.
value parameter_value(const parameter& declared, const value& given);

// The environment variable that a command finds it in: PENSTOCK_PARAM_NAME, upper case, anything but ASCII letters
// and digits as an underscore.
std::string parameter_variable(std::string_view name);

// As written in definitions: "string", "integer", "number", "boolean", "list", "object".
std::string_view token(parameter_type type);
std::optional<parameter_type> parse_parameter_type(std::string_view token);

}  // namespace penstock::config
