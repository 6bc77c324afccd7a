// One revision of a pipeline, made live: its definition with ${dir} filled in, and the folders it works in.
// Constant after construction; runs hold the revision they started with by shared_ptr. Any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "config/definition.hpp"
#include "config/error.hpp"
#include "scheduler/model.hpp"

namespace penstock::scheduler {

struct pipeline_revision {
  std::string name;
  std::int64_t revision = 0;
  std::string life;  // tells a pipeline from an earlier one of the same name that was removed
  std::shared_ptr<const config::pipeline> definition;
  std::filesystem::path workdir;
};

// The definition with ${dir} filled in, as it would live with a record of that origin. Makes nothing.
config::pipeline as_it_would_live(config::pipeline definition, const std::string& origin, const std::filesystem::path& data);

// Parses a stored record again (it was checked when it was stored; a newer binary may still refuse it) and makes its
// working folder under `data`.
result<std::shared_ptr<const pipeline_revision>> make_revision(const pipeline_record& record, const config::catalog& components,
                                                               const std::filesystem::path& data);

// The same for a definition that has just been parsed. errc::invalid: its workdir cannot be made.
result<std::shared_ptr<const pipeline_revision>> make_revision(const pipeline_record& record, config::pipeline definition,
                                                       const std::filesystem::path& data);

}  // namespace penstock::scheduler
