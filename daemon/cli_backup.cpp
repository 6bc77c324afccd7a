// penstock backup: an online copy of the daemon's data folder. The daemon makes it; this asks for it and watches.
#include <filesystem>

#include <nlohmann/json.hpp>

#include "daemon/cli_ask.hpp"

namespace penstock::cli {
namespace {

// Rounded up, in what makes the number readable: "0 MiB" would say that there is nothing.
std::string size_of(const document& view, const char* member) {
  constexpr std::int64_t kib = 1 << 10, mib = 1 << 20;
  const std::int64_t bytes = view.value(member, std::int64_t{0});
  return bytes < mib ? std::to_string((bytes + kib - 1) / kib) + " KiB" : std::to_string((bytes + mib - 1) / mib) + " MiB";
}

// Ctrl-C may come before the answer: the backup is ours if it goes where we wanted it.
document begin(const surroundings& with, const std::string& to, bool logs) {
  try {
    return ask(with, post_json("/v1/backup", {{"to", to}, {"logs", logs}}));
  } catch (const interruption&) {
    client::forget_interrupt();
    const document view = ask(with, {.path = "/v1/backup"});
    if (word(view, "state") == "running" && word(view, "to") == to) ask(with, {.method = "POST", .path = "/v1/backup/cancel"});
    throw;
  }
}

// Until it has ended. Ctrl-C cancels it, so that none goes on that nobody waits for.
document watch(const surroundings& with, document view) {
  progress_bar bar(with, "copying");
  try {
    while (word(view, "state") == "running") {
      bar.show(view.value("bytes_done", std::int64_t{0}), view.value("bytes", std::int64_t{0}),
               size_of(view, "bytes_done") + " of " + size_of(view, "bytes"));
      view = ask(with, {.path = bar.shown() ? "/v1/backup?wait=300ms" : "/v1/backup?wait=30s", .waits = std::chrono::seconds(30)});
    }
  } catch (const interruption&) {
    client::forget_interrupt();
    ask(with, {.method = "POST", .path = "/v1/backup/cancel"});
    throw;
  }
  return view;
}

}  // namespace

int backup(const surroundings& with, const backup_options& options) {
  return guarded(with, [&] {
    const std::string to = std::filesystem::absolute(options.to).lexically_normal().string();
    document view = begin(with, to, options.logs);
    if (!options.no_wait) view = watch(with, std::move(view));
    const std::string state = word(view, "state");
    if (with.json) {
      print_json(with.out, view);
    } else if (state == "done") {
      with.out << word(view, "to") << ": as of " << word(view, "as_of") << ", " << word(view, "files_done") << " files, "
               << size_of(view, "bytes_done") << '\n';
    } else if (state == "running") {
      with.out << word(view, "to") << ": is being made\n";
    } else {
      with.err << "penstock: the backup " << (state == "failed" ? "failed: " + word(view, "reason") : "was cancelled") << '\n';
    }
    return state == "done" || state == "running" ? exit_ok : exit_no;
  });
}

}  // namespace penstock::cli
