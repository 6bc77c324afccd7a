// What shells complete. All that is known stands here; the scripts only pass words on.
#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include <nlohmann/json.hpp>

#include "daemon/cli_app.hpp"
#include "daemon/cli_ask.hpp"

namespace penstock::cli {
namespace {

constexpr std::chrono::milliseconds patience{1000};  // a person waits for it

// The words of the line by spaces, because bash's own words end at = and :, too.
constexpr const char* bash_script = R"(# bash completion of penstock
_penstock() {
  local line words cur prefix
  read -ra words <<<"${COMP_LINE:0:COMP_POINT}"
  [[ ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]] && words+=("")
  cur=${words[-1]}
  COMPREPLY=()
  while IFS= read -r line; do
    case $line in
      :files) compopt -o filenames 2>/dev/null; mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$cur") ;;
      :folders) compopt -o filenames 2>/dev/null; mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -d -- "$cur") ;;
      ?*) COMPREPLY+=("${line%%$'\t'*}") ;;
    esac
  done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
  [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
  # What stands before the last word break is on the line already.
  prefix=${cur%"${cur##*[=:]}"}
  [[ -n $prefix && $COMP_WORDBREAKS == *"${prefix: -1}"* ]] && COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
  return 0
}
complete -F _penstock penstock
)";

constexpr const char* zsh_script = R"(#compdef penstock
# zsh completion of penstock
_penstock() {
  local -a candidates
  local line
  for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    case $line in
      :files) _files ;;
      :folders) _files -/ ;;
      ?*) candidates+=("${${line//:/\\:}/$'\t'/:}") ;;
    esac
  done
  (( ${#candidates} )) && _describe penstock candidates
}
if [[ "${funcstack[1]}" == _penstock ]]; then
  _penstock "$@"
else
  compdef _penstock penstock
fi
)";

constexpr const char* fish_script = R"(# fish completion of penstock
function __penstock_complete
  set -l words (commandline -opc)
  set -l current (commandline -ct)
  for line in ($words[1] __complete $words[2..-1] "$current" 2>/dev/null)
    switch $line
      case ':files'
        __fish_complete_path "$current"
      case ':folders'
        __fish_complete_directories "$current"
      case '*'
        printf '%s\n' $line
    end
  end
end
complete -c penstock -f -a '(__penstock_complete)'
)";

using candidate = std::pair<std::string, std::string>;  // word and description

// Where on the line the last word stands, found by walking the tree as the parser does.
struct position {
  const CLI::App* command = nullptr;
  const CLI::Option* value_of = nullptr;  // the option whose value is asked for
  std::map<std::string, std::string> given{};  // positionals and options by name: "PIPELINE", "--pipeline"
  std::size_t positionals = 0;
};

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<const CLI::Option*> options_of(const CLI::App& app, bool positional) {
  std::vector<const CLI::Option*> found;
  for (const CLI::Option* option : app.get_options([](const CLI::Option*) { return true; })) {
    if (option->get_positional() == positional) found.push_back(option);
  }
  return found;
}

// Of the command or those above it.
const CLI::Option* find_option(const CLI::App* command, const std::string& name) {
  for (; command; command = command->get_parent()) {
    for (const CLI::Option* option : options_of(*command, false)) {
      if (option->check_name(name)) return option;
    }
  }
  return nullptr;
}

std::string name_of(const CLI::Option& option) {
  return option.get_positional() ? option.get_name(true) : option.get_lnames().empty() ? option.get_name() : "--" + option.get_lnames().front();
}

const CLI::Option* positional_at(const CLI::App& command, std::size_t index) {
  const auto all = options_of(command, true);
  if (index < all.size()) return all[index];
  return !all.empty() && all.back()->get_items_expected_max() > 1 ? all.back() : nullptr;
}

position find_position(const CLI::App& app, const std::vector<std::string>& words) {
  position at{.command = &app};
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    const std::string& word = words[i];
    if (at.value_of) {
      at.given[name_of(*at.value_of)] = word;
      at.value_of = nullptr;
      continue;
    }
    if (word.size() > 1 && word.front() == '-') {
      const std::size_t equals = word.find('=');
      const CLI::Option* option = find_option(at.command, word.substr(0, equals));
      if (!option || option->get_items_expected_max() == 0) continue;
      if (equals == std::string::npos) {
        at.value_of = option;
      } else {
        at.given[name_of(*option)] = word.substr(equals + 1);
      }
      continue;
    }
    const auto below = commands_of(*at.command);
    const auto command = std::find_if(below.begin(), below.end(), [&](const CLI::App* one) { return one->get_name() == word; });
    if (command != below.end() && at.positionals == 0) {
      at.command = *command;
      continue;
    }
    if (const CLI::Option* option = positional_at(*at.command, at.positionals)) at.given[name_of(*option)] = word;
    ++at.positionals;
  }
  return at;
}

// Names that the daemon knows.
class names {
 public:
  explicit names(const position& at, const arguments& given)
      : at_(at), daemon_(at.given.count("--url") ? at.given.at("--url") : given.url, given.tls) {
    const auto quietly = [](const std::string&) {};
    const std::string file = at.given.count("--token-file") ? at.given.at("--token-file") : "";
    daemon_.send_token(token_from(file == "-" ? "" : file, quietly));
    daemon_.set_patience(patience, patience);
  }

  std::vector<candidate> of(const std::string& kind) {
    if (kind == "PIPELINE" || kind == "--pipeline") return listed("/v1/pipelines?limit=1000", "name", {"description"});
    if (kind == "TOPIC") return listed("/v1/topics?limit=1000", "name", {"events"}, " events");
    if (kind == "RUN") return runs();
    if (kind == "TOKEN" || kind == "--token") return listed("/v1/tokens?limit=1000", "id", {"name", "state"});
    if (kind == "ID") return listed("/v1/dead-letters?limit=200", "id", {"consumer", "reason"});
    if (kind == "NUMBER" || kind == "--revision") return listed(pipeline() + "/revisions?limit=1000", "revision", {"updated_at"});
    if (kind == "JOB" || kind == "--job") return members(get(pipeline()), "jobs", "triggers");
    if (kind == "FLOW") return members(get(pipeline()), "flows", "state");
    if (kind == "--task") return members(get(run_path(given("RUN"))), "tasks", "state");
    if (kind == "--param") return parameters();
    if (kind == "--after" && at_.command->get_name() == "tap") return steps();
    return {};
  }

 private:
  std::string given(const char* name) const { return at_.given.count(name) ? at_.given.at(name) : ""; }
  std::string pipeline() const { return pipeline_path(given("PIPELINE").empty() ? given("--pipeline") : given("PIPELINE")); }

  document get(const std::string& path) {
    const answer said = daemon_.send({.path = path});
    return said.ok() ? document::parse(said.body, nullptr, false) : document();
  }

  std::vector<candidate> listed(const std::string& path, const char* name, const std::vector<const char*>& docs, const char* unit = "") {
    std::vector<candidate> all;
    const document list = get(path);
    for (const document& item : items_of(list)) {
      std::string doc;
      for (const char* member : docs) doc += (doc.empty() ? "" : " ") + word(item, member);
      all.emplace_back(word(item, name), doc == "-" ? "" : doc + unit);
    }
    return all;
  }

  static std::vector<candidate> members(const document& of, const char* list, const char* doc) {
    std::vector<candidate> all;
    for (const document& one : member_of(of, list)) {
      const document& text = member_of(one, doc);
      all.emplace_back(word(one, "name"), text.is_array() ? (text.empty() ? "" : text[0].get<std::string>()) : word(one, doc));
    }
    return all;
  }

  std::vector<candidate> runs() {
    const bool unfinished = at_.command->get_name() == "cancel";
    return listed(unfinished ? "/v1/runs?limit=50&state=queued,running,retrying" : "/v1/runs?limit=50", "id", {"pipeline", "job", "state"});
  }

  std::vector<candidate> parameters() {
    std::vector<candidate> all;
    const document whole = get(pipeline());
    const document& job = member_of(member_of(member_of(whole, "definition"), "jobs"), given("JOB").c_str());
    const document& params = member_of(job, "params");
    if (!params.is_object()) return all;
    for (const auto& [name, record] : params.items()) {
      const std::string doc = record.is_object() ? word(record, "doc") : "-";
      all.emplace_back(name + "=", doc == "-" ? "" : doc);
    }
    return all;
  }

  std::vector<candidate> steps() {
    auto all = members(get(pipeline() + "/flows/" + encode(given("FLOW"))), "steps", "received");
    for (auto& [name, doc] : all) doc = "step, " + doc + " events received";
    all.insert(all.begin(), {"from", "what the source gives"});
    return all;
  }

  const position& at_;
  client daemon_;
};

// The words of "TEXT:{yaml,json}", as a check for membership describes itself.
std::vector<candidate> choices_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const std::size_t open = type.find('{'), close = type.find('}');
  std::vector<candidate> all;
  if (open == std::string::npos || close == std::string::npos) return all;
  std::string list = type.substr(open + 1, close - open - 1) + ",";
  for (std::size_t begin = 0, end; (end = list.find(',', begin)) != std::string::npos; begin = end + 1) {
    all.emplace_back(list.substr(begin, end - begin), "");
  }
  return all;
}

std::vector<candidate> candidates_of(const std::vector<std::string>& words) {
  std::vector<candidate> all;
  for (const std::string& word : words) all.emplace_back(word, "");
  return all;
}

std::vector<candidate> values_of(const CLI::Option& option, const position& at, const arguments& given) {
  const std::string kind = name_of(option);
  for (const char* file : {"FILE", "--events", "--token-file", "--cacert", "--cert", "--key"}) {
    if (kind == file) return {{":files", ""}};
  }
  if (kind == "FOLDER" || kind == "--data") return {{":folders", ""}};
  if (kind == "--state") return candidates_of(run_states);
  if (kind == "--role") return candidates_of(roles);
  if (kind == "--outcome") return candidates_of(outcomes);
  auto all = choices_of(option);
  return all.empty() ? names(at, given).of(kind) : all;
}

std::vector<candidate> options_at(const position& at) {
  std::vector<candidate> all;
  for (const CLI::App* command = at.command; command; command = command->get_parent()) {
    for (const CLI::Option* option : options_of(*command, false)) {
      const std::string name = name_of(*option);
      const bool known = std::any_of(all.begin(), all.end(), [&](const candidate& c) { return c.first == name; });
      if (!known) all.emplace_back(name, option->get_description());
    }
  }
  return all;
}

std::vector<candidate> candidates_at(const position& at, const std::string& last, const arguments& given) {
  if (at.value_of) return values_of(*at.value_of, at, given);
  if (last.starts_with("-")) {
    const std::size_t equals = last.find('=');
    const CLI::Option* option = equals == std::string::npos ? nullptr : find_option(at.command, last.substr(0, equals));
    if (!option) return options_at(at);
    auto all = values_of(*option, at, given);
    for (auto& one : all) one.first.insert(0, last.substr(0, equals + 1));
    return all;
  }
  std::vector<candidate> all;
  if (at.positionals == 0) {
    for (const CLI::App* command : commands_of(*at.command)) all.emplace_back(command->get_name(), command->get_description());
  }
  if (const CLI::Option* option = positional_at(*at.command, at.positionals)) {
    const auto values = values_of(*option, at, given);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

}  // namespace

std::string completion_script(const std::string& shell) {
  if (shell == "bash") return bash_script;
  if (shell == "zsh") return zsh_script;
  if (shell == "fish") return fish_script;
  throw usage_error("there are scripts for bash, zsh and fish, not for " + shell);
}

void complete(const std::vector<std::string>& words, std::ostream& out) {
  arguments given;
  CLI::App app;
  build_app(app, given);
  const position at = find_position(app, words);
  const std::string last = words.empty() ? "" : words.back();
  try {
    for (auto [name, doc] : candidates_at(at, last, given)) {
      if (!name.starts_with(last) && !name.starts_with(':')) continue;
      const auto broken = [](char c) { return static_cast<unsigned char>(c) < 0x20; };
      if (std::any_of(name.begin(), name.end(), broken)) continue;
      std::replace_if(doc.begin(), doc.end(), broken, ' ');
      out << name << (doc.empty() || doc == "-" ? "" : "\t" + doc) << '\n';
    }
  } catch (const std::exception&) {
    // Nobody answers, or not in words: then there is nothing to offer. A message would stand in the middle of the line.
  }
}

}  // namespace penstock::cli
