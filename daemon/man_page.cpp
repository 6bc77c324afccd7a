#include "daemon/man_page.hpp"

#include <algorithm>
#include <cctype>
#include <sstream>

#include "daemon/sentence.hpp"

namespace penstock {
namespace {

constexpr std::size_t width = 78;
constexpr const char* date = "2026-11-28";  // of the last change of what this file makes

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if (c == '\'') {
      out += "\\(aq";
    } else {
      out += c;
    }
  }
  return out;
}

std::string capitals(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

// Filled lines, none of which a formatter could take for a request.
void paragraph(std::ostream& out, const std::string& text) {
  std::istringstream words(text);
  std::string line;
  for (std::string word; words >> word;) {
    word = escaped(word);
    if (!line.empty() && line.size() + 1 + word.size() > width) {
      out << line << '\n';
      line.clear();
    }
    if (line.empty() && word.front() == '.') word.insert(0, "\\&");
    line += (line.empty() ? "" : " ") + word;
  }
  if (!line.empty()) out << line << '\n';
}

bool is_flag(const CLI::Option& option) { return option.get_items_expected_max() == 0; }

std::string argument_of(const CLI::Option& option) {
  std::string name = option.get_lnames().empty() ? "value" : option.get_lnames().front();
  return capitals(name);
}

// "-o, --output OUTPUT", with the names in bold.
std::string term_of(const CLI::Option& option) {
  std::string text;
  for (const std::string& name : option.get_snames()) text += (text.empty() ? "" : ", ") + ("\\fB\\-" + escaped(name) + "\\fR");
  for (const std::string& name : option.get_lnames()) text += (text.empty() ? "" : ", ") + ("\\fB\\-\\-" + escaped(name) + "\\fR");
  return is_flag(option) ? text : text + " \\fI" + argument_of(option) + "\\fR";
}

std::string doc_of(const CLI::Option& option) {
  std::string text = option.get_description();
  if (text.empty()) text = "Only of this " + (option.get_lnames().empty() ? std::string("name") : option.get_lnames().front());
  const std::string fallback = option.get_default_str();
  if (!fallback.empty() && !is_flag(option)) text += " (default " + fallback + ")";
  return sentence(text);
}

void entry(std::ostream& out, const std::string& term, const std::string& text) {
  out << ".TP\n" << term << '\n';
  paragraph(out, text);
}

std::vector<const CLI::Option*> listed_options(const CLI::App& app, bool positional) {
  std::vector<const CLI::Option*> found;
  for (const CLI::Option* option : app.get_options([](const CLI::Option*) { return true; })) {
    if (option->get_positional() == positional && option->get_group() != "") found.push_back(option);
  }
  return found;
}

void show_options(std::ostream& out, const CLI::App& app) {
  for (const CLI::Option* option : listed_options(app, true)) {
    if (!option->get_description().empty()) entry(out, "\\fI" + escaped(option->get_name(true)) + "\\fR", sentence(option->get_description()));
  }
  for (const CLI::Option* option : listed_options(app, false)) {
    if (option->get_name() != "--help" && option->get_name() != "-h,--help") entry(out, term_of(*option), doc_of(*option));
  }
}

std::string synopsis_of(const CLI::App& app, const std::string& path) {
  std::string text = "\\fB" + escaped(path) + "\\fR";
  if (listed_options(app, false).size() > 1) text += " [\\fIoptions\\fR]";
  for (const CLI::Option* option : listed_options(app, true)) {
    const bool many = option->get_items_expected_max() > 1;
    const std::string name = "\\fI" + escaped(option->get_name(true)) + "\\fR" + (many ? " ..." : "");
    text += option->get_required() ? " " + name : " [" + name + "]";
  }
  return text;
}

void show_command(std::ostream& out, const CLI::App& app, const std::string& path) {
  const auto below = app.get_subcommands([](const CLI::App*) { return true; });
  if (app.get_require_subcommand_min() == 0) {
    out << ".SS \"" << escaped(path) << "\"\n" << synopsis_of(app, path) << "\n.PP\n";
    paragraph(out, sentence(app.get_description()));
    show_options(out, app);
  }
  for (const CLI::App* one : below) show_command(out, *one, path + " " + one->get_name());
}

// The footer, cut into sections.
std::vector<man_section> sections_of(const std::string& footer) {
  std::vector<man_section> all;
  std::istringstream lines(footer);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) continue;
    if (line.back() == ':' && line.front() != ' ') {
      std::string title = capitals(line.substr(0, line.size() - 1));
      all.push_back({title == "EXIT CODES" ? "EXIT STATUS" : title});
      continue;
    }
    if (all.empty()) all.push_back({"NOTES"});
    const std::size_t begin = line.find_first_not_of(' ');
    const std::size_t gap = line.find("  ", begin);
    const std::size_t text = gap == std::string::npos ? gap : line.find_first_not_of(' ', gap);
    if (begin <= 2 && text != std::string::npos) {
      all.back().entries.emplace_back(line.substr(begin, gap - begin), line.substr(text));
    } else if (!all.back().entries.empty()) {
      all.back().entries.back().second += " " + line.substr(begin);
    } else {
      all.back().text += (all.back().text.empty() ? "" : " ") + line.substr(begin);
    }
  }
  return all;
}

void show_section(std::ostream& out, const man_section& section) {
  out << ".SH " << section.title << '\n';
  paragraph(out, section.text);
  for (const auto& [term, text] : section.entries) entry(out, "\\fB" + escaped(term) + "\\fR", sentence(text));
}

}  // namespace

std::string man_page(const CLI::App& app, const man_options& options) {
  std::ostringstream out;
  const std::string name = app.get_name();
  out << ".TH " << capitals(name) << ' ' << options.section << ' ' << date << " \"penstock " PENSTOCK_VERSION "\" Penstock\n"
      << ".SH NAME\n" << name << " \\- " << escaped(options.tagline) << "\n.SH SYNOPSIS\n\\fB" << name << "\\fR [\\fIoptions\\fR]";
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  out << (commands.empty() ? "\n" : " \\fIcommand\\fR ...\n") << ".SH DESCRIPTION\n";
  paragraph(out, app.get_description());
  out << ".SH OPTIONS\n";
  if (!commands.empty()) paragraph(out, "These may stand before or behind a command.");
  entry(out, "\\fB\\-h\\fR, \\fB\\-\\-help\\fR", "Say how it is used; behind a command: how that is.");
  show_options(out, app);
  if (!commands.empty()) out << ".SH COMMANDS\n";
  for (const CLI::App* one : commands) show_command(out, *one, name + " " + one->get_name());
  for (const man_section& section : options.more) show_section(out, section);
  for (const man_section& section : sections_of(app.get_footer())) show_section(out, section);
  if (!options.see_also.empty()) {
    out << ".SH SEE ALSO\n";
    for (std::size_t i = 0; i < options.see_also.size(); ++i) {
      const std::string& one = options.see_also[i];
      const std::size_t bracket = one.find('(');
      out << ".BR " << escaped(one.substr(0, bracket)) << ' ' << one.substr(bracket) << (i + 1 < options.see_also.size() ? " ,\n" : "\n");
    }
  }
  return out.str();
}

}  // namespace penstock
