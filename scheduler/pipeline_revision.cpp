#include "scheduler/pipeline_revision.hpp"

#include <nlohmann/json.hpp>

#include "config/fill_dir.hpp"
#include "runtime/durable_folder.hpp"

namespace penstock::scheduler {

namespace {

namespace fs = std::filesystem;
using config::fill_dir;
using config::with_dir;

void fill_dir(config::work& work, const std::string& dir) {
  if (auto* flow = std::get_if<config::dataflow>(&work)) {
    config::fill_dir(*flow, dir);
  } else if (auto* command = std::get_if<config::command>(&work)) {
    for (auto& argument : command->run) argument = with_dir(argument, dir);
    for (auto& [name, text] : command->environment) text = with_dir(text, dir);
    command->process.workdir = with_dir(command->process.workdir, dir);
    if (command->to) fill_dir(command->to->settings, dir);
  }
}

void fill_dir(config::trigger& trigger, const std::string& dir) {
  if (auto* file = std::get_if<config::file_trigger>(&trigger)) {
    for (auto* text : {&file->path, &file->move_to, &file->move_failed_to}) *text = with_dir(*text, dir);
  } else if (auto* hook = std::get_if<config::webhook_trigger>(&trigger)) {
    fill_dir(hook->signature, dir);
  }
}

fs::path own_folder_of(const std::string& name, const fs::path& data) { return fs::absolute(data) / "work" / name; }

std::string dir_of(const std::string& name, const std::string& origin, const fs::path& data) {
  return origin == "rest" ? own_folder_of(name, data).string() : fs::path(origin).parent_path().string();
}

}  // namespace

config::pipeline as_it_would_live(config::pipeline definition, const std::string& origin, const fs::path& data) {
  const std::string dir = dir_of(definition.name, origin, data);
  for (auto& [name, flow] : definition.flows) {
    fill_dir(flow.does, dir);
    if (!flow.ready) continue;
    for (auto& argument : flow.ready->run) argument = with_dir(argument, dir);
  }
  for (auto& [name, job] : definition.jobs) {
    for (auto& task : job.tasks) fill_dir(task.does, dir);
    for (auto& trigger : job.triggers) fill_dir(trigger, dir);
    for (auto& alert : job.alerts) fill_dir(alert.to.settings, dir);
  }
  definition.tests = {};  // only `penstock test` has a use for them; `document` keeps them
  return definition;
}

result<std::shared_ptr<const pipeline_revision>> make_revision(const pipeline_record& record, config::pipeline definition,
                                                       const fs::path& data) {
  auto made = std::make_shared<pipeline_revision>();
  made->name = record.name;
  made->revision = record.revision;
  made->life = std::to_string(to_micros(record.created_at));

  const fs::path own_folder = own_folder_of(record.name, data);
  made->workdir = definition.workdir.empty() ? own_folder : own_folder / with_dir(definition.workdir, dir_of(record.name, record.origin, data));
  try {
    if (definition.workdir.empty()) {
      fs::create_directories(made->workdir);  // thousands at once: who registers pipelines syncs the folder that holds them
    } else {
      runtime::make_durable_folder(made->workdir);
    }
  } catch (const fs::filesystem_error& e) {
    const std::string detail = "workdir " + made->workdir.string() + " cannot be made: " + e.code().message();
    return error{errc::invalid, detail, {{"/workdir", 0, 0, detail}}};
  }
  made->definition = std::make_shared<const config::pipeline>(as_it_would_live(std::move(definition), record.origin, data));
  return std::shared_ptr<const pipeline_revision>(std::move(made));
}

result<std::shared_ptr<const pipeline_revision>> make_revision(const pipeline_record& record,
                                                               const config::catalog& components, const fs::path& data) {
  auto parsed = config::parse_pipeline(record.text, components, {.file = record.origin == "rest" ? "" : record.origin, .stored = true});
  if (!parsed) return parsed.error();
  return make_revision(record, std::move(*parsed), data);
}

}  // namespace penstock::scheduler
