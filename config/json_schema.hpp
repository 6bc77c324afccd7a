// JSON Schema (2020-12) of pipeline definitions, made from the field records; editors read it for completion.
#pragma once

#include "config/field.hpp"

namespace penstock::config {

value pipeline_json_schema(const catalog& components);

}  // namespace penstock::config
